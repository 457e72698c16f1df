"""What each source of one blob did: which parts it served, and when it was asked for the rest.

Decisions only: nothing here waits, reads a clock, or emits an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asupplemented.abc import ResourceKey, Served
from asupplemented.errors import ConfigurationError
from asupplemented.limits import MIB

if TYPE_CHECKING:
    from asupplemented.abc import BlobCandidate

__all__ = ("RESUMPTION", "Resumption", "ResumptionPolicy", "Resumptions", "ServedParts")


class ServedParts:
    """The parts of a blob, each with the source that served it, in the order they came."""

    __slots__ = ("_parts", "_suppliers")

    def __init__(self) -> None:
        self._parts: list[Served] = []
        self._suppliers: list[BlobCandidate] = []

    @property
    def suppliers(self) -> tuple[BlobCandidate, ...]:
        """The candidates whose bytes are in the blob, each once."""
        return tuple(self._suppliers)

    @property
    def members(self) -> tuple[int, ...]:
        """The members whose bytes are in the blob, each once."""
        return tuple(dict.fromkeys(p.member for p in self._parts if p.member is not None))

    def add(self, candidate: BlobCandidate, start: int, end: int) -> Served | None:
        """Record that a candidate served ``[start, end)``.

        Returns:
            The new part; None if it is empty.
        """
        if start == end:
            return None
        part = Served(candidate.reference, candidate.member, start, end)
        _append(self._parts, part)
        if not any(known is candidate for known in self._suppliers):
            self._suppliers.append(candidate)
        return part

    def list_with(self, candidate: BlobCandidate, start: int, end: int) -> list[Served]:
        """All recorded parts, and one more that is not recorded yet."""
        parts = list(self._parts)
        if start != end:
            _append(parts, Served(candidate.reference, candidate.member, start, end))
        return parts

    def clear(self) -> None:
        """Forget all parts: the blob starts over."""
        self._parts.clear()
        self._suppliers.clear()


def _append(parts: list[Served], part: Served) -> None:
    """Append a part; adjacent parts of one source become one part."""
    last = parts[-1] if parts else None
    if last is not None and last[:2] == part[:2] and last.end == part.start:
        parts[-1] = part._replace(start=last.start)
    else:
        parts.append(part)


@dataclass(frozen=True, slots=True)
class ResumptionPolicy:
    """How often the same source may be asked for the rest (rules RES-02 to RES-04).

    It is given to a session: ``Session(settings=[ResumptionPolicy(...)])``.

    Raises:
        ConfigurationError: A number is negative.
    """

    progress: int = MIB
    """Bytes since the last resumption that justify another one."""
    interval: float = 60.0
    """Seconds since the last resumption that justify another one."""
    pause: float = 1.0
    """Seconds to wait before asking for the rest."""
    jitter: float = 0.1
    """The wait is longer by up to this fraction, so that not all readers come back at once."""

    def __post_init__(self) -> None:
        if not all(each >= 0 for each in (self.progress, self.interval, self.pause, self.jitter)):
            message = f"the numbers of a resumption policy are 0 or more, unlike {self}"
            raise ConfigurationError(message)

    @property
    def key(self) -> ResourceKey[ResumptionPolicy]:
        """The key of this kind of setting."""
        return RESUMPTION


RESUMPTION: Final = ResourceKey["ResumptionPolicy"]("resumption policy")
"""The policy of a session: the one among its settings, else the default."""


class Resumption:
    """The last resumption of one source within one blob.

    Args:
        policy: How often it may be resumed.
    """

    __slots__ = ("_last", "_policy")

    def __init__(self, policy: ResumptionPolicy) -> None:
        self._policy = policy
        self._last: tuple[int, float] | None = None

    def allows(self, position: int, now: float, *, stalled: bool = False) -> bool:
        """Whether to ask for the rest: the first time, after progress, or after a while.

        Args:
            position: Offset of the first byte that is missing.
            now: The time, in seconds.
            stalled: The body broke off because it was too slow. Stalled time does not count as a
                reason, or a source that trickles would be asked for ever (rule SEC-07).
        """
        if self._last is None:
            return True
        before, when = self._last
        if position - before >= self._policy.progress:
            return True
        return not stalled and now - when >= self._policy.interval

    def begin(self, position: int, now: float, chance: float) -> float:
        """Record that the rest is asked for.

        Args:
            position: Offset of the first byte that is missing.
            now: The time, in seconds.
            chance: A number in ``[0, 1)``.

        Returns:
            Seconds to wait first.
        """
        self._last = (position, now)
        return self._policy.pause * (1 + self._policy.jitter * chance)


class Resumptions:
    """The resumptions of all sources of one blob.

    Args:
        policy: How often each source may be resumed.
    """

    __slots__ = ("_each", "_policy")

    def __init__(self, policy: ResumptionPolicy) -> None:
        self._policy = policy
        self._each: list[tuple[BlobCandidate, Resumption]] = []

    def of(self, candidate: BlobCandidate) -> Resumption:
        """The record of one candidate."""
        for known, record in self._each:
            if known is candidate:
                return record
        record = Resumption(self._policy)
        self._each.append((candidate, record))
        return record

    def clear(self) -> None:
        """Forget all resumptions: the blob starts over."""
        self._each.clear()
