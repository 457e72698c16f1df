"""Metrics and traces of a session: hooks for Prometheus and OpenTelemetry.

::

    session = asup.Session(hooks=[asup.telemetry.PrometheusMetrics()])

Each needs its extra, ``asupplemented[prometheus]`` or ``asupplemented[otel]``. Nothing of these is
imported before a hook is made.

The events count, and nothing else does: `asupplemented.telemetry.measurements` turns each event
into measurements, and both hooks record the same ones.
"""

from __future__ import annotations

from asupplemented.telemetry.opentelemetry import OpenTelemetry
from asupplemented.telemetry.prometheus import PrometheusMetrics, exposition

__all__ = ("OpenTelemetry", "PrometheusMetrics", "exposition")
