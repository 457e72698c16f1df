"""Who has served what of one blob."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asupplemented.abc import Served
from asupplemented.events import BlobServed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.abc import BlobCandidate, Context
    from asupplemented.model.digest import Digest

__all__ = ("Service",)


class Service:
    """The parts of a blob, each with who served it, in the order in which they came.

    Args:
        context: The session, whose hooks are told.
        digest: Name of the blob.
    """

    __slots__ = ("_context", "_digest", "_parts", "_suppliers")

    def __init__(self, context: Context, digest: Digest) -> None:
        self._context = context
        self._digest = digest
        self._parts: list[Served] = []
        self._suppliers: list[BlobCandidate] = []

    @property
    def suppliers(self) -> tuple[BlobCandidate, ...]:
        """Whose bytes are in the blob, each once."""
        return tuple(self._suppliers)

    @property
    def members(self) -> tuple[int, ...]:
        """The members whose bytes are in it, each once."""
        return tuple(dict.fromkeys(p.member for p in self._parts if p.member is not None))

    def note(self, candidate: BlobCandidate, start: int, end: int) -> None:
        """Write down that a candidate has served ``[start, end)``, be it nothing."""
        if start == end:
            return
        _extend(self._parts, Served(candidate.reference, candidate.member, start, end))
        if not any(known is candidate for known in self._suppliers):
            self._suppliers.append(candidate)
        if self._context.observed:
            event = BlobServed(candidate.reference, self._digest, start, end, candidate.member)
            self._context.emit(event)

    def adopt(self, parts: Sequence[Served]) -> None:
        """Take over what somebody else has written down of the whole blob."""
        self._parts = list(parts)

    def list_parts(self, candidate: BlobCandidate, start: int, end: int) -> list[Served]:
        """What was written down, and what a candidate has served that is not there yet."""
        parts = list(self._parts)
        if start != end:
            _extend(parts, Served(candidate.reference, candidate.member, start, end))
        return parts

    def forget(self) -> None:
        """Begin again: what came so far is void."""
        self._parts.clear()
        self._suppliers.clear()


def _extend(parts: list[Served], part: Served) -> None:
    """Add a part; what the same one goes on with is one part with what it served before."""
    last = parts[-1] if parts else None
    if last is not None and last[:2] == part[:2] and last.end == part.start:
        parts[-1] = part._replace(start=last.start)
    else:
        parts.append(part)
