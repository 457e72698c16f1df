"""Going on with a body that broke off: whether the same source is asked for the rest of it.

Rules RES-02 to RES-04, without a clock of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from asupplemented.limits import MIB

__all__ = ("Resumption", "ResumptionPolicy")


@dataclass(frozen=True, slots=True)
class ResumptionPolicy:
    """How patient to be with one who breaks off."""

    progress: int = MIB
    """Bytes since the last time that are reason enough to try once more."""
    interval: float = 60.0
    """Seconds since the last time that are."""
    pause: float = 1.0
    """Seconds to wait before asking for the rest."""
    jitter: float = 0.1
    """The wait is longer by up to so much, as a part of it, so that not all come back at once."""


class Resumption:
    """The record of one source within one blob.

    Args:
        policy: How patient to be.
    """

    __slots__ = ("_again", "_policy")

    def __init__(self, policy: ResumptionPolicy) -> None:
        self._policy = policy
        self._again: tuple[int, float] | None = None

    @property
    def happened(self) -> bool:
        """Whether the source was asked for the rest before."""
        return self._again is not None

    def allows(self, position: int, now: float, *, stalled: bool = False) -> bool:
        """Whether to ask for the rest: the first time, after progress, or after a while.

        Args:
            position: Offset of the first byte that is missing.
            now: The time, in seconds.
            stalled: The time went by because the source let us wait, which is no merit: who
                trickles would be asked for ever (rule SEC-07).
        """
        if self._again is None:
            return True
        before, when = self._again
        if position - before >= self._policy.progress:
            return True
        return not stalled and now - when >= self._policy.interval

    def begin(self, position: int, now: float, chance: float) -> float:
        """Take note that the rest is asked for.

        Args:
            position: Offset of the first byte that is missing.
            now: The time, in seconds.
            chance: A number in ``[0, 1)``.

        Returns:
            Seconds to wait before that.
        """
        self._again = (position, now)
        return self._policy.pause * (1 + self._policy.jitter * chance)
