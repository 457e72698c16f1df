"""Blob streams: what is handed out in full is right.

A stream hands out what a relay of candidates brings (`asupplemented.blobs.relay`), which hashes
it on the way, and keeps the end of it back until everything is verified.
"""

from __future__ import annotations

import enum
import warnings
from collections import deque
from typing import TYPE_CHECKING

from asupplemented.abc import BlobStream
from asupplemented.aio.closing import closing_on_error
from asupplemented.blobs.relay import Relay
from asupplemented.errors import (
    ClosedError,
    LimitExceededError,
    RangeError,
    SourceError,
    SupplementedError,
    UsageError,
)
from asupplemented.events import BlobFinished
from asupplemented.limits import CHUNK_MAX
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path
    from typing import Self

    from asupplemented.abc import BlobCandidate, Context, Served
    from asupplemented.blobs.attempts import Attempt
    from asupplemented.model.descriptor import Descriptor

__all__ = ("VerifiedStream",)


class _State(enum.Enum):
    NEW = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


class VerifiedStream(BlobStream):
    """The verified bytes of a blob, or of a range of it, from those who can serve it.

    Blobs up to ``SMALL_BLOB`` are read whole and verified before their first byte is handed
    out, so that a candidate that lies is replaced by the next one. Larger ones are handed out
    as they come, all but the chunk with the last byte (rule BLOB-05). A candidate that breaks
    off is asked for the rest, or the next one is: no byte comes twice, and none is lost.

    Args:
        descriptor: What to read. Its digest is checked at once; a size of None is unknown.
        candidates: Who may serve it, best first.
        context: The session.
        start: Offset of the first byte.
        end: Offset behind the last byte; None, or anything larger, is the end of the blob.
        front: Asked before all candidates; None, or what it gives, has them asked.

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
        "_ended",
        "_failure",
        "_lent",
        "_on_progress",
        "_pending",
        "_received",
        "_relay",
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
        front: Callable[[], Awaitable[Attempt | None]] | None = None,
    ) -> None:
        self._digest = Digest(descriptor.digest)
        self._descriptor = descriptor
        self._context = context
        self._start = start
        if start < 0 or (end is not None and end < start):
            message = f"no range of bytes goes from {start} to {end}"
            raise RangeError(message, digest=self._digest)
        if end is not None and descriptor.size is not None:
            end = min(end, descriptor.size)
        self._relay = Relay(
            descriptor, self._digest, candidates, context, start=start, end=end, front=front
        )
        self._state = _State.NEW
        self._busy = False
        self._failure: SupplementedError | None = None
        self._pending: deque[bytes] = deque()
        """What was fetched and not handed out yet."""
        self._received = 0
        self._on_progress: Callable[[int], None] | None = None
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
        return self._relay.size

    @property
    def received(self) -> int:
        return self._received

    @property
    def member(self) -> int | None:
        candidate = self._relay.candidate
        return None if candidate is None else candidate.member

    @property
    def reference(self) -> str | None:
        """The reference of who serves the bytes now, None before the first one answers."""
        candidate = self._relay.candidate
        return None if candidate is None else candidate.reference

    @property
    def served(self) -> tuple[Served, ...]:
        return tuple(self._relay.list_served())

    @property
    def verified(self) -> bool | None:
        if self._ended:
            return self._relay.right
        if self._lent:
            return True
        return False if self._state is _State.CLOSED or self._failure is not None else None

    @property
    def failure(self) -> SupplementedError | None:
        return self._failure

    def on_progress(self, callback: Callable[[int], None]) -> None:
        self._on_progress = callback

    # Opening

    async def __aenter__(self) -> Self:
        """Ask the candidates, in order, until one answers.

        Raises:
            UsageError: The stream was entered before; each reading takes a stream of its own.
            RangeError: The range starts behind the end of the blob.
            BlobNotFoundError: No candidate has the blob.
            FailoverError: Several candidates failed, and nobody is left.
            SupplementedError: What the only candidate said that did not merely lack it.
        """
        if self._state is not _State.NEW:
            message = "a blob stream is entered once; call open_blob() again for another one"
            raise UsageError(message, digest=self._digest)
        self._state = _State.OPEN
        async with closing_on_error(lambda: (self,), "the blob"):
            await self._relay.open()
        return self

    # Reading

    async def __anext__(self) -> bytes:
        self._check_readable()
        self._busy = True
        try:
            while self._relay.right is None and not self._may_release():
                self._take(await self._relay.read())
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
        return self._release()

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
            failure.received = self._relay.position - self._start

    def _may_release(self) -> bool:
        """Whether there is a chunk that certainly does not hold the last byte of the blob."""
        if not self._pending:
            return False
        if not self._relay.is_whole or len(self._pending) > 1:
            return True
        size = self._relay.size
        return size is not None and self._received + len(self._pending[0]) < size

    def _release(self) -> bytes:
        if not self._pending:
            self._ended = True
            raise StopAsyncIteration
        chunk = self._pending.popleft()
        self._received += len(chunk)
        self._ended = self._relay.right is not None and not self._pending
        if self._on_progress is not None:
            self._on_progress(self._received)
        return chunk

    def _take(self, blocks: Sequence[bytes]) -> None:
        for block in blocks:
            if len(block) <= CHUNK_MAX:
                self._pending.append(block)
            else:
                starts = range(0, len(block), CHUNK_MAX)
                self._pending.extend(block[at : at + CHUNK_MAX] for at in starts)

    async def read_all(self, limit: int) -> bytes:
        self._check_readable()
        due = self._relay.due
        if due is not None and due - self._start - self._received > limit:
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
        attempt = self._relay.attempt
        if attempt is None or not self._relay.is_whole or self._received or self._pending:
            return None
        path = attempt.path
        self._lent = path is not None
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
            await self._relay.aclose()
        finally:
            self._tell_end()

    def _tell_end(self) -> None:
        candidate = self._relay.candidate
        if candidate is None or not self._context.observed:
            return
        self._context.emit(
            BlobFinished(
                reference=candidate.reference,
                digest=self._digest,
                start=self._start,
                received=self._received,
                member=self.member,
                verified=self.verified is True and self._relay.is_whole,
                error=None if self._failure is None else type(self._failure).__name__,
            )
        )

    def __del__(self) -> None:
        if getattr(self, "_state", None) is _State.OPEN:
            message = f"unclosed {self!r}; use it with 'async with', or await its aclose()"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        return f"<VerifiedStream of {self._digest}, {self._state.name.lower()}>"
