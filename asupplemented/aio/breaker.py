"""Circuit breakers: whether one who failed is fit to be asked again, without a clock of its own.

Times are seconds on a clock of the caller's choice, as long as it is the same one throughout.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from math import inf
from typing import Final

__all__ = ("Breaker", "BreakerPolicy", "Fitness")

_DOUBLINGS: Final = 16
"""More than any policy needs: beyond it the longest pause is reached anyway."""


class Fitness(enum.Enum):
    """What to make of somebody."""

    FIT = enum.auto()
    """Nothing speaks against asking."""
    ON_PROBATION = enum.auto()
    """The pause is over: one may ask, and the others wait for what becomes of it."""
    ASIDE = enum.auto()
    """Only if nobody else serves."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """For how long somebody is put aside, in seconds.

    The pause doubles with each probe that fails. What fails besides, while somebody is aside, is
    the same trouble: many blobs break off when one connection does.
    """

    pause: float = 10.0
    """After a first failure: no connection, a body that broke, an answer like 503."""
    longest: float = 300.0
    """However often it failed."""
    lie: float = 300.0
    """After wrong content, which is no accident."""

    def __post_init__(self) -> None:
        if min(self.pause, self.longest, self.lie) < 0:
            message = f"a breaker has no negative times, as {self} has"
            raise ValueError(message)


class Breaker:
    """What is remembered of one who may be asked.

    Args:
        policy: How long to remember.
    """

    __slots__ = ("_failures", "_policy", "_probed_until", "_until")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._until = -inf
        self._probed_until = -inf
        """Until when the others wait for what becomes of a probe."""

    def judge(self, now: float) -> Fitness:
        """Whether it should be asked. Changes nothing."""
        if not self._failures:
            return Fitness.FIT
        if self.pause(now):
            return Fitness.ASIDE
        return Fitness.ON_PROBATION

    def pause(self, now: float) -> float:
        """Seconds for which it stays aside, 0 if it does not."""
        return max(0.0, self._until - now, self._probed_until - now)

    def probe(self, now: float) -> None:
        """Somebody asks although it failed before.

        The others wait for what becomes of it, but no longer than for a first failure: a large
        blob takes its time, and that it does is no bad sign.
        """
        self._probed_until = now + self._policy.pause

    def succeed(self) -> None:
        """It served what it was asked for: all is forgotten."""
        self._failures = 0
        self._until = self._probed_until = -inf

    def fail(self, now: float, *, pause: float | None = None, lied: bool = False) -> None:
        """It failed.

        Args:
            now: The time.
            pause: Seconds for which it asked not to be asked, None if it did not say.
            lied: Whether it gave wrong content.
        """
        policy = self._policy
        aside = now < self._until and now >= self._probed_until
        if not aside:
            self._failures += 1
        self._probed_until = -inf
        doubled = policy.pause * 2.0 ** min(self._failures - 1, _DOUBLINGS)
        least = policy.lie if lied else 0.0 if aside else min(doubled, policy.longest)
        longest = max(policy.lie, policy.longest)
        self._until = max(self._until, now + min(max(least, pause or 0.0), longest))

    def abandon(self) -> None:
        """Whoever asked went away before anything could be said of it."""
        self._probed_until = -inf
