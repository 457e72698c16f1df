"""Retrying: when to try again, and the loop that does (rules RET-06, RET-08).

`Backoff` is a schedule without clock, sleep or randomness of its own: it counts failures and gives
the pause before the next attempt, or None if there is none. `retry` is the loop that pauses and
tries again. Its `Clock` is an argument, so that tests need not wait.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from dataclasses import dataclass
from datetime import UTC
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from asupplemented.abc import ResourceKey
from asupplemented.errors import SupplementedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

__all__ = (
    "CLOCK",
    "Backoff",
    "Clock",
    "FirstFailure",
    "Retry",
    "RetryPolicy",
    "parse_retry_after",
    "retry",
)

_SECONDS: Final = re.compile(r"([+-]?)([0-9]{1,15}(?:\.[0-9]{1,9})?)", re.ASCII)
_LONGEST_DATE: Final = 64


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and for how long to retry.

    Without ``Retry-After`` the pause after failure n is random between 0 and
    ``base * 2 ** n`` seconds ("full jitter"), so that clients that failed together do not
    come back together.
    """

    attempts: int = 5
    """Attempts in all, the first one included."""
    base: float = 1.0
    """Seconds; half of the longest possible first pause."""
    longest: float = 60.0
    """Seconds that one pause may last. A longer ``Retry-After`` ends the attempts at once."""
    budget: float = 120.0
    """Seconds from the start of the first attempt to the start of the last one."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.base, self.longest, self.budget) < 0:
            message = f"a policy needs one attempt or more and no negative times, not {self}"
            raise ValueError(message)


class Backoff:
    """The schedule of one operation.

    Args:
        policy: How often and for how long to retry.
        start: When the first attempt began, in seconds.
        random: Gives numbers in ``[0, 1)``.
    """

    __slots__ = ("_failures", "_policy", "_random", "_start")

    def __init__(self, policy: RetryPolicy, *, start: float, random: Callable[[], float]) -> None:
        self._policy = policy
        self._start = start
        self._random = random
        self._failures = 0

    @property
    def failures(self) -> int:
        """Failed attempts so far."""
        return self._failures

    def next_delay(
        self, now: float, *, advice: float | None = None, attempts: int | None = None
    ) -> float | None:
        """Count a failed attempt; gives the pause before the next one.

        Args:
            now: The time, in seconds.
            advice: Seconds that the server asked to wait, None if it did not.
            attempts: A limit for this kind of failure, where it is lower than the policy's.

        Returns:
            Seconds, 0 or more; None if there should be no further attempt.
        """
        self._failures += 1
        if self._failures >= min(self._policy.attempts, attempts or self._policy.attempts):
            return None
        delay = self._pause() if advice is None else max(advice, 0.0)
        if delay > self._policy.longest or now + delay - self._start > self._policy.budget:
            return None
        return delay

    def _pause(self) -> float:
        # The exponent is bounded because a policy may allow thousands of attempts.
        ceiling = self._policy.base * 2.0 ** min(self._failures, 64)
        return self._random() * min(ceiling, self._policy.longest)


def parse_retry_after(values: Iterable[str], *, now: float) -> float | None:
    """Read ``Retry-After`` headers (rule RET-08).

    Args:
        values: The values of all such headers; the first one that can be read counts.
        now: Seconds since the epoch, by the clock on the wall.

    Returns:
        Seconds to wait, 0 for the past and for negative numbers; None if nothing can be read.
    """
    for value in values:
        seconds = _read_seconds(value.strip(), now)
        if seconds is not None:
            return seconds
    return None


def _read_seconds(value: str, now: float) -> float | None:
    if (match := _SECONDS.fullmatch(value)) is not None:
        return 0.0 if match[1] == "-" else float(match[2])
    if not value.isascii() or len(value) > _LONGEST_DATE:
        return None
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - slow to import, rarely needed

    try:
        date = parsedate_to_datetime(value)
        # A date without a zone is in GMT, as all dates of HTTP are.
        aware = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        return max(aware.timestamp() - now, 0.0)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


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
    """Seconds that the server asked to wait, None if it did not."""
    attempts: int | None = None
    """Attempts that this kind of failure is worth, None for as many as the policy allows."""


class FirstFailure(NamedTuple):
    """The first attempt, which has already failed."""

    error: SupplementedError
    start: float
    """When it began, by the clock."""


async def retry(
    operation: Callable[[], Awaitable[T]],
    *,
    judge: Callable[[SupplementedError], Retry | None],
    policy: RetryPolicy,
    clock: Clock,
    notify: Callable[[SupplementedError, int, float], None],
    first: FirstFailure | None = None,
) -> T:
    """Run an operation until it succeeds, fails for good, or the policy ends the attempts.

    Cancellation ends it at once, asleep or not.

    Args:
        operation: One attempt.
        judge: Decides whether a failure is worth another attempt; None for no.
        policy: How often and for how long to retry.
        clock: Where time comes from.
        notify: Called before each pause, with the error, the number of the attempt that failed
            (from 1), and the seconds until the next one.
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
