"""Spans and metrics for OpenTelemetry: the extra ``otel``.

An event tells of what has ended, so a span is made when it is over, with its beginning and its end
(rule SRV-51). Its parent is the span that is current where the event is emitted: that of the
application's own instrumentation, if there is one. Spans of requests to registries are no children
of the span of the client's request, which does not exist yet.

Names, attributes and units of HTTP are those of the semantic conventions. Attributes of metrics
have values from closed sets only; those of spans also name repository, reference and source.
"""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from asupplemented.errors import ConfigurationError
from asupplemented.events import RequestServed, UpstreamResponded
from asupplemented.telemetry.measurements import (
    DURATIONS,
    METRICS,
    OTHER,
    ClosedSet,
    Measurer,
    known_error,
    measure_cache,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import SpanKind, Tracer, TracerProvider

    from asupplemented.cache.layout.layout_cache import CacheStats
    from asupplemented.events import Event, Route
    from asupplemented.telemetry.measurements import Measurement, Metric

    Attributes: TypeAlias = dict[str, str | int]
    _Record: TypeAlias = Callable[[float, Mapping[str, str]], None]

__all__ = ("OpenTelemetry",)

_SCOPE: Final = "asupplemented"
"""The instrumentation scope."""

_METHODS: Final = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
)
_ROUTES: Final[dict[Route, str]] = {
    "base": "/v2/",
    "manifest": "/v2/{name}/manifests/{reference}",
    "blob": "/v2/{name}/blobs/{digest}",
    "tags": "/v2/{name}/tags/list",
    "referrers": "/v2/{name}/referrers/{digest}",
}
_PORTS: Final = {"http": 80, "https": 443}
_NO_ANSWER: Final = 499
_SERVER_ERROR: Final = 500
_CLIENT_ERROR: Final = 400


class OpenTelemetry:
    """A hook that makes spans and metrics for OpenTelemetry.

    Requests of clients are server spans and `http.server.request.duration`, requests to registries
    are client spans and `http.client.request.duration`. The other metrics are those of
    `PrometheusMetrics` whose names begin with ``asupplemented``.

    Args:
        tracer_provider: Makes the tracer; None is the global one.
        meter_provider: Makes the meter; None is the global one.
        registries: The registries with attributes of their own in metrics; None for the first 32
            that answer. All others are "other".

    Raises:
        ConfigurationError: The extra is not installed.
    """

    __slots__ = (
        "_client_seconds",
        "_measurer",
        "_origins",
        "_recorders",
        "_server_seconds",
        "_spans",
    )

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        registries: Iterable[str] | None = None,
    ) -> None:
        try:
            from opentelemetry import metrics, trace  # noqa: PLC0415 - an extra
        except ImportError as error:
            message = "OpenTelemetry needs its API: pip install 'asupplemented[otel]'"
            raise ConfigurationError(message) from error
        self._spans = _Spans(trace.get_tracer(_SCOPE, tracer_provider=tracer_provider))
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._measurer = Measurer(registries)
        self._origins = ClosedSet()
        self._recorders = {
            metric: _instrument(meter, metric)
            for metric in METRICS
            if metric.name.startswith("asupplemented.")
        }
        self._server_seconds, self._client_seconds = (
            meter.create_histogram(
                f"http.{side}.request.duration",
                unit="s",
                description=f"Duration of HTTP {side} requests.",
                explicit_bucket_boundaries_advisory=DURATIONS,
            )
            for side in ("server", "client")
        )

    def __call__(self, event: Event, /) -> None:
        """Record an event."""
        if isinstance(event, RequestServed):
            attributes = _describe_served(event)
            self._server_seconds.record(event.seconds, attributes)
            self._spans.add_server(event, attributes)
        elif isinstance(event, UpstreamResponded):
            if event.status is not None:
                self._origins.admit(event.origin)
            known = self._origins.label(event.origin) != OTHER
            self._client_seconds.record(event.seconds, _describe_upstream(event, known=known))
            self._spans.add_client(event, _describe_upstream(event, known=True))
        self._record(self._measurer.measure(event))

    def set_cache(self, stats: CacheStats) -> None:
        """Show what a cache holds; see `LayoutCache.stats`."""
        self._record(measure_cache(stats))

    def _record(self, measurements: Iterator[Measurement]) -> None:
        for metric, value, labels in measurements:
            record = self._recorders.get(metric)
            if record is not None:
                record(value, dict(zip(metric.labels, labels, strict=True)))


