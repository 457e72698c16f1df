"""Trying again: the loop that sleeps as `asupplemented.aio.backoff` says.

Clock, sleep and randomness come from outside, so that tests need not wait.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from asupplemented.abc import ResourceKey
from asupplemented.aio.backoff import Backoff
from asupplemented.errors import SupplementedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asupplemented.aio.backoff import BackoffPolicy

__all__ = ("CLOCK", "Clock", "FirstFailure", "Retry", "retry")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance."""

    now: Callable[[], float] = time.monotonic
    """Seconds on a clock that never jumps."""
    wall: Callable[[], float] = time.time
    """Seconds since the epoch."""
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    """Waits for so many seconds; it can be cancelled."""
    random: Callable[[], float] = random.random
    """A number in ``[0, 1)``."""

    @property
    def key(self) -> ResourceKey[Clock]:
        """A clock can be given to a session among its settings."""
        return CLOCK


CLOCK: Final = ResourceKey["Clock"]("clock")
"""The clock of a session. Tests give it theirs: ``Session(settings=[clock])``."""


class Retry(NamedTuple):
    """A failure that may pass if the operation is tried again."""

    after: float | None = None
    """Seconds that the other side asked to wait, None if it did not say."""
    attempts: int | None = None
    """Attempts that this kind of failure is worth, None for as many as the policy allows."""


class FirstFailure(NamedTuple):
    """An attempt that was made, and failed, before there was any talk of another one."""

    error: SupplementedError
    start: float
    """When it began, by the clock."""


async def retry(
    operation: Callable[[], Awaitable[T]],
    *,
    judge: Callable[[SupplementedError], Retry | None],
    policy: BackoffPolicy,
    clock: Clock,
    notify: Callable[[SupplementedError, int, float], None],
    first: FirstFailure | None = None,
) -> T:
    """Run an operation until it succeeds, fails for good, or patience ends.

    Cancellation ends it at once, asleep or not.

    Args:
        operation: One attempt.
        judge: Decides whether a failure is worth another attempt; None for no.
        policy: How patient to be.
        clock: Where time comes from.
        notify: Told of the error, of the number of the attempt that failed (from 1), and of
            the seconds until the next one, before each pause.
        first: The first attempt, if it was made already; None to make it here.

    Returns:
        What the first successful attempt returned.

    Raises:
        SupplementedError: What the last attempt raised, with a note if there were several.
    """
    start = clock.now() if first is None else first.start
    backoff: Backoff | None = None
    for attempt in count(1):
        try:
            if first is not None and attempt == 1:
                raise first.error
            return await operation()
        except SupplementedError as error:
            verdict = judge(error)
            backoff = backoff or Backoff(policy, start=start, random=clock.random)
            delay = None if verdict is None else _next_delay(backoff, verdict, clock)
            if delay is None:
                if attempt > 1:
                    error.add_note(_tally(attempt, clock.now() - start))
                raise
            notify(error, attempt, delay)
        await clock.sleep(delay)
    raise AssertionError  # count() does not end


def _next_delay(backoff: Backoff, verdict: Retry, clock: Clock) -> float | None:
    return backoff.next_delay(clock.now(), advice=verdict.after, attempts=verdict.attempts)


def _tally(attempts: int, seconds: float) -> str:
    return f"this was attempt {attempts}, {seconds:.1f} s after the first one began"
