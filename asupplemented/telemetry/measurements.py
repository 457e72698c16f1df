"""What is measured: a table of metrics, and the measurements that an event amounts to.

Theory of operation. Labels have values from closed sets only: names, tags, digests and addresses
of clients never are labels, so no client can make series (rule SRV-49). Registries are a set that
closes itself. One gets a label when it has answered a request, and only `MAX_REGISTRIES` do; all
others are "other". Statuses and errors are those that HTTP and this package define.

Each byte counts where it comes from. `BlobServed` and `ManifestFetched` tell of bytes that were
read once, however many readers follow; `RequestServed` tells of bytes that a client was sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from asupplemented import errors
from asupplemented.events import (
    AttemptFailed,
    BlobEvicted,
    BlobServed,
    ManifestFetched,
    RateLimitTold,
    RequestRetried,
    RequestServed,
    ResolutionFinished,
    UpstreamResponded,
    Warned,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asupplemented.cache.layout.layout_cache import CacheStats
    from asupplemented.events import Event

__all__ = (
    "DURATIONS",
    "METRICS",
    "OTHER",
    "ClosedSet",
    "Measurement",
    "Measurer",
    "Metric",
    "known_error",
    "measure_cache",
)

DURATIONS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Buckets of durations, in seconds, as OpenTelemetry has them (rule SRV-51)."""

SIZES: Final = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)
AGES: Final = (60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0)

OTHER: Final = "other"
"""The label of what is in no closed set."""

MAX_REGISTRIES: Final = 32
"""Registries with a label of their own, unless they are given."""

_UNITS: Final = {"": "", "s": "_seconds", "By": "_bytes"}
_STATUSES: Final = frozenset(str(status.value) for status in HTTPStatus) | {"499"}
_ERRORS: Final = frozenset(errors.__all__)
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_TRANSPORTS: Final = frozenset(("dir", "docker-archive", "memory", "oci", "oci-archive", "s3"))
_CONTENT: Final = ("manifest", "blob")
_OK: Final = 300
"""Statuses below have the content that was asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric.

    Attributes:
        name: With dots, as in OpenTelemetry.
        kind: What its values mean.
        help: What it measures.
        labels: The names of its labels.
        unit: "s", "By" (bytes) or "" for a number.
        buckets: Upper bounds, for a histogram.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = DURATIONS

    @property
    def starts(self) -> tuple[str, ...]:
        """Values of its label that have series from the beginning."""
        return _CONTENT if self.labels == ("type",) else ()

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus, by the rules that OpenTelemetry has for it."""
        total = "_total" if self.kind == "counter" else ""
        return f"{self.name.replace('.', '_')}{_UNITS[self.unit]}{total}"


