"""Blob streams: the only place where blobs are hashed.

A stream asks its candidates in order until one answers, and hands out what comes while it
hashes it. What it has handed out in full, it has verified.
"""

from __future__ import annotations

import enum
import warnings
from collections import deque
from typing import TYPE_CHECKING

from asupplemented.abc import BlobStream
from asupplemented.candidates import Candidates, located
from asupplemented.closing import close_all, closing_on_error
from asupplemented.errors import (
    ClosedError,
    DigestMismatchError,
    LimitExceededError,
    RangeError,
    SizeMismatchError,
    SourceError,
    SupplementedError,
    TruncatedError,
    UsageError,
)
from asupplemented.events import BlobFinished, BlobStarted
from asupplemented.hashing import start_hash
from asupplemented.limits import CHUNK_MAX, MAX_BLOB, SMALL_BLOB
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from asupplemented.abc import BlobCandidate, Context
    from asupplemented.attempts import Attempt
    from asupplemented.hashing import RunningHash
    from asupplemented.model.descriptor import Descriptor

__all__ = ("VerifiedStream",)


class _State(enum.Enum):
    NEW = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


class VerifiedStream(BlobStream):
    """The verified bytes of a blob, or of a range of it, from the first candidate that answers.

    Blobs up to ``SMALL_BLOB`` are read whole and verified before their first byte is handed
    out, so that a candidate that lies is replaced by the next one. Larger ones are handed out
    as they come, all but the chunk with the last byte (rule BLOB-05).

    Args:
        descriptor: What to read. Its digest is checked at once; a size of None is unknown.
        candidates: Who may serve it, best first.
        context: The session.
        start: Offset of the first byte.
        end: Offset behind the last byte; None, or anything larger, is the end of the blob.

    Raises:
        InvalidDigestError: The descriptor has no valid digest.
        RangeError: The range ends before it starts, or starts before the blob.
    """

    __slots__ = (
        "__weakref__",
        "_attempt",
        "_busy",
        "_candidate",
        "_candidates",
        "_context",
        "_descriptor",
        "_digest",
        "_end",
        "_ended",
        "_failure",
        "_lent",
        "_pending",
        "_position",
        "_received",
        "_right",
        "_running",
        "_size",
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
    ) -> None:
        self._digest = Digest(descriptor.digest)
        self._descriptor = descriptor
        self._candidates = Candidates(candidates, context, self._digest)
        self._context = context
        self._size = descriptor.size
        self._start = start
        self._end = end
        if start < 0 or (end is not None and end < start):
            message = f"no range of bytes goes from {start} to {end}"
            raise RangeError(message, digest=self._digest)
        if end is not None and self._size is not None:
            self._end = min(end, self._size)
        self._state = _State.NEW
        self._busy = False
        self._attempt: Attempt | None = None
        self._candidate: BlobCandidate | None = None
        """Who serves, or served at last."""
        self._running: RunningHash | None = None
        self._failure: SupplementedError | None = None
        self._pending: deque[bytes] = deque()
        self._position = start
        """Offset behind the last byte that was fetched; what is pending comes before it."""
        self._received = 0
        self._right: bool | None = None
        """What verification said of all that was asked for; None until everything came."""
        self._ended = False
        """Everything was handed out."""
        self._lent = False
        """Somebody took the path of the file instead of reading."""

    # What is known

    @property
    def descriptor(self) -> Descriptor:
        return self._descriptor

    @property
    def size(self) -> int | None:
        return self._size

    @property
    def received(self) -> int:
        return self._received

    @property
    def member(self) -> int | None:
        return None if self._candidate is None else self._candidate.member

    @property
    def verified(self) -> bool | None:
        if self._ended:
            return self._right
        if self._lent and not self._received:
            return True
        return False if self._state is _State.CLOSED or self._failure is not None else None

    @property
    def path(self) -> Path | None:
        """A local file that this session verified before, and that has not changed since.

        It holds the whole blob and nothing else, and is valid until `aclose`. None where there
        is no such file, and for ranges. Whoever takes it need not read the stream.
        """
        if self._attempt is None or self._state is not _State.OPEN or not self._is_whole:
            return None
        path = self._attempt.path
        self._lent = self._lent or path is not None
        return path

    @property
    def _is_whole(self) -> bool:
        """Whether all of the blob was asked for, as far as one can tell."""
        if self._start != 0:
            return False
        return self._end is None or (self._size is not None and self._end >= self._size)

    # Opening

    async def __aenter__(self) -> Self:
        """Ask the candidates, in order, until one answers.

        Raises:
            UsageError: The stream was entered before; each reading takes a stream of its own.
            RangeError: The range starts behind the end of the blob.
            BlobNotFoundError: No candidate has the blob.
            SupplementedError: What the first candidate said that did not merely lack it.
        """
        if self._state is not _State.NEW:
            message = "a blob stream is entered once; call open_blob() again for another one"
            raise UsageError(message, digest=self._digest)
        self._state = _State.OPEN
        async with closing_on_error(lambda: (self,), "the blob"):
            await self._open()
        return self

    async def _open(self) -> None:
        if self._size is not None and self._start > self._size:
            message = f"the range starts at {self._start}, and the blob has {self._size} bytes"
            raise RangeError(message, digest=self._digest)
        nothing = self._start == (self._size if self._end is None else self._end)
        if nothing and not self._is_whole:
            self._right = False
        else:
            await self._open_next()

    async def _open_next(self) -> None:
        end = None if self._is_whole else self._end
        await self._use(
            await self._candidates.open_next(size=self._size, start=self._position, end=end)
        )

    async def _use(self, attempt: Attempt) -> None:
        self._attempt, self._candidate = attempt, attempt.candidate
        if self._size is None:
            self._size = attempt.size
        if self._is_whole and self._running is None:
            self._running = start_hash(self._context, self._digest)
        await attempt.begin(None if self._is_whole else self._end, self._running)
        if self._context.observed:
            reference, member = attempt.candidate.reference, attempt.candidate.member
            self._context.emit(BlobStarted(reference, self._digest, self._position, member))

    # Reading

    async def __anext__(self) -> bytes:
        self._check_readable()
        self._busy = True
        try:
            while self._right is None and not self._may_release():
                await self._fill()
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

    def _closed_error(self) -> ClosedError:
        message = "the blob stream has been closed; open the blob again"
        return ClosedError(message, digest=self._digest)

    def _break(self, failure: SupplementedError) -> None:
        self._failure = failure
        self._pending.clear()
        if isinstance(failure, SourceError) and failure.received is None:
            failure.received = self._position - self._start

    def _may_release(self) -> bool:
        """Whether there is a chunk that certainly does not hold the last byte of the blob."""
        if not self._pending:
            return False
        if self._running is None or len(self._pending) > 1:
            return True
        return self._size is not None and self._received + len(self._pending[0]) < self._size

    def _release(self) -> bytes:
        if not self._pending:
            self._ended = True
            raise StopAsyncIteration
        chunk = self._pending.popleft()
        self._received += len(chunk)
        self._ended = self._right is not None and not self._pending
        return chunk

    async def _fill(self) -> None:
        """Fetch more: all of a small blob, the next bytes of a large one."""
        small = self._running is not None and self._size is not None and self._size <= SMALL_BLOB
        try:
            await self._pull()
            while small and self._right is None:
                await self._pull()
        except UsageError:
            raise
        except SupplementedError as error:
            if not small:
                raise
            await self._replace(error)

    async def _replace(self, failure: SupplementedError) -> None:
        """Begin again with the next candidate; nothing has been handed out yet."""
        self._candidates.blame(failure)
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            try:
                await close_all((attempt,), "its source")
            except ExceptionGroup as group:
                failure.add_note(f"{group.message} failed as well: {group.exceptions}")
        if self._running is not None:
            self._running.discard()
            self._running = None
        self._pending.clear()
        self._position = 0
        self._size = self._descriptor.size
        await self._open_next()

    async def _pull(self) -> None:
        attempt = self._attempt
        if attempt is None:
            raise self._closed_error()
        with located(attempt.candidate, self._digest):
            block = await attempt.read()
            if self._state is _State.CLOSED:
                raise self._closed_error()
            if block:
                self._take(block)
            else:
                await self._complete(attempt)

    def _take(self, block: bytes) -> None:
        self._position += len(block)
        if self._size is None and self._position > MAX_BLOB:
            message = f"a blob of unknown size exceeded maximum allowed size of {MAX_BLOB} bytes"
            raise LimitExceededError(message, limit=MAX_BLOB)
        if self._size is not None and self._position > self._size:
            message = f"the blob is longer than the {self._size} bytes that were announced"
            raise SizeMismatchError(message, expected=self._size, actual=self._position)
        if len(block) <= CHUNK_MAX:
            self._pending.append(block)
        else:
            starts = range(0, len(block), CHUNK_MAX)
            self._pending.extend(block[at : at + CHUNK_MAX] for at in starts)

    async def _complete(self, attempt: Attempt) -> None:
        """The body has ended: see whether it is what it should be."""
        due = self._due
        if due is not None and self._position < due:
            received = self._position - self._start
            message = f"the body ended after {received} of {due - self._start} bytes"
            raise TruncatedError(message, received=received)
        if self._running is None:
            self._right = attempt.trusted
            return
        actual = await self._running.finish()
        if actual != self._digest:
            message = f"the content of the blob has the digest {actual}"
            suspects = () if attempt.candidate.member is None else (attempt.candidate.member,)
            raise DigestMismatchError(message, actual=actual, suspects=suspects)
        self._right, self._running, self._size = True, None, self._position
        attempt.confirm()

    @property
    def _due(self) -> int | None:
        """Offset at which the body has to end, None if nobody knows."""
        if self._size is None:
            return None
        return self._size if self._end is None else min(self._end, self._size)

    async def read_all(self, limit: int) -> bytes:
        self._check_readable()
        due = self._due
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
        self._candidates.forget()
        if self._running is not None:
            self._running.discard()
        attempt, self._attempt = self._attempt, None
        try:
            if attempt is not None:
                await close_all((attempt,), f"blob {self._digest}")
        finally:
            self._tell_end()

    def _tell_end(self) -> None:
        if self._candidate is None or not self._context.observed:
            return
        self._context.emit(
            BlobFinished(
                reference=self._candidate.reference,
                digest=self._digest,
                start=self._start,
                received=self._received,
                member=self.member,
                verified=self.verified is True and self._is_whole,
                error=None if self._failure is None else type(self._failure).__name__,
            )
        )

    def __del__(self) -> None:
        if getattr(self, "_state", None) is _State.OPEN:
            message = f"unclosed {self!r}; use it with 'async with', or await its aclose()"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        return f"<VerifiedStream of {self._digest}, {self._state.name.lower()}>"
