"""OpenTelemetry: spans and durations as the semantic conventions have them (rule SRV-51)."""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from asupplemented import CacheStats, Catalog, Session, events
from asupplemented.telemetry import OpenTelemetry
from asupplemented.telemetry.measurements import DURATIONS
from asupplemented.testing import FakeRegistry, build_image
from tests.telemetry.test_measurements import HUB, IMAGE, served
from tests.web.clients import aiohttp_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asupplemented.events import Event


class Recorded(NamedTuple):
    """A hook, and what it made."""

    hook: OpenTelemetry
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracers: TracerProvider

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    yield Recorded(OpenTelemetry(tracers, meters), exporter, reader, tracers)
    tracers.shutdown()
    meters.shutdown()


SERVER = {"http.request.method": "GET", "url.scheme": "http"}
CLIENT = {
    "http.request.method": "GET",
    "url.scheme": "https",
    "server.address": "registry-1.docker.io",
    "server.port": 443,
}
BLOB = {"http.route": "/v2/{name}/blobs/{digest}"}

ROWS: list[tuple[Event, str, dict[str, Any], bool]] = [
    (
        served(),
        "GET /v2/{name}/blobs/{digest}",
        {**SERVER, **BLOB, "http.response.status_code": 200},
        False,
    ),
    (
        served(route="manifest", status=404, error="ManifestNotFoundError", scheme="https"),
        "GET /v2/{name}/manifests/{reference}",
        {
            **SERVER,
            "http.route": "/v2/{name}/manifests/{reference}", "url.scheme": "https",
            "http.response.status_code": 404,
        },
        False,
    ),
    (
        served(status=502, error="NetworkError"),
        "GET /v2/{name}/blobs/{digest}",
        {**SERVER, **BLOB, "http.response.status_code": 502, "error.type": "NetworkError"},
        True,
    ),
    (
        served(status=500),
        "GET /v2/{name}/blobs/{digest}",
        {**SERVER, **BLOB, "http.response.status_code": 500, "error.type": "500"},
        True,
    ),
    (
        served(complete=False, error="DigestMismatchError"),
        "GET /v2/{name}/blobs/{digest}",
        {**SERVER, **BLOB, "http.response.status_code": 200, "error.type": "DigestMismatchError"},
        True,
    ),
    (
        served(complete=False, status=499),
        "GET /v2/{name}/blobs/{digest}",
        {**SERVER, **BLOB},
        False,
    ),
    (
        served(method="BREW", route="other", status=405),
        "HTTP",
        {**SERVER, "http.request.method": "_OTHER", "http.response.status_code": 405},
        False,
    ),
    (HUB, "GET", {**CLIENT, "http.response.status_code": 200}, False),
    (
        HUB._replace(status=429),
        "GET",
        {**CLIENT, "http.response.status_code": 429, "error.type": "429"},
        True,
    ),
    (
        HUB._replace(status=None, error="NetworkError"),
        "GET",
        {**CLIENT, "error.type": "NetworkError"},
        True,
    ),
    (HUB._replace(status=None), "GET", CLIENT, False),
    (
        HUB._replace(registry="[::1]:5000", origin="http://[::1]:5000"),
        "GET",
        {
            "http.request.method": "GET", "url.scheme": "http",
            "server.address": "::1", "server.port": 5000, "http.response.status_code": 200,
        },
        False,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("event", "name", "attributes", "fails"), ROWS)
def test_SRV51_spans_and_durations(
    recorded: Recorded,
    event: Event,
    name: str,
    attributes: dict[str, Any],
    fails: bool,  # noqa: FBT001
) -> None:
    recorded.hook(HUB)  # so that its origin is known
    recorded.exporter.clear()
    recorded.hook(event)
    (span,) = recorded.spans()
    side = "server" if isinstance(event, events.RequestServed) else "client"
    assert span.name == name
    assert span.kind is (SpanKind.SERVER if side == "server" else SpanKind.CLIENT)
    assert span.status.status_code is (StatusCode.ERROR if fails else StatusCode.UNSET)
    assert span.attributes is not None
    standard = {
        key: value
        for key, value in span.attributes.items()
        if not key.startswith(("asupplemented.", "client.", "http.response.body"))
    }
    assert standard == attributes
    points = recorded.points(f"http.{side}.request.duration")
    assert attributes in [point.attributes for point in points]
    assert {point.explicit_bounds for point in points} == {DURATIONS}


def test_a_span_has_the_times_of_the_request(recorded: Recorded) -> None:
    before = time_ns()
    with recorded.tracers.get_tracer("application").start_as_current_span("request") as parent:
        recorded.hook(served(seconds=2.0))
    span, _ = recorded.spans()
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == 2_000_000_000
    assert before <= span.end_time <= time_ns()
    assert span.parent == parent.get_span_context()
    assert span.attributes is not None
    details = {
        "client.address": "192.0.2.1",
        "http.response.body.size": 10,
        "asupplemented.repository": "team/app",
        "asupplemented.reference": "1",
        "asupplemented.source": IMAGE,
        "asupplemented.cache": "miss",
    }
    assert details.items() <= span.attributes.items()


def test_metrics_are_those_of_prometheus_under_their_names_here(recorded: Recorded) -> None:
    recorded.hook(HUB)
    recorded.hook(events.BlobServed(IMAGE, "sha256:1", 0, 7, None))
    recorded.hook(events.RateLimitTold(IMAGE, "docker.io", 100, 76, 21600))
    recorded.hook.set_cache(CacheStats(bytes=5, entries=1, pins=0, hits=0, misses=0, limit=9))
    (point,) = recorded.points("asupplemented.source")
    assert (point.value, point.attributes) == (7, {"source": "docker.io", "type": "blob"})
    (point,) = recorded.points("asupplemented.budget.remaining")
    assert (point.value, point.attributes) == (76, {"registry": "docker.io"})
    assert [point.value for point in recorded.points("asupplemented.cache")] == [5]
    assert recorded.points("registry.proxy.pulled") == []


def test_SRV49_names_and_unknown_servers_add_no_series(recorded: Recorded) -> None:
    def count() -> int:
        return sum(
            len(recorded.points(f"http.{side}.request.duration")) for side in ("server", "client")
        )

    def pull(number: int) -> None:
        name = f"name-{number}"
        recorded.hook(served(name=name, reference=name, client=name, method=name))
        origin = f"https://h{number}.test"
        recorded.hook(HUB._replace(registry=name, origin=origin))
        recorded.hook(HUB._replace(registry=name, origin=origin + ":1", status=None, error=name))

    for number in range(40):
        pull(number)
    before = count()
    for number in range(40, 200):
        pull(number)
    assert count() == before


async def test_a_pull(recorded: Recorded) -> None:
    image = build_image("linux/amd64")
    async with (
        FakeRegistry() as upstream,
        Session(tls_verify=False, hooks=[recorded.hook]) as session,
        Catalog({"team/app": f"docker://{upstream.host}/team/app"}) as catalog,
        aiohttp_client(catalog, session) as client,
    ):
        upstream.add("team/app", image)
        await client.get("/v2/team/app/manifests/latest")
        kinds = [span.kind for span in recorded.spans()]
        assert kinds.count(SpanKind.SERVER) == 1
        assert kinds.count(SpanKind.CLIENT) == len(upstream.requests) + 1  # one over TLS
