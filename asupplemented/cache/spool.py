"""Spools: blobs in the making, written by one fetch and followed by any number of readers.

The newest bytes stay in memory for a while. A reader that keeps up is served from there, without a
hop to a thread. A reader that is further behind reads the file.
"""

from __future__ import annotations

import warnings
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from asupplemented.abc import Spool
from asupplemented.aio.files import SharedFile
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.aio.threads import WORKERS, Workers, run_blocking, run_closing, run_opening
from asupplemented.errors import (
    ClosedError,
    SourceError,
    SupplementedError,
    TruncatedError,
    UsageError,
)
from asupplemented.limits import BLOCK, KIB, SMALL_BLOB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from asupplemented.abc import Context

__all__ = ("FileSpool", "MemorySpool", "TemporarySpool", "make_spool")

RECENT: Final = BLOCK
"""Bytes that stay in memory for readers that keep up."""

WRITE: Final = BLOCK
"""Bytes that are written at once: a hop to a thread takes longer than to write 100 KiB."""

FEW: Final = 4
"""Files that are written or read at the same time in large batches; else these get smaller."""

SMALL_WRITE: Final = 256 * KIB
"""A batch when there are many files, which share the memory, or when other processes read it."""

MAX_CHUNKS: Final = 64
"""Chunks that are kept in memory, so that a source of single bytes does not fill it."""


def make_spool(context: Context, size: int | None, directory: str | Path | None = None) -> Spool:
    """A spool for a blob that no cache keeps. Nothing is opened before it is needed.

    Args:
        context: The session, in whose threads files are written and read.
        size: Bytes of the blob, None if unknown. Up to ``SMALL_BLOB`` it stays in memory.
        directory: Where larger blobs lie, None for the system's directory for such files.
    """
    if size is not None and size <= SMALL_BLOB:
        return MemorySpool()
    return TemporarySpool(context, directory)