class _Spans:
    """Makes spans of what has ended.

    Args:
        tracer: Starts them.
    """

    __slots__ = ("_error", "_kinds", "_tracer")

    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415 - an extra

        self._tracer = tracer
        self._kinds = SpanKind
        self._error = StatusCode.ERROR

    def add_server(self, event: RequestServed, attributes: Attributes) -> None:
        """The span of a request of a client."""
        details = {
            "client.address": event.client,
            "http.response.body.size": event.sent,
            "asupplemented.registry": event.registry,
            "asupplemented.repository": event.name,
            "asupplemented.reference": event.reference,
            "asupplemented.source": event.source,
            "asupplemented.cache": event.cache or None,
        }
        known = {key: value for key, value in details.items() if value is not None}
        self._add(self._kinds.SERVER, event.seconds, {**attributes, **known})

    def add_client(self, event: UpstreamResponded, attributes: Attributes) -> None:
        """The span of a request to a registry."""
        attributes["asupplemented.registry"] = event.registry
        self._add(self._kinds.CLIENT, event.seconds, attributes)

    def _add(self, kind: SpanKind, seconds: float, attributes: Attributes) -> None:
        end = time_ns()
        method = attributes["http.request.method"]
        parts = ("HTTP" if method == "_OTHER" else method, attributes.get("http.route"))
        span = self._tracer.start_span(
            " ".join(str(part) for part in parts if part is not None),
            kind=kind,
            attributes=attributes,
            start_time=end - round(seconds * 1e9),
        )
        if "error.type" in attributes:
            span.set_status(self._error)
        span.end(end)


def _describe_served(event: RequestServed) -> Attributes:
    """The attributes of a request of a client; a 4xx is no error of the server."""
    attributes: Attributes = {
        "http.request.method": _known_method(event.method),
        "url.scheme": event.scheme,
    }
    if event.status != _NO_ANSWER:
        attributes["http.response.status_code"] = event.status
    route = _ROUTES.get(event.route)
    if route is not None:
        attributes["http.route"] = route
    if event.error is not None and (not event.complete or event.status >= _SERVER_ERROR):
        attributes["error.type"] = known_error(event.error)
    elif event.status >= _SERVER_ERROR:
        attributes["error.type"] = str(event.status)
    return attributes


def _describe_upstream(event: UpstreamResponded, *, known: bool) -> Attributes:
    """The attributes of a request to a registry; one that was given up is no error.

    Args:
        event: The request.
        known: Whether to name the server.
    """
    server = urlsplit(event.origin or f"//{event.registry}")
    attributes: Attributes = {
        "http.request.method": _known_method(event.method),
        "server.address": (server.hostname or OTHER) if known else OTHER,
    }
    if server.scheme:
        attributes["url.scheme"] = server.scheme
    port = server.port or _PORTS.get(server.scheme)
    if known and port is not None:
        attributes["server.port"] = port
    if event.status is not None:
        attributes["http.response.status_code"] = event.status
        if event.status >= _CLIENT_ERROR:
            attributes["error.type"] = str(event.status)
    elif event.error is not None:
        attributes["error.type"] = known_error(event.error)
    return attributes


def _instrument(meter: Meter, metric: Metric) -> _Record:
    """Make the instrument of a metric; gives what records a value of it."""
    unit, text = metric.unit or "1", metric.help
    if metric.kind == "gauge":
        return meter.create_gauge(metric.name, unit, text).set
    if metric.kind == "histogram":
        return meter.create_histogram(
            metric.name, unit, text, explicit_bucket_boundaries_advisory=metric.buckets
        ).record
    return meter.create_counter(metric.name, unit, text).add


def _known_method(method: str) -> str:
    return method if method in _METHODS else "_OTHER"
