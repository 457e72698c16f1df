"""When to try again: a retry schedule without clock, sleep or randomness of its own.

Rules RET-06 and RET-08. The schedule is told that an attempt failed and answers how long to
pause, or that it is enough. Times are seconds on a clock of the caller's choice, as long as it
is the same one throughout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ("Backoff", "BackoffPolicy", "parse_retry_after")

_SECONDS: Final = re.compile(r"([+-]?)([0-9]{1,15}(?:\.[0-9]{1,9})?)", re.ASCII)
_LONGEST_DATE: Final = 64


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """How patient to be.

    Without advice from the other side the pause after failure n is random between 0 and
    ``base * 2 ** n`` seconds ("full jitter"), so that clients that failed together do not
    come back together.
    """

    attempts: int = 5
    """Attempts in all, the first one included."""
    base: float = 1.0
    """Seconds; half of the longest possible first pause."""
    longest: float = 60.0
    """Seconds that one pause may last. Advice to wait longer ends the attempts at once."""
    budget: float = 120.0
    """Seconds from the start of the first attempt to the start of the last one."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.base, self.longest, self.budget) < 0:
            message = f"a policy needs one attempt or more and no negative times, not {self}"
            raise ValueError(message)


class Backoff:
    """The schedule of one operation.

    Args:
        policy: How patient to be.
        start: When the first attempt began, in seconds.
        random: Gives numbers in ``[0, 1)``.
    """

    __slots__ = ("_failures", "_policy", "_random", "_start")

    def __init__(self, policy: BackoffPolicy, *, start: float, random: Callable[[], float]) -> None:
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
        """Count a failed attempt and say how long to pause before the next one.

        Args:
            now: The time, in seconds.
            advice: Seconds that the other side asked to wait, None if it did not say.
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
