"""One reader of a shared fetch, as an attempt of its stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from asupplemented.blobs.attempts import Attempt
from asupplemented.blobs.verified import VerifiedStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.abc import BlobCandidate, Context, Served
    from asupplemented.blobs.hashing import RunningHash
    from asupplemented.model.descriptor import Descriptor

__all__ = ("Followed", "SharedAttempt")


class Followed(Protocol):
    """A fetch, as its readers see it."""

    @property
    def reference(self) -> str:
        """Whom it reads from, or did at last; empty before the first one answers."""
        ...

    @property
    def served(self) -> Sequence[Served]:
        """Who has served what."""
        ...

    async def read(self, reader: SharedAttempt) -> bytes | None:
        """The next bytes for a reader, none at the end; None if it has to go on alone."""
        ...

    def advance(self, reader: SharedAttempt, size: int) -> None:
        """Take note that a reader has read on."""
        ...

    async def leave(self, reader: SharedAttempt) -> None:
        """A reader goes."""
        ...


class SharedAttempt(Attempt):
    """One reader of a shared fetch.

    Attributes:
        position: Offset of the next byte.
        detached: It lost touch, and goes on with a fetch of its own.
    """

    __slots__ = ("_candidates", "_context", "_descriptor", "_fetch", "_own", "detached", "position")

    final: ClassVar[bool] = True

    def __init__(
        self,
        fetch: Followed,
        candidates: Sequence[BlobCandidate],
        context: Context,
        descriptor: Descriptor,
    ) -> None:
        super().__init__(candidates[0], None, 0)
        self._fetch = fetch
        self._candidates = candidates
        self._context = context
        self._descriptor = descriptor
        self._own: VerifiedStream | None = None
        self.position = 0
        self.detached = False

    async def begin(
        self, end: int | None, running: RunningHash | None, size: int | None = None
    ) -> None:
        """Do nothing: all of it was asked for, and is verified."""

    @property
    def candidate(self) -> BlobCandidate:
        """Whom the fetch reads from, if it is one of the reader's own, else the best of those."""
        reference = self._fetch.reference
        own = (each for each in self._candidates if each.reference == reference)
        return next(own, self._candidates[0])

    @property
    def served(self) -> Sequence[Served]:
        served = self._fetch.served if self._own is None else self._own.served
        return tuple(part._replace(member=self._find_member(part.reference)) for part in served)

    def _find_member(self, reference: str) -> int | None:
        """The number that a source of the fetch has among the reader's own."""
        numbers = (c.member for c in self._candidates if c.reference == reference)
        return next(numbers, None)

    @property
    def proven(self) -> bool:
        return True

    @property
    def trusted(self) -> bool:
        return True

    async def read(self) -> bytes:
        if self._own is None:
            block = await self._fetch.read(self)
            if block is not None:
                self._fetch.advance(self, len(block))
                return block
            await self._detach()
        return await self._read_own()

    async def _detach(self) -> None:
        """Go on alone: from the first byte, for only the whole of it can be verified."""
        self._own = VerifiedStream(self._descriptor, self._candidates, self._context)
        await self._own.__aenter__()
        await self._fetch.leave(self)

    async def _read_own(self) -> bytes:
        own = self._own
        if own is None:
            return b""
        while (chunk := await anext(own, b"")) and own.received <= self.position:
            pass
        fresh = own.received - self.position
        self.position = max(self.position, own.received)
        return chunk[len(chunk) - fresh :] if chunk else b""

    async def aclose(self) -> None:
        try:
            await self._fetch.leave(self)
        finally:
            own, self._own = self._own, None
            if own is not None:
                await own.aclose()
