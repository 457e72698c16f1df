"""Circuit breakers: whether a source that failed may be asked again.

A breaker is *closed* while nothing speaks against its source. A failure *opens* it for a pause.
When the pause is over the breaker is *half-open*: the next caller probes the source
(`Breaker.probe`), and the breaker counts as open for the others until the probe has ended or its
time is up. A success closes the breaker, and a failed probe doubles the pause. Further failures
while the breaker is open do not count: many blobs break off when one connection does.

A breaker forbids nothing. The caller decides what an open breaker means; most ask the source
last. Breakers have no clock: times are seconds on any clock, as long as it is the same one
throughout.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from asupplemented.abc import ResourceKey
from asupplemented.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("BREAKERS", "Breaker", "BreakerPolicy", "BreakerState", "ReportOnce")

_MAX_DOUBLINGS: Final = 16
"""More than any policy needs: the longest pause is reached before."""


class BreakerState(enum.Enum):
    """What a breaker says of its source."""

    CLOSED = enum.auto()
    """Nothing speaks against asking the source."""
    HALF_OPEN = enum.auto()
    """The pause is over: one caller may probe the source."""
    OPEN = enum.auto()
    """The source failed lately, or another caller probes it."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """How long breakers stay open, in seconds: ``Session(settings=[BreakerPolicy(...)])``.

    The pause doubles with each probe that fails.

    Raises:
        ConfigurationError: A time is negative.
    """

    pause: float = 10.0
    """After a first failure: no connection, a body that broke off, an answer like 503. A probe
    holds off other callers for as long."""
    longest: float = 300.0
    """The longest pause, however often the source failed."""
    wrong_content: float = 300.0
    """After wrong content, which does not pass by itself."""

    def __post_init__(self) -> None:
        if not all(each >= 0 for each in (self.pause, self.longest, self.wrong_content)):
            message = f"the times of a breaker policy are 0 seconds or more, unlike {self}"
            raise ConfigurationError(message)

    @property
    def key(self) -> ResourceKey[BreakerPolicy]:
        """The key of this kind of setting."""
        return BREAKERS


BREAKERS: Final = ResourceKey["BreakerPolicy"]("breaker policy")
"""The policy of a session: the one among its settings, else the default."""


class Breaker:
    """The breaker of one source.

    Args:
        policy: How long it stays open.
    """

    __slots__ = ("_failures", "_open_until", "_policy", "_probed_until")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._open_until = -inf
        self._probed_until = -inf
        """Until when other callers wait for the outcome of a probe."""

    def state(self, now: float) -> BreakerState:
        """Whether the source should be asked. Changes nothing."""
        if not self._failures:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self.remaining(now) else BreakerState.HALF_OPEN

    def remaining(self, now: float) -> float:
        """Seconds for which it stays open, 0 if it is not."""
        return max(0.0, self._open_until - now, self._probed_until - now)

    def probe(self, now: float) -> None:
        """Note that a caller asks the source.

        Other callers wait for the outcome, but no longer than for a first failure: a large blob
        takes its time, and that is no bad sign.
        """
        self._probed_until = now + self._policy.pause

    def record_success(self) -> None:
        """Close: the source served what it was asked for."""
        self._failures = 0
        self._open_until = self._probed_until = -inf

    def record_failure(
        self, now: float, *, pause: float | None = None, wrong_content: bool = False
    ) -> None:
        """Open, or stay open.

        Args:
            now: The time.
            pause: Seconds for which the source asked to be left alone, None if it did not say.
            wrong_content: Whether the source gave wrong content.
        """
        policy = self._policy
        # The failure of a probe is news even while the breaker is open: a caller without another
        # source probes at any time.
        known = now < self._open_until and now >= self._probed_until
        if not known:
            self._failures += 1
        self._probed_until = -inf
        doubled = policy.pause * 2.0 ** min(self._failures - 1, _MAX_DOUBLINGS)
        least = 0.0 if known else min(doubled, policy.longest)
        if wrong_content:
            least = policy.wrong_content
        longest = max(policy.wrong_content, policy.longest)
        self._open_until = max(self._open_until, now + min(max(least, pause or 0.0), longest))

    def release(self) -> None:
        """End a probe that says nothing of the source: the next caller may probe."""
        self._probed_until = -inf


class ReportOnce:
    """Reports a trouble once, until it ends."""

    __slots__ = ("_reported",)

    def __init__(self) -> None:
        self._reported = False

    def report(self, tell: Callable[[str], object], message: str) -> None:
        """Call ``tell(message)``, unless this trouble was reported already."""
        if not self._reported:
            self._reported = True
            tell(message)

    def end(self) -> None:
        """The trouble is over: the next one is reported."""
        self._reported = False
