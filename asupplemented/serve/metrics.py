"""Metrics of several processes as one (rule SRV-50).

prometheus_client keeps the numbers of each process in files of one directory, and sums them for a
scrape. It does so only if `PROMETHEUS_MULTIPROC_DIR` was set before it was first imported. Files
are named by the number of the worker rather than by its process: a replacement goes on counting
where its predecessor stopped, so no counter falls, and the number of files is bounded.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asupplemented.telemetry.prometheus import PrometheusMetrics

__all__ = ("count_alone", "count_as_worker", "exposition", "forget_worker", "shared_metrics")

DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"


def _has_prometheus() -> bool:
    """Whether the extra ``prometheus`` is installed."""
    return find_spec("prometheus_client") is not None


@contextmanager
def shared_metrics() -> Generator[None]:
    """Have all processes that are started meanwhile count in one directory, then remove it."""
    if not _has_prometheus():
        yield
        return
    before = os.environ.get(DIRECTORY)
    # Numbers that an earlier server left would be counted again, so the directory is always new.
    directory = tempfile.mkdtemp(prefix="asupplemented-metrics-")
    os.environ[DIRECTORY] = directory
    # systemd removes old files from /tmp, but not from a directory that is locked.
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(lock)
        if before is None:
            del os.environ[DIRECTORY]
        else:
            os.environ[DIRECTORY] = before
        shutil.rmtree(directory, ignore_errors=True)


def count_alone() -> PrometheusMetrics | None:
    """What counts in a process that serves alone; None without the extra ``prometheus``."""
    if not _has_prometheus():
        return None
    from asupplemented.telemetry.prometheus import PrometheusMetrics

    return PrometheusMetrics()


def count_as_worker(number: int) -> PrometheusMetrics | None:
    """What counts in a worker; None without the extra ``prometheus``.

    Args:
        number: Of the worker.
    """
    if not _has_prometheus() or DIRECTORY not in os.environ:
        return count_alone()
    values = cast("Any", import_module("prometheus_client.values"))
    values.ValueClass = values.MultiProcessValue(lambda: f"worker{number}")
    return count_alone()


def forget_worker(number: int) -> None:
    """A worker has ended: what it held at the moment counts no more, what it counted stays."""
    if DIRECTORY in os.environ:
        multiprocess = cast("Any", import_module("prometheus_client.multiprocess"))
        multiprocess.mark_process_dead(f"worker{number}")


def exposition() -> Callable[[], tuple[bytes, str]] | None:
    """What answers a scrape; None without the extra ``prometheus``."""
    if not _has_prometheus():
        return None
    from asupplemented.telemetry import prometheus

    return prometheus.exposition
