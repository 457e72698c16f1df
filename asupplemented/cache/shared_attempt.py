"""One reader of a shared fetch, as its stream reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from asupplemented.blobs.failover import BlobProgress
from asupplemented.blobs.failover_reader import BlobReader
from asupplemented.blobs.verified import VerifiedStream
from asupplemented.errors import ClosedError, SupplementedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.abc import BlobCandidate, Context, Served
    from asupplemented.errors import VerificationError
    from asupplemented.model.descriptor import Descriptor

__all__ = ("Followed", "SharedReader")


class Followed(Protocol):
    """A fetch, as its readers see it."""

    @property
    def reference(self) -> str:
        """The source it reads from, or read from last; empty before the first one answers."""
        ...

    @property
    def size(self) -> int | None:
        """Bytes of the blob, None if unknown."""
        ...

    @property
    def served(self) -> Sequence[Served]:
        """The parts that each source has served."""
        ...

    @property
    def corrupt(self) -> Sequence[VerificationError]:
        """Errors of the sources that had other content."""
        ...

    async def read(self, reader: SharedReader) -> bytes | None:
        """The next bytes for a reader, none at the end; None if it has to read by itself."""
        ...

    async def leave(self, reader: SharedReader) -> None:
        """A reader goes."""
        ...


class SharedReader(BlobReader):
    """Reads a blob that a shared fetch verifies. Failover is up to the fetch.

    Args:
        fetch: The fetch; it moves ``progress.position`` on.
        candidates: The reader's own, in case that it has to read by itself.
        context: The session.
        descriptor: The blob.

    Attributes:
        detached: It can no longer follow the fetch, and reads by itself.
    """

    __slots__ = (
        "_candidates",
        "_closed",
        "_context",
        "_descriptor",
        "_fetch",
        "_own",
        "detached",
        "progress",
    )

    def __init__(
        self,
        fetch: Followed,
        candidates: Sequence[BlobCandidate],
        context: Context,
        descriptor: Descriptor,
    ) -> None:
        self._fetch = fetch
        self._candidates = candidates
        self._context = context
        self._descriptor = descriptor
        self._own: VerifiedStream | None = None
        self._closed = False
        self.detached = False
        self.progress = BlobProgress(0, descriptor.size, is_whole=True)

    @property
    def candidate(self) -> BlobCandidate:
        """The candidate that the fetch reads from if the reader has it, else the reader's best."""
        reference = self._fetch.reference
        own = (each for each in self._candidates if each.reference == reference)
        return next(own, self._candidates[0])

    @property
    def path(self) -> None:
        """None: the file of a fetch grows."""

    def list_served(self) -> Sequence[Served]:
        served = self._fetch.served if self._own is None else self._own.served
        return tuple(part._replace(member=self._find_member(part.reference)) for part in served)

    def list_corrupt(self) -> Sequence[VerificationError]:
        return self._fetch.corrupt if self._own is None else self._own.corrupt

    def _find_member(self, reference: str) -> int | None:
        """The number that a source of the fetch has among the reader's own."""
        numbers = (c.member for c in self._candidates if c.reference == reference)
        return next(numbers, None)

    async def read(self) -> list[bytes]:
        try:
            block = await self._fetch.read(self) if self._own is None else None
            if self._closed:
                raise self._closed_error()
            if block is None:
                block = await self._read_own()
        except SupplementedError as error:
            source = self.candidate
            error.locate(
                reference=source.reference, digest=self._descriptor.digest, member=source.member
            )
            raise
        if block:
            return [block]
        self.progress.size = self.progress.position
        self.progress.verified = True
        return []

    async def _read_own(self) -> bytes:
        """Read by itself: from the first byte, since only the whole blob can be verified."""
        own = self._own
        if own is None:
            own = self._own = VerifiedStream(self._descriptor, self._candidates, self._context)
            await own.__aenter__()
            await self._fetch.leave(self)
        progress = self.progress
        while (chunk := await anext(own, b"")) and own.received <= progress.position:
            pass
        fresh = own.received - progress.position
        progress.position = max(progress.position, own.received)
        return chunk[len(chunk) - fresh :] if chunk else b""

    def _closed_error(self) -> ClosedError:
        message = "the blob stream has been closed; open the blob again"
        return ClosedError(message, digest=self._descriptor.digest)

    async def aclose(self) -> None:
        self._closed = True
        try:
            await self._fetch.leave(self)
        finally:
            own, self._own = self._own, None
            if own is not None:
                await own.aclose()
