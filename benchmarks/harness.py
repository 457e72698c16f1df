"""Rounds and reports: how every benchmark is run and what it prints."""

from __future__ import annotations

import gc
import json
import sys
import time
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ("cpu_seconds", "interleave", "report", "wall_seconds")


def wall_seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of one call, all threads of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def interleave(
    cases: Mapping[str, Callable[[], float]], rounds: int, *, warmup: int = 1
) -> dict[str, list[float]]:
    """Run every case once a round, so that a drifting machine hits all of them alike.

    Args:
        cases: Name to a call that returns its own figure.
        rounds: Figures wanted of each.
        warmup: Rounds that are not counted, first.
    """
    figures: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(-warmup, rounds):
        for name, run in cases.items():
            gc.collect()
            value = run()
            if number >= 0:
                figures[name].append(value)
    return figures


def report(
    name: str,
    unit: str,
    figures: Sequence[float],
    *,
    comparator: str | None = None,
    baseline: Sequence[float] | None = None,
    goal: str | None = None,
) -> None:
    """Print one case as a line of JSON.

    Args:
        name: What was measured.
        unit: Of the figures, "ms" or "us/manifest" or "MB/s".
        figures: One a round.
        comparator: What `baseline` measured.
        baseline: The comparator's figures of the same rounds; the ratio is taken round by round.
        goal: What the project promises, in words.
    """
    line: dict[str, object] = {
        "name": name,
        "unit": unit,
        "n": len(figures),
        "min": round(min(figures), 3),
        "median": round(median(figures), 3),
        "max": round(max(figures), 3),
    }
    if baseline is not None:
        line["comparator"] = comparator
        line["comparator_median"] = round(median(baseline), 3)
        line["ratio"] = round(
            median(ours / theirs for ours, theirs in zip(figures, baseline, strict=True)), 3
        )
    if goal is not None:
        line["goal"] = goal
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