class MemorySpool(Spool):
    """A spool in memory, for blobs that are known to be small."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data: bytearray | None = bytearray()

    @property
    def length(self) -> int:
        return 0 if self._data is None else len(self._data)

    async def append(self, chunk: bytes) -> None:
        self._open_data().extend(chunk)

    async def read(self, start: int, size: int) -> bytes:
        data = self._open_data()
        _check_start(start, len(data))
        return bytes(memoryview(data)[start : start + size])

    async def commit(self) -> None:
        """Do nothing: the blob is not kept."""

    async def aclose(self) -> None:
        self._data = None

    def _open_data(self) -> bytearray:
        if self._data is None:
            raise _closed()
        return self._data


class FileSpool(Spool):
    """A spool in a file that is made when there is enough to be written.

    Bytes are written in batches. If a file cannot be written any more, the rest goes to the next
    file. A write that fails in all files loses only the newest chunk: what was appended before it
    stays readable, in memory if need be.

    Args:
        context: The session, in whose threads the files are written and read.
        *openers: Each makes a file; blocking, called in a thread, in order.
        delay: Seconds after which the next chunk is written even if it is small, so that
            other processes see the file grow; None if none reads it, and batches may be larger.
    """

    __slots__ = (
        "__weakref__",
        "_batch",
        "_closed",
        "_context",
        "_delay",
        "_end",
        "_now",
        "_openers",
        "_parts",
        "_tail",
        "_tail_start",
        "_workers",
        "_written",
        "_wrote_at",
    )

    def __init__(
        self,
        context: Context,
        *openers: Callable[[], SharedFile],
        delay: float | None = None,
    ) -> None:
        self._context = context
        self._openers = deque(openers)
        self._workers = context.resource(WORKERS, Workers)
        few = self._workers.add_reader() <= FEW
        self._batch = WRITE if few and delay is None else SMALL_WRITE
        self._delay = delay
        self._parts: list[tuple[int, SharedFile]] = []
        """The files, each with the offset at which it begins."""
        self._closed = False
        self._end = 0
        self._written = 0
        """Offset behind the last byte that is surely in the file; a chunk ends there."""
        self._now = context.resource(CLOCK, Clock).now
        self._wrote_at = self._now()
        self._tail: deque[bytes] = deque()
        """The newest chunks: those that are not written, and some that are."""
        self._tail_start = 0

    @property
    def length(self) -> int:
        return self._end

    async def append(self, chunk: bytes) -> None:
        self._check_open()
        self._tail.append(chunk)
        try:
            if self._is_due(len(chunk)):
                await self._flush()
        except SupplementedError:
            if not self._closed:
                self._tail.pop()
            raise
        except BaseException:
            # Cancelled, and the thread may still be writing the chunk. So it counts, and no other
            # bytes are ever written at its place.
            self._end += len(chunk)
            raise
        self._end += len(chunk)

    async def read(self, start: int, size: int) -> bytes:
        self._check_open()
        _check_start(start, self._end)
        if start >= self._tail_start:
            return self._read_tail(start, size)
        file, offset, length = self._locate(start, min(size, self._tail_start - start))
        data = await run_blocking(self._context, file.read, offset, length)
        if not data:
            self._check_open()
            message = (
                "another program truncated the file of a blob that is being fetched; "
                "open the blob again"
            )
            raise TruncatedError(message)
        return data

    async def commit(self) -> None:
        """Do nothing: the blob is not kept."""

    async def aclose(self) -> None:
        if not self._closed:
            self._workers.remove_reader()
        self._closed = True
        self._tail.clear()
        if self._parts:
            await run_closing(self._context, self._close_files)

    def _close_files(self) -> None:
        # In a thread, because freeing a large file takes a while.
        for _, file in self._parts:
            file.close()

    # Writing

    def _is_due(self, size: int) -> bool:
        waiting = self._end + size - self._written
        late = self._delay is not None and self._now() - self._wrote_at >= self._delay
        return late or waiting >= self._batch or len(self._tail) >= MAX_CHUNKS

    async def _flush(self) -> None:
        """Write what is not written. May be repeated: the same bytes go to the same place."""
        if not self._parts:
            await self._open_next()
        while True:
            try:
                await self._write(self._unwritten())
            except SourceError as error:
                if not self._openers:
                    raise
                await self._move_on(error)
            else:
                return

    async def _move_on(self, error: SourceError) -> None:  # noqa: ARG002 - for subclasses
        """Go on in the next file, because the last one failed."""
        await self._open_next()

    async def _open_next(self) -> None:
        file = await run_opening(self._context, self._openers[0], SharedFile.close)
        self._openers.popleft()
        self._parts.append((self._written, file))
        if self._closed:
            file.close()
        self._check_open()

    async def _write(self, chunks: Sequence[bytes]) -> None:
        begin, file = self._parts[-1]
        await run_blocking(self._context, file.write, self._written - begin, *chunks)
        self._check_open()
        self._written += sum(map(len, chunks))
        self._wrote_at = self._now()
        self._trim()

    def _unwritten(self) -> Sequence[bytes]:
        position = self._tail_start
        chunks: list[bytes] = []
        for chunk in self._tail:
            if position >= self._written:
                chunks.append(chunk)
            position += len(chunk)
        return chunks

    def _trim(self) -> None:
        """Drop chunks that are written and need not stay in memory."""
        size = self._written - self._tail_start
        while size > RECENT or len(self._tail) > MAX_CHUNKS // 2:
            dropped = len(self._tail.popleft())
            self._tail_start += dropped
            size -= dropped

    # Reading

    def _locate(self, start: int, size: int) -> tuple[SharedFile, int, int]:
        """Which file holds what was written at `start`, where, and how much of it at most."""
        end = start + size
        for begin, file in reversed(self._parts):
            if begin <= start:
                return file, start - begin, end - start
            end = min(end, begin)
        raise _closed()

    def _read_tail(self, start: int, size: int) -> bytes:
        position = self._tail_start
        for chunk in self._tail:
            if start < position + len(chunk):
                return chunk[start - position : start - position + size]
            position += len(chunk)
        raise _closed()

    def _check_open(self) -> None:
        if self._closed:
            raise _closed()

    def __del__(self) -> None:
        if getattr(self, "_parts", None) and not self._closed:
            message = f"unclosed {self!r}; await its aclose()"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<{type(self).__name__} of {self._end} bytes, {state}>"


class TemporarySpool(FileSpool):
    """A spool in a file without a name, gone when it is closed.

    Args:
        context: See `FileSpool`.
        directory: Where its bytes lie, None for the system's directory for such files.
    """

    __slots__ = ()

    def __init__(self, context: Context, directory: str | Path | None = None) -> None:
        super().__init__(context, partial(SharedFile.temporary, directory))


def _check_start(start: int, length: int) -> None:
    if not 0 <= start < length:
        message = f"a spool of {length} bytes has none at {start}; wait until there are more"
        raise UsageError(message)


def _closed() -> ClosedError:
    return ClosedError("the spool of a blob was closed; open the blob again")
