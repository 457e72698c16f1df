"""Rounds within a limit of time.

Every case names how many seconds it may take. The first round of each contestant warms up and is
not counted. Then all contestants take turns, at least `LEAST` times, until the seconds of the case
are used up. On a slow machine the groups share the time as they would on a fast one: a group that
has used up its share runs each of its cases once, without warming up, and a case for which no time
at all is left is cut. What was cut is a note in the results.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, TypeVar

from benchmarks.results import OURS, Results, Row

if TYPE_CHECKING:
    import contextlib
    from collections.abc import (
        Awaitable,
        Callable,
        Collection,
        Mapping,
        Sequence,
    )

__all__ = ("SCRATCH", "Bench", "Sample", "enter", "timed", "timed_async")

T = TypeVar("T")

LEAST: Final = 3
"""Rounds of each case, if there is time."""
MOST: Final = 21
SCRATCH: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - memory is the point
"""Where files are made, so that no disk is measured."""


@dataclass(frozen=True)
class Sample:
    """One round of one contestant: seconds, and seconds of CPU, None if they are not known."""

    wall: float
    cpu: float | None = None


def cpu_seconds() -> float:
    """CPU time of this process up to now, and of all children that it has waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def timed(work: Callable[[], object]) -> Sample:
    """Measure one call."""
    cpu, started = cpu_seconds(), time.perf_counter()
    work()
    return Sample(time.perf_counter() - started, cpu_seconds() - cpu)


def timed_async(work: Callable[[], Awaitable[object]]) -> Sample:
    """Measure one call in an event loop of its own, whose start and end do not count."""

    async def run() -> Sample:
        cpu, started = cpu_seconds(), time.perf_counter()
        await work()
        return Sample(time.perf_counter() - started, cpu_seconds() - cpu)

    return asyncio.run(run())


@dataclass
class Bench:
    """A run of the benchmarks.

    Attributes:
        seconds: How long all groups together may take; None for no limit.
        scale: "tiny" for tests, "quick", or "full".
        results: What was measured up to now.
        failed: Whether the library itself failed in some case.
    """

    seconds: float | None = None
    scale: str = "quick"
    results: Results = field(default_factory=Results)
    failed: bool = False
    _share: float = 1.0
    _group: str = ""
    _group_ends: float = float("inf")
    _started: float = 0.0

    def pick(self, quick: T, *, full: T, tiny: T) -> T:
        """The size for the scale of this run."""
        return {"quick": quick, "full": full, "tiny": tiny}[self.scale]

    @property
    def full(self) -> bool:
        """Whether all cases are wanted; tests want all of them, too."""
        return self.scale != "quick"

    @property
    def left(self) -> float:
        """Seconds that are left."""
        spent = time.monotonic() - self._started
        return float("inf") if self.seconds is None else self.seconds - spent

    def begin_group(self, name: str, planned: float = 1.0, following: float = 0.0) -> None:
        """Begin with a group.

        Args:
            name: The group.
            planned: Seconds that it should take.
            following: Seconds that all groups after it should take.
        """
        self._started = self._started or time.monotonic()
        self._group = name
        if self.seconds is not None:
            factor = max(0.0, self.left / (planned + following))
            self._share = min(1.0, factor)
            self._group_ends = time.monotonic() + factor * planned
        sys.stderr.write(f"{time.monotonic() - self._started:4.0f} s: {name}\n")

    def note(self, text: str) -> None:
        """Remember what was skipped or cut, and say it."""
        if text not in self.results.notes:
            self.results.notes.append(text)
            sys.stderr.write(f"  {text}\n")

    def compare(
        self,
        case: str,
        contestants: Mapping[str, Callable[[], Sample]],
        *,
        size: float = 1,
        unit: str = "",
        seconds: float = 2.0,
        cold: Collection[str] = (),
    ) -> None:
        """Have contestants take turns.

        Args:
            case: What they do.
            contestants: Name to a call that does it once.
            size: How much work that is, in `unit`.
            unit: Of the work.
            seconds: How long all rounds may take in a quick run.
            cold: Contestants that need no round to warm up, since each of theirs is a new process.
        """
        if self.left <= 0:
            self.note(f"cut, no time was left: {case}")
            return
        budget = seconds * self._share * self.pick(1.0, full=4.0, tiny=0.0)
        ends = time.monotonic() + budget
        running = dict(contestants)
        if self.scale != "tiny" and time.monotonic() < self._group_ends:
            for name in [each for each in running if each not in cold]:
                self._run_once(case, name, running)
        samples: dict[str, list[Sample]] = {name: [] for name in running}
        least = self.pick(LEAST, full=LEAST + 2, tiny=1)
        for number in range(MOST):
            began = time.monotonic()
            for name in list(running):
                if (sample := self._run_once(case, name, running)) is not None:
                    samples[name].append(sample)
            now = time.monotonic()
            next_ends = 2 * now - began
            enough = number + 1 >= least or next_ends > self._group_ends
            if enough and next_ends > ends:
                break
        rounds = max(map(len, samples.values()), default=0)
        if rounds < least:
            self.note(f"cut to {rounds} instead of {least} rounds: {case}")
        for name in running:
            self.record(case, name, samples[name], size=size, unit=unit)
        self._show(case)

    def _run_once(
        self, case: str, name: str, running: dict[str, Callable[[], Sample]]
    ) -> Sample | None:
        """One round; a contestant that fails leaves the case."""
        gc.collect()
        try:
            return running[name]()
        except Exception as error:  # noqa: BLE001 - of a peer anything can come
            reason = " ".join(str(error).split())[:200]
            self.note(f"{name} left out of “{case}”: {type(error).__name__}: {reason}")
            self.failed |= name.startswith(OURS)
            del running[name]
            return None

    def record(
        self,
        case: str,
        name: str,
        samples: Sequence[Sample],
        *,
        size: float = 1,
        unit: str = "",
        memory: Sequence[float] = (),
    ) -> None:
        """Add what was measured elsewhere. Arguments as `Row` has them."""
        self.results.rows.append(
            Row(
                self._group,
                case,
                name,
                size,
                unit,
                tuple(sample.wall for sample in samples),
                tuple(sample.cpu for sample in samples if sample.cpu is not None),
                tuple(memory),
            )
        )

    def _show(self, case: str) -> None:
        """Print a line of JSON for each contestant of a case."""
        rows = self.results.cases().get(case, [])
        ours = self.results.find_ours(case)
        for row in rows:
            line: dict[str, object] = {"group": row.group, "case": case, "name": row.name}
            line["n"] = len(row.wall)
            line["seconds"] = [round(pick(row.wall), 6) for pick in (min, median, max)]
            if row.cpu:
                line["cpu"] = round(median(row.cpu), 6)
            if ours is not None and row is not ours:
                line["times_as_long_as_ours"] = round(row.time_of(ours), 3)
            print(json.dumps(line, ensure_ascii=False), flush=True)


def enter(
    runner: asyncio.Runner,
    scope: contextlib.ExitStack,
    manager: contextlib.AbstractAsyncContextManager[T],
) -> T:
    """Enter something on the loop of a runner, to be left with the scope."""

    async def come_in() -> T:
        return await manager.__aenter__()

    async def leave() -> None:
        await manager.__aexit__(None, None, None)

    entered = runner.run(come_in())
    scope.callback(lambda: runner.run(leave()))
    return entered
