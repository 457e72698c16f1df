"""Metrics for Prometheus: the extra ``prometheus``.

With ``PROMETHEUS_MULTIPROC_DIR`` set before `prometheus_client` is first imported, the workers of
a server write into that directory, and `exposition` sums what all of them have counted, also those
that have ended (rule SRV-50).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

from asupplemented.errors import ConfigurationError
from asupplemented.telemetry.measurements import METRICS, Measurer, measure_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry

    from asupplemented.cache.layout.layout_cache import CacheStats
    from asupplemented.events import Event
    from asupplemented.telemetry.measurements import Measurement, Metric

    _Record: TypeAlias = Callable[[float, tuple[str, ...]], None]

__all__ = ("PrometheusMetrics", "exposition")

_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
_MISSING = "metrics for Prometheus need its client: pip install 'asupplemented[prometheus]'"


class PrometheusMetrics:
    """A hook that counts events for Prometheus.

    Args:
        registry: Where the metrics are registered; None is the registry that the client exposes
            by default.
        registries: The registries with labels of their own; None for the first 32 that answer.
            All others are labelled "other".

    Raises:
        ConfigurationError: The extra is not installed, or the registry has these metrics already.
    """

    __slots__ = ("_measurer", "_recorders")

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        registries: Iterable[str] | None = None,
    ) -> None:
        self._measurer = Measurer(registries)
        try:
            self._recorders = {metric: _register(metric, registry) for metric in METRICS}
        except ImportError as error:
            raise ConfigurationError(_MISSING) from error
        except ValueError as error:
            message = (
                "these metrics are registered already; share one PrometheusMetrics, or give each "
                "a registry"
            )
            raise ConfigurationError(message) from error

    def __call__(self, event: Event, /) -> None:
        """Count an event."""
        for measurement in self._measurer.measure(event):
            self._record(measurement)

    def set_cache(self, stats: CacheStats) -> None:
        """Show what a cache holds; see `LayoutCache.stats`."""
        for measurement in measure_cache(stats):
            self._record(measurement)

    def _record(self, measurement: Measurement) -> None:
        metric, value, labels = measurement
        self._recorders[metric](value, labels)


def _register(metric: Metric, registry: CollectorRegistry | None) -> _Record:
    """Register a metric; gives what records a value of it."""
    from prometheus_client import REGISTRY, Counter, Gauge, Histogram  # noqa: PLC0415 - an extra

    registry = registry or REGISTRY
    name, text, labels = metric.prometheus_name, metric.help, metric.labels
    if metric.kind == "gauge":
        # It tells of the world rather than of a process, so the newest value counts.
        gauge = Gauge(name, text, labels, registry=registry, multiprocess_mode="mostrecent")
        return lambda value, of: (gauge.labels(*of) if of else gauge).set(value)
    if metric.kind == "histogram":
        histogram = Histogram(name, text, labels, registry=registry, buckets=metric.buckets)
        return lambda value, of: (histogram.labels(*of) if of else histogram).observe(value)
    counter = Counter(name, text, labels, registry=registry)
    for value in metric.starts:
        counter.labels(value)
    return lambda value, of: (counter.labels(*of) if of else counter).inc(value)


def exposition(registry: CollectorRegistry | None = None) -> tuple[bytes, str]:
    """What a scrape is answered with.

    Args:
        registry: What to expose. None is what all processes that share a directory have counted;
            without such a directory it is the default registry of the client.

    Returns:
        The body, and its media type.

    Raises:
        ConfigurationError: The extra is not installed.
    """
    try:
        from prometheus_client import (  # noqa: PLC0415 - an extra
            CONTENT_TYPE_LATEST,
            REGISTRY,
            CollectorRegistry,
            generate_latest,
        )
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(_MISSING) from error
    if registry is None and _MULTIPROCESS in os.environ:
        registry = CollectorRegistry()
        collect: Callable[[CollectorRegistry], object] = MultiProcessCollector
        collect(registry)
    return generate_latest(registry or REGISTRY), CONTENT_TYPE_LATEST
