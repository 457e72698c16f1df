"""Prometheus: what a pull through the registry counts, and several processes as one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import asupplemented as asup
from asupplemented import Catalog, LayoutCache, Session
from asupplemented.cache.sharing import SHARING, Sharing, settle
from asupplemented.errors import ConfigurationError
from asupplemented.model.digest import Digest
from asupplemented.telemetry import PrometheusMetrics, exposition
from asupplemented.testing import FakeRegistry, Hold, build_image
from tests.modules import ROOT, code_blocks, read_page
from tests.web.clients import aiohttp_client, until
from tests.web.conftest import LARGE

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = build_image("linux/amd64", [LARGE])
LAYER = Digest.of(LARGE)


def read(registry: CollectorRegistry) -> dict[str, float]:
    """The samples as a scrape shows them, by ``name label=value``."""
    body, media_type = exposition(registry)
    assert media_type.startswith("text/plain")
    return {
        " ".join((sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items())))): (
            sample.value
        )
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


async def test_SRV48_a_pull_of_three_clients_then_one_from_the_cache(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry)
    start = read(registry)
    for kind in ("requests", "hits", "misses", "pulled_bytes", "pushed_bytes"):
        for content in ("blob", "manifest"):
            assert start[f"registry_proxy_{kind}_total type={content}"] == 0
    async with (
        FakeRegistry() as upstream,
        LayoutCache(tmp_path / "cache", 1 << 30) as cache,
        Session(cache=cache, tls_verify=False, hooks=[metrics]) as session,
        Catalog({"team/app": f"docker://{upstream.host}/team/app"}) as catalog,
        aiohttp_client(catalog, session) as client,
    ):
        upstream.add("team/app", IMAGE)
        gate = asyncio.Event()
        upstream.script(f"*/blobs/{LAYER}", Hold(gate))
        for path in ("manifests/latest", f"blobs/{LAYER}"):
            asking = [asyncio.ensure_future(client.get(f"/v2/team/app/{path}")) for _ in range(3)]
            if "blobs" in path:
                fetches = session.resource(SHARING, Sharing)._running
                await until(lambda: sum(len(fetch.readers) for fetch in fetches) == 3)  # noqa: B023
                gate.set()
            await asyncio.gather(*asking)
            await settle(session)
            await client.get(f"/v2/team/app/{path}")
        metrics.set_cache(cache.stats())
        found = read(registry)
        host = upstream.host
        for kind, size in (("manifest", len(IMAGE.raw)), ("blob", len(LARGE))):
            assert found[f"registry_proxy_requests_total type={kind}"] == 4
            assert found[f"registry_proxy_misses_total type={kind}"] == 1
            assert found[f"registry_proxy_hits_total type={kind}"] == 3
            assert found[f"registry_proxy_pulled_bytes_total type={kind}"] == size
            assert found[f"registry_proxy_pushed_bytes_total type={kind}"] == 4 * size
            assert found[f"asupplemented_source_bytes_total source={host} type={kind}"] == size
            requests = f"registry_http_requests_total code=200 handler={kind} method=get"
            assert found[requests] == 4
            assert found[f"registry_http_response_size_bytes_sum handler={kind}"] == 4 * size
            assert found[f"asupplemented_first_byte_seconds_count handler={kind}"] == 4
        assert found["asupplemented_source_bytes_total source=cache type=blob"] == len(LARGE)
        sent = f"asupplemented_upstream_requests_total method=get registry={host} status=200"
        assert found[sent] == upstream.count(method="GET")
        assert found["asupplemented_cache_bytes"] == cache.stats().bytes > len(LARGE)
        assert found["asupplemented_cache_limit_bytes"] == 1 << 30
        assert found["asupplemented_cache_entries"] == cache.stats().entries


def test_a_registry_has_the_metrics_once() -> None:
    registry = CollectorRegistry()
    PrometheusMetrics(registry)
    with pytest.raises(ConfigurationError, match="share one PrometheusMetrics"):
        PrometheusMetrics(registry)


WORKERS = """
import json, os, sys
from asupplemented import events
from asupplemented.telemetry import PrometheusMetrics, exposition
from prometheus_client.multiprocess import mark_process_dead

def work(evicted):
    metrics = PrometheusMetrics()
    for _ in range(evicted):
        metrics(events.BlobEvicted("sha256:1", 10, 60.0))
    metrics(events.UpstreamResponded("docker.io", "GET", 200, 0.1, None))
    metrics(events.RateLimitTold("docker://docker.io/a", "docker.io", 100, 70 - evicted, None))

def show():
    lines = exposition()[0].decode().splitlines()
    names = ("asupplemented_cache_evicted_bytes_total", "asupplemented_budget_remaining")
    return sorted(line for line in lines if line.startswith(names))

shown = []
for evicted in (1, 2, 4):
    child = os.fork()
    if not child:
        work(evicted)
        os._exit(0)
    os.waitpid(child, 0)
    shown.append(show())
    mark_process_dead(child)
    shown.append(show())
print(json.dumps(shown))
"""


def test_SRV50_workers_count_as_one_and_no_counter_falls(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WORKERS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    evicted = "asupplemented_cache_evicted_bytes_total"
    left = 'asupplemented_budget_remaining{registry="docker.io"}'
    assert json.loads(done.stdout) == [
        sorted([f"{evicted} {total}.0", f"{left} {rest}.0"])
        for total, rest in ((10, 69), (30, 68), (70, 66))
        for _ in range(2)
    ]


MISSING = """
import json, sys
sys.modules["prometheus_client"] = sys.modules["opentelemetry"] = None
import asupplemented as asup
told = []
for name in ("PrometheusMetrics", "exposition", "OpenTelemetry"):
    try:
        getattr(asup.telemetry, name)()
    except asup.ConfigurationError as error:
        told.append(str(error))
print(json.dumps(told))
"""

LOADED = """
import json, sys
import asupplemented.telemetry, asupplemented.telemetry.measurements
names = ("opentelemetry", "prometheus_client", "aiohttp")
print(json.dumps([name for name in names if name in sys.modules]))
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        pytest.param(
            MISSING,
            [
                *["metrics for Prometheus need its client: pip install 'asupplemented[prometheus]'"]
                * 2,
                "OpenTelemetry needs its API: pip install 'asupplemented[otel]'",
            ],
            id="an error names the extra",
        ),
        pytest.param(LOADED, [], id="nothing is imported before a hook is made"),
    ],
)
def test_extras(program: str, expected: list[str]) -> None:
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == expected


async def test_the_guide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prometheus_client.REGISTRY", CollectorRegistry())
    blocks = code_blocks(read_page("howto/observability.md"), "python")
    scrape, hook = (block for block in blocks if "def " in block)
    metrics, cache = PrometheusMetrics(), LayoutCache(tmp_path, 1 << 20)
    given = {"asup": asup, "asyncio": asyncio, "web": web, "metrics": metrics, "cache": cache}
    names: dict[str, Any] = dict(given)
    exec(f"from __future__ import annotations\n{scrape}\n{hook}", names)  # noqa: S102 - the guide
    response = await names["scrape"](None)
    assert b"\nasupplemented_cache_limit_bytes 1.048576e+06\n" in response.body
    names["hook"](asup.BlobEvicted("sha256:1", 9, None))
    assert capsys.readouterr().out == "evicted sha256:1, 9 bytes\n"