class Measurement(NamedTuple):
    """One value of a metric: an increment, or what a gauge shows, or what a histogram counts."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


def _counter(name: str, text: str, *labels: str, unit: str = "") -> Metric:
    return Metric(name, "counter", text, labels, unit)


def _gauge(name: str, text: str, *labels: str, unit: str = "") -> Metric:
    return Metric(name, "gauge", text, labels, unit)


def _histogram(
    name: str, text: str, *labels: str, unit: str = "s", buckets: tuple[float, ...] = DURATIONS
) -> Metric:
    return Metric(name, "histogram", text, labels, unit, buckets)


# As the distribution registry names them (rule SRV-48).
PROXY_REQUESTS: Final = _counter(
    "registry.proxy.requests", "Manifests and blobs that were found", "type"
)
PROXY_HITS: Final = _counter(
    "registry.proxy.hits", "Those that needed no fetch of their own", "type"
)
PROXY_MISSES: Final = _counter(
    "registry.proxy.misses", "Those that were fetched for the request", "type"
)
PULLED: Final = _counter(
    "registry.proxy.pulled", "Read from registries, each byte once", "type", unit="By"
)
PUSHED: Final = _counter(
    "registry.proxy.pushed", "Manifests and blobs that clients were sent", "type", unit="By"
)
HTTP_REQUESTS: Final = _counter(
    "registry.http.requests", "Requests of clients", "code", "handler", "method"
)
HTTP_DURATION: Final = _histogram(
    "registry.http.request.duration", "From a request to the end of its answer", "handler", "method"
)
HTTP_SIZE: Final = _histogram(
    "registry.http.response.size", "Bodies that were sent", "handler", unit="By", buckets=SIZES
)

# Our own (rule SRV-49).
REQUESTS: Final = _counter(
    "asupplemented.requests", "Manifests and blobs, by use of the cache", "type", "cache"
)
FIRST_BYTE: Final = _histogram(
    "asupplemented.first_byte", "From a request to the first byte of its body", "handler"
)
CUT: Final = _counter(
    "asupplemented.responses.cut", "Answers that were cut, or whose client left", "handler"
)
SOURCE: Final = _counter(
    "asupplemented.source", "Read, by registry, transport or cache", "source", "type", unit="By"
)
FAILED: Final = _counter(
    "asupplemented.attempts.failed", "Sources that did not serve a blob", "source", "error"
)
UPSTREAM_REQUESTS: Final = _counter(
    "asupplemented.upstream.requests", "Requests to registries", "registry", "method", "status"
)
UPSTREAM_TIME: Final = _histogram(
    "asupplemented.upstream.first_byte", "From such a request to its response", "registry"
)
RETRIES: Final = _counter(
    "asupplemented.upstream.retries", "Requests to registries that were sent again", "reason"
)
BUDGET_LEFT: Final = _gauge(
    "asupplemented.budget.remaining", "Requests that are left, as a registry said last", "registry"
)
BUDGET_LIMIT: Final = _gauge("asupplemented.budget.limit", "Of so many in a window", "registry")
BUDGET_WINDOW: Final = _gauge(
    "asupplemented.budget.window", "How long the window is", "registry", unit="s"
)
CACHE_BYTES: Final = _gauge("asupplemented.cache", "What the cache holds", unit="By")
CACHE_LIMIT: Final = _gauge("asupplemented.cache.limit", "What it may hold", unit="By")
CACHE_ENTRIES: Final = _gauge("asupplemented.cache.entries", "Blobs and manifests in it")
CACHE_PINS: Final = _gauge("asupplemented.cache.pins", "Digests that are pinned in it")
EVICTIONS: Final = _counter("asupplemented.cache.evictions", "What was evicted to make room")
EVICTED: Final = _counter("asupplemented.cache.evicted", "Bytes that were evicted", unit="By")
EVICTED_AGE: Final = _histogram(
    "asupplemented.cache.eviction.age", "From the last use to the eviction", buckets=AGES
)
RESOLUTIONS: Final = _histogram("asupplemented.resolution.duration", "Resolving a group", "outcome")
WARNINGS: Final = _counter("asupplemented.warnings", "Warnings for the operator")

METRICS: Final = (
    *(PROXY_REQUESTS, PROXY_HITS, PROXY_MISSES, PULLED, PUSHED),
    *(HTTP_REQUESTS, HTTP_DURATION, HTTP_SIZE),
    *(REQUESTS, FIRST_BYTE, CUT, SOURCE, FAILED),
    *(UPSTREAM_REQUESTS, UPSTREAM_TIME, RETRIES),
    *(BUDGET_LEFT, BUDGET_LIMIT, BUDGET_WINDOW),
    *(CACHE_BYTES, CACHE_LIMIT, CACHE_ENTRIES, CACHE_PINS, EVICTIONS, EVICTED, EVICTED_AGE),
    *(RESOLUTIONS, WARNINGS),
)
"""All metrics."""


class ClosedSet:
    """Values that may be labels.

    Args:
        given: All of them; None admits the first ones that are known to exist.
        limit: The most values that are admitted.
    """

    __slots__ = ("_limit", "_values")

    def __init__(self, given: Iterable[str] | None = None, limit: int = MAX_REGISTRIES) -> None:
        self._values = set(given or ())
        self._limit = limit if given is None else 0

    def admit(self, value: str) -> None:
        """A value is known to exist."""
        if len(self._values) < self._limit:
            self._values.add(value)

    def label(self, value: str) -> str:
        """The value, or `OTHER`."""
        return value if value in self._values else OTHER


class Measurer:
    """Turns events into measurements.

    Args:
        registries: The registries with labels of their own; None for the first ones that answer.
    """

    __slots__ = ("_registries",)

    def __init__(self, registries: Iterable[str] | None = None) -> None:
        self._registries = ClosedSet(registries)

    def measure(self, event: Event) -> Iterator[Measurement]:
        """The measurements of an event."""
        match event:
            case RequestServed():
                return _measure_request(event)
            case UpstreamResponded():
                return self._measure_upstream(event)
            case ManifestFetched(reference, _, size, _, cached):
                return self._measure_read(reference, "manifest", size, cached=cached)
            case BlobServed(reference, _, start, end, _, cached):
                return self._measure_read(reference, "blob", end - start, cached=cached)
            case RateLimitTold():
                return self._measure_budget(event)
            case _:
                return self._measure_rest(event)

    def _measure_rest(self, event: Event) -> Iterator[Measurement]:
        match event:
            case BlobEvicted():
                yield from _measure_eviction(event)
            case AttemptFailed(reference=reference, error=error):
                yield Measurement(FAILED, 1, (self._source(reference), known_error(error)))
            case RequestRetried(reason=reason):
                known = _known_status(reason) if reason.isdigit() else known_error(reason)
                yield Measurement(RETRIES, 1, (known,))
            case ResolutionFinished(seconds=seconds, error=error):
                yield Measurement(RESOLUTIONS, seconds, ("ok" if error is None else "error",))
            case Warned():
                yield Measurement(WARNINGS, 1)
            case _:
                pass  # What it tells of counts with another event.

    def _measure_upstream(self, event: UpstreamResponded) -> Iterator[Measurement]:
        status = event.status
        if status is not None:
            self._registries.admit(event.registry)
        registry = self._registries.label(event.registry)
        told = known_error(event.error) if status is None else _known_status(str(status))
        yield Measurement(UPSTREAM_REQUESTS, 1, (registry, _known_method(event.method), told))
        if status is not None:
            yield Measurement(UPSTREAM_TIME, event.seconds, (registry,))

    def _measure_budget(self, event: RateLimitTold) -> Iterator[Measurement]:
        labels = (self._registries.label(event.registry),)
        for metric, value in (
            (BUDGET_LIMIT, event.limit),
            (BUDGET_LEFT, event.remaining),
            (BUDGET_WINDOW, event.window),
        ):
            if value is not None:
                yield Measurement(metric, value, labels)

    def _measure_read(
        self, reference: str, kind: str, size: int, *, cached: bool
    ) -> Iterator[Measurement]:
        source = "cache" if cached else self._source(reference)
        yield Measurement(SOURCE, size, (source, kind))
        if not cached and reference.startswith("docker://"):
            yield Measurement(PULLED, size, (kind,))

    def _source(self, reference: str) -> str:
        """The registry of a reference, or its transport."""
        transport, _, rest = reference.partition(":")
        if transport == "docker":
            return self._registries.label(rest.removeprefix("//").partition("/")[0])
        return transport if transport in _TRANSPORTS else OTHER


def _measure_request(event: RequestServed) -> Iterator[Measurement]:
    route = event.route
    method = _known_method(event.method)
    yield Measurement(HTTP_REQUESTS, 1, (_known_status(str(event.status)), route, method))
    yield Measurement(HTTP_DURATION, event.seconds, (route, method))
    yield Measurement(HTTP_SIZE, event.sent, (route,))
    if event.first_byte is not None:
        yield Measurement(FIRST_BYTE, event.first_byte, (route,))
    if not event.complete:
        yield Measurement(CUT, 1, (route,))
    if route not in _CONTENT:
        return
    if event.cache:
        yield Measurement(PROXY_REQUESTS, 1, (route,))
        missed = event.cache == "miss"
        yield Measurement(PROXY_MISSES if missed else PROXY_HITS, 1, (route,))
        yield Measurement(REQUESTS, 1, (route, event.cache))
    if event.status < _OK:
        yield Measurement(PUSHED, event.sent, (route,))


def _measure_eviction(event: BlobEvicted) -> Iterator[Measurement]:
    yield Measurement(EVICTIONS, 1)
    yield Measurement(EVICTED, event.size)
    if event.seconds_unused is not None:
        yield Measurement(EVICTED_AGE, event.seconds_unused)


def measure_cache(stats: CacheStats) -> Iterator[Measurement]:
    """The measurements of what a cache holds."""
    yield Measurement(CACHE_BYTES, stats.bytes)
    yield Measurement(CACHE_LIMIT, stats.limit)
    yield Measurement(CACHE_ENTRIES, stats.entries)
    yield Measurement(CACHE_PINS, stats.pins)


def known_error(name: str | None) -> str:
    """The name of an error as a label; "cancelled" for none."""
    if name is None:
        return "cancelled"
    return name if name in _ERRORS else OTHER


def _known_status(status: str) -> str:
    return status if status in _STATUSES else OTHER


def _known_method(method: str) -> str:
    return method.lower() if method in _METHODS else OTHER
