"""Blob streams: what is handed out in full is right.

A stream hands out what its reader fetches and hashes (`asupplemented.blobs.failover_reader`), and
keeps the last chunk back until everything is verified.
"""

from __future__ import annotations

import enum
import warnings
from collections import deque
from typing import TYPE_CHECKING

from asupplemented.abc import BlobStream
from asupplemented.aio.closing import closing_on_error
from asupplemented.blobs.failover_reader import FailoverReader
from asupplemented.errors import (
    ClosedError,
    LimitExceededError,
    RangeError,
    SourceError,
    SupplementedError,
    UsageError,
    VerificationError,
)
from asupplemented.events import BlobFinished
from asupplemented.limits import CHUNK_MAX
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    from asupplemented.abc import BlobCandidate, Context, Served
    from asupplemented.blobs.failover import BlobProgress
    from asupplemented.blobs.failover_reader import BlobReader, FirstChoice
    from asupplemented.events import CacheUse
    from asupplemented.model.descriptor import Descriptor

__all__ = ("VerifiedStream",)


class _State(enum.Enum):
    NEW = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


class VerifiedStream(BlobStream):
    """The verified bytes of a blob, or of a range of it, from the candidates that can serve it.

    Blobs up to ``SMALL_BLOB`` are read whole and verified before their first byte is handed
    out, so that a candidate that lies is replaced by the next one. Larger ones are handed out
    as they come, all but the chunk with the last byte (rule BLOB-05). A candidate that breaks
    off is asked for the rest, or the next one is: no byte comes twice, and none is lost.

    Args:
        descriptor: What to read. Its digest is checked at once; a size of None is unknown.
        candidates: The candidates, best first.
        context: The session.
        start: Offset of the first byte.
        end: Offset behind the last byte; None, or anything larger, is the end of the blob.
        first_choice: Tried before the first candidate that is not on this machine. If it is None
            or returns None, the candidates are asked.
        quiet: Whether another stream reads it, and tells of the end.

    Raises:
        InvalidDigestError: The descriptor has no valid digest.
        RangeError: The range ends before it starts, or starts before the blob.
    """

    __slots__ = (
        "__weakref__",
        "_busy",
        "_context",
        "_descriptor",
        "_digest",
        "_end",
        "_ended",
        "_failure",
        "_lent",
        "_on_progress",
        "_open_reader",
        "_pending",
        "_quiet",
        "_reader",
        "_received",
        "_reported",
        "_start",
        "_state",
    )

    def __init__(
        self,
        descriptor: Descriptor,
        candidates: Sequence[BlobCandidate],
        context: Context,
        *,
        start: int = 0,
        end: int | None = None,
        first_choice: FirstChoice | None = None,
        quiet: bool = False,
    ) -> None:
        self._quiet = quiet
        self._digest = Digest(descriptor.digest)
        self._descriptor = descriptor
        self._context = context
        self._start = start
        self._end = end
        if start < 0 or (end is not None and end < start):
            message = f"no range of bytes goes from {start} to {end}"
            raise RangeError(message, digest=self._digest)
        if end is not None and descriptor.size is not None:
            self._end = end = min(end, descriptor.size)
        first_reader = FailoverReader(
            descriptor,
            self._digest,
            candidates,
            context,
            start=start,
            end=end,
            first_choice=first_choice,
        )
        self._open_reader = first_reader.open
        self._reader: BlobReader = first_reader
        self._state = _State.NEW
        self._busy = False
        self._failure: SupplementedError | None = None
        self._pending: deque[bytes] = deque()
        """What was fetched and not handed out yet."""
        self._received = 0
        self._on_progress: Callable[[int], None] | None = None
        self._reported = 0
        self._ended = False
        """Everything was handed out."""
        self._lent = False
        """The path of the file was taken instead of reading."""

    # What is known

    @property
    def descriptor(self) -> Descriptor:
        return self._descriptor

    @property
    def size(self) -> int | None:
        return self._reader.progress.size

    @property
    def received(self) -> int:
        return self._received

    @property
    def member(self) -> int | None:
        candidate = self._reader.candidate
        return None if candidate is None else candidate.member

    @property
    def reference(self) -> str | None:
        candidate = self._reader.candidate
        return None if candidate is None else candidate.reference

    @property
    def cache_use(self) -> CacheUse:
        return self._reader.cache_use

    @property
    def served(self) -> tuple[Served, ...]:
        return tuple(self._reader.list_served())

    @property
    def corrupt(self) -> tuple[VerificationError, ...]:
        return tuple(self._reader.list_corrupt())

    @property
    def verified(self) -> bool | None:
        if self._ended:
            return self._reader.progress.verified
        if self._lent:
            return True
        return False if self._state is _State.CLOSED or self._failure is not None else None

    @property
    def failure(self) -> SupplementedError | None:
        return self._failure

    def on_progress(self, callback: Callable[[int], None]) -> None:
        self._on_progress = callback
        if self._state is _State.OPEN:
            self._reader.follow(self._report)

    # Opening

    async def __aenter__(self) -> Self:
        """Ask the candidates, in order, until one answers.

        Raises:
            UsageError: The stream was entered before; each reading takes a stream of its own.
            RangeError: The range starts behind the end of the blob.
            BlobNotFoundError: No candidate has the blob.
            FailoverError: Several candidates failed, and none is left.
            SupplementedError: What the only candidate said that did not merely lack it.
        """
        if self._state is not _State.NEW:
            message = "a blob stream is entered once; call open_blob() again for another one"
            raise UsageError(message, digest=self._digest)
        self._state = _State.OPEN
        async with closing_on_error(lambda: (self,), "the blob"):
            self._reader = await self._open_reader()
            if self._on_progress is not None:
                self._reader.follow(self._report)
        return self

    # Reading

    async def __anext__(self) -> bytes:
        if self._state is not _State.OPEN or self._failure is not None or self._busy or self._lent:
            self._check_readable()
        pending = self._pending
        progress = self._reader.progress
        self._busy = True
        try:
            while progress.verified is None and not (pending and self._may_release()):
                progress = await self._fetch(self._reader)
        except SupplementedError as error:
            self._break(error)
            if self._state is _State.CLOSED and not isinstance(error, ClosedError):
                raise self._closed_error() from error
            raise
        except BaseException:
            message = "reading this blob was interrupted; open it again"
            self._break(ClosedError(message, digest=self._digest))
            raise
        finally:
            self._busy = False
        if not pending:
            self._ended = True
            raise StopAsyncIteration
        chunk = pending.popleft()
        self._received += len(chunk)
        self._ended = progress.verified is not None and not pending
        self._report()
        return chunk

    def _report(self) -> None:
        if self._on_progress is not None:
            come = max(self._received, self._reader.progress.position - self._start)
            if come != self._reported:
                self._reported = come
                self._on_progress(come)

    async def _fetch(self, reader: BlobReader) -> BlobProgress:
        """Fetch the next chunks. What was fetched stays right if another reader goes on."""
        for block in await reader.read():
            if len(block) <= CHUNK_MAX:
                self._pending.append(block)
            else:
                self._pending.extend(_split(block))
        if reader.successor is not None:
            self._reader = reader.successor
            await reader.aclose()
        return self._reader.progress

    def _check_readable(self) -> None:
        if self._state is _State.NEW:
            message = "a blob stream is entered before it is read: async with ... as blob"
            raise UsageError(message, digest=self._digest)
        if self._state is _State.CLOSED:
            raise self._closed_error()
        if self._failure is not None:
            raise self._failure
        if self._busy:
            message = "a blob stream is read by one task at a time"
            raise UsageError(message, digest=self._digest)
        if self._lent:
            message = "the file of this blob was taken; open the blob again to read it"
            raise UsageError(message, digest=self._digest)

    def _closed_error(self) -> ClosedError:
        message = "the blob stream has been closed; open the blob again"
        return ClosedError(message, digest=self._digest)

    def _break(self, failure: SupplementedError) -> None:
        self._failure = failure
        self._pending.clear()
        if isinstance(failure, SourceError) and failure.received is None:
            failure.received = self._reader.progress.position - self._start

    def _may_release(self) -> bool:
        """Whether the next chunk certainly does not hold the last byte of the blob."""
        progress = self._reader.progress
        if not progress.is_whole or len(self._pending) > 1:
            return True
        size = progress.size
        return size is not None and self._received + len(self._pending[0]) < size

    async def read_all(self, limit: int) -> bytes:
        self._check_readable()
        size = self._reader.progress.size
        if size is not None:
            end = size if self._end is None else min(self._end, size)
            if end - self._start - self._received > limit:
                raise self._too_much(limit)
        chunks: list[bytes] = []
        total = 0
        async for chunk in self:
            total += len(chunk)
            if total > limit:
                raise self._too_much(limit)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def take_path(self) -> Path | None:
        """Take the file that this session verified before, if it has not changed since."""
        self._check_readable()
        if not self._reader.progress.is_whole or self._received or self._pending:
            return None
        path = self._reader.take_path()
        if path is not None:
            self._lent = True
            self._received = self._reader.progress.position
        return path

    def _too_much(self, limit: int) -> LimitExceededError:
        message = f"the blob exceeded maximum allowed size of {limit} bytes"
        return LimitExceededError(message, limit=limit, digest=self._digest)

    # Closing

    async def aclose(self) -> None:
        """Release everything, also in the middle. May be called again.

        Raises:
            ExceptionGroup: The source did not let go gracefully.
        """
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        self._pending.clear()
        try:
            await self._reader.aclose()
        finally:
            self._tell_end()

    def _tell_end(self) -> None:
        candidate = self._reader.candidate
        if candidate is None or self._quiet or not self._context.observed:
            return
        self._context.emit(
            BlobFinished(
                reference=candidate.reference,
                digest=self._digest,
                start=self._start,
                received=self._received,
                member=self.member,
                verified=self.verified is True and self._reader.progress.is_whole,
                error=None if self._failure is None else type(self._failure).__name__,
                cached=self._reader.cached,
            )
        )

    def __del__(self) -> None:
        if getattr(self, "_state", None) is _State.OPEN:
            message = f"unclosed {self!r}; use it with 'async with', or await its aclose()"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        return f"<VerifiedStream of {self._digest}, {self._state.name.lower()}>"


def _split(block: bytes) -> Iterator[bytes]:
    """Cut a block into chunks of at most ``CHUNK_MAX`` bytes."""
    return (block[at : at + CHUNK_MAX] for at in range(0, len(block), CHUNK_MAX))
