"""What events amount to: each byte once, and labels from closed sets only."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from asupplemented import errors, events
from asupplemented.telemetry import PrometheusMetrics
from asupplemented.telemetry.measurements import METRICS, Measurer
from tests.modules import read_page

if TYPE_CHECKING:
    from asupplemented.events import Event

HUB = events.UpstreamResponded("docker.io", "GET", 200, 0.5, None, "https://registry-1.docker.io")
IMAGE = "docker://docker.io/library/alpine:3"


def served(**changed: Any) -> events.RequestServed:
    fields: dict[str, Any] = {
        "method": "GET",
        "route": "blob",
        "registry": None,
        "name": "team/app",
        "reference": "1",
        "status": 200,
        "sent": 10,
        "seconds": 2.0,
        "first_byte": 1.0,
        "source": IMAGE,
        "cache": "miss",
        "principal": None,
        "client": "192.0.2.1",
        "complete": True,
        "error": None,
    }
    return events.RequestServed(**{**fields, **changed})


ROWS: list[tuple[Event, dict[tuple[str, ...], float]]] = [
    (
        served(),
        {
            ("registry_http_requests_total", "200", "blob", "get"): 1,
            ("registry_http_request_duration_seconds", "blob", "get"): 2,
            ("registry_http_response_size_bytes", "blob"): 10,
            ("asupplemented_first_byte_seconds", "blob"): 1,
            ("registry_proxy_requests_total", "blob"): 1,
            ("registry_proxy_misses_total", "blob"): 1,
            ("asupplemented_requests_total", "blob", "miss"): 1,
            ("registry_proxy_pushed_bytes_total", "blob"): 10,
        },
    ),
    (
        served(method="HEAD", route="manifest", cache="joined", sent=0, first_byte=None),
        {
            ("registry_http_requests_total", "200", "manifest", "head"): 1,
            ("registry_http_request_duration_seconds", "manifest", "head"): 2,
            ("registry_http_response_size_bytes", "manifest"): 0,
            ("registry_proxy_requests_total", "manifest"): 1,
            ("registry_proxy_hits_total", "manifest"): 1,
            ("asupplemented_requests_total", "manifest", "joined"): 1,
            ("registry_proxy_pushed_bytes_total", "manifest"): 0,
        },
    ),
    (
        served(method="BREW", route="other", status=405, cache="", complete=False),
        {
            ("registry_http_requests_total", "405", "other", "other"): 1,
            ("registry_http_request_duration_seconds", "other", "other"): 2,
            ("registry_http_response_size_bytes", "other"): 10,
            ("asupplemented_first_byte_seconds", "other"): 1,
            ("asupplemented_responses_cut_total", "other"): 1,
        },
    ),
    (
        HUB,
        {
            ("asupplemented_upstream_requests_total", "docker.io", "get", "200"): 1,
            ("asupplemented_upstream_first_byte_seconds", "docker.io"): 0.5,
        },
    ),
    (
        HUB._replace(status=None, error="NetworkError"),
        {("asupplemented_upstream_requests_total", "docker.io", "get", "NetworkError"): 1},
    ),
    (
        HUB._replace(status=None, error=None),
        {("asupplemented_upstream_requests_total", "docker.io", "get", "cancelled"): 1},
    ),
    (
        HUB._replace(registry="other.test", method="POST", status=799, seconds=0.0),
        {
            ("asupplemented_upstream_requests_total", "other.test", "post", "other"): 1,
            ("asupplemented_upstream_first_byte_seconds", "other.test"): 0,
        },
    ),
    (
        events.ManifestFetched(IMAGE, "sha256:1", 7, 0.1),
        {
            ("asupplemented_source_bytes_total", "docker.io", "manifest"): 7,
            ("registry_proxy_pulled_bytes_total", "manifest"): 7,
        },
    ),
    (
        events.ManifestFetched(IMAGE, "sha256:1", 7, 0.1, cached=True),
        {("asupplemented_source_bytes_total", "cache", "manifest"): 7},
    ),
    (
        events.BlobServed(IMAGE, "sha256:1", 5, 12, None),
        {
            ("asupplemented_source_bytes_total", "docker.io", "blob"): 7,
            ("registry_proxy_pulled_bytes_total", "blob"): 7,
        },
    ),
    (
        events.BlobServed("oci:/srv/layout:1", "sha256:1", 0, 7, 1),
        {("asupplemented_source_bytes_total", "oci", "blob"): 7},
    ),
    (
        events.BlobServed("oci:/cache", "sha256:1", 0, 7, None, cached=True),
        {("asupplemented_source_bytes_total", "cache", "blob"): 7},
    ),
    (
        events.AttemptFailed("docker://unknown.test/a:1", "sha256:1", 1, "NetworkError", "no"),
        {("asupplemented_attempts_failed_total", "other", "NetworkError"): 1},
    ),
    (
        events.RequestRetried(IMAGE, "429", 1, 2.0),
        {("asupplemented_upstream_retries_total", "429"): 1},
    ),
    (
        events.RequestRetried(IMAGE, "TeapotError", 1, 2.0),
        {("asupplemented_upstream_retries_total", "other"): 1},
    ),
    (
        events.RateLimitTold(IMAGE, "docker.io", 100, 76, 21600),
        {
            ("asupplemented_budget_limit", "docker.io"): 100,
            ("asupplemented_budget_remaining", "docker.io"): 76,
            ("asupplemented_budget_window_seconds", "docker.io"): 21600,
        },
    ),
    (
        events.RateLimitTold(IMAGE, "docker.io", None, 0, None),
        {("asupplemented_budget_remaining", "docker.io"): 0},
    ),
    (
        events.BlobEvicted("sha256:1", 9, 100.0),
        {
            ("asupplemented_cache_evictions_total",): 1,
            ("asupplemented_cache_evicted_bytes_total",): 9,
            ("asupplemented_cache_eviction_age_seconds",): 100,
        },
    ),
    (
        events.ResolutionFinished(IMAGE, 3, 4, 0.25, "NetworkError"),
        {("asupplemented_resolution_duration_seconds", "error"): 0.25},
    ),
    (events.Warned(IMAGE, "beware"), {("asupplemented_warnings_total",): 1}),
    (events.BlobStarted(IMAGE, "sha256:1", 0, None), {}),
]


@pytest.mark.parametrize(("event", "expected"), ROWS)
def test_SRV48_SRV49_events_and_their_measurements(
    event: Event, expected: dict[tuple[str, ...], float]
) -> None:
    measurer = Measurer()
    list(measurer.measure(HUB))
    found = {
        (metric.prometheus_name, *labels): value
        for metric, value, labels in measurer.measure(event)
    }
    assert found == expected


def count_series(registry: CollectorRegistry) -> int:
    return sum(len(metric.samples) for metric in registry.collect())


def test_SRV49_10000_names_add_no_series() -> None:
    registry = CollectorRegistry()
    hook = PrometheusMetrics(registry)

    def pull(name: str, host: str, status: int, method: str, error: str) -> None:
        reference = f"docker://{host}/{name}:{name}"
        hook(served(name=name, reference=name, registry=host, client=name, principal=name))
        hook(served(method=method, status=404, cache="", error=error, complete=False))
        hook(HUB._replace(registry=host, status=status, method=method, origin=f"https://{host}"))
        hook(HUB._replace(registry=f"no-{host}", status=None, error=error))
        hook(events.ManifestFetched(reference, name, 7, 0.1))
        hook(events.BlobServed(reference, name, 0, 7, None))
        hook(events.AttemptFailed(reference, name, None, error, name))
        hook(events.RequestRetried(reference, error, 1, 0.0))
        hook(events.RateLimitTold(reference, host, 1, 1, 1))
        hook(events.Warned(reference, name))

    for number in range(40):
        pull("warm", f"host-{number}.test", 200, "GET", "NetworkError")
    pull("warm", "host.test", 799, "BREW", "OddError")
    before = count_series(registry)
    for number in range(10_000):
        status = 600 + number % 400
        pull(f"name-{number}", f"h{number}.test", status, f"M{number}", f"E{number}Error")
    assert count_series(registry) == before
    assert before < 2000


def test_registries_that_are_given_are_the_only_ones() -> None:
    measurer = Measurer(["docker.io"])
    labels = {
        measurement.labels[0]
        for host in ("docker.io", "other.test")
        for measurement in measurer.measure(HUB._replace(registry=host))
    }
    assert labels == {"docker.io", "other"}


def test_every_error_of_the_package_is_a_label() -> None:
    (measurement,) = Measurer().measure(
        events.AttemptFailed(IMAGE, "sha256:1", None, errors.TruncatedError.__name__, "")
    )
    assert measurement.labels == ("other", "TruncatedError")


def test_the_table_in_the_guide_is_that_of_the_code() -> None:
    text = read_page("reference/events.md")
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \| (.*?) \| (.+?) \|$", text, re.MULTILINE)
    assert rows == [
        (
            metric.prometheus_name,
            metric.kind,
            ", ".join(f"`{label}`" for label in metric.labels) or "none",
            metric.help,
        )
        for metric in METRICS
    ]
