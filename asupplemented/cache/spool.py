"""Spools: blobs in the making, written by one fetch and followed by any number of readers.

Theory of operation
-------------------

The chunks of a blob are kept as they come, and a reader that keeps up is given the same objects: no
copy, and no hop to a thread. A `TemporarySpool` keeps all of them while the session has memory for
them (`SpoolMemory`). After that, and from the beginning where a cache wants the blob, they are
written to a file, and readers that are further behind read it.

Chunks that all readers have read are copied into large pages of memory, in
`TemporarySpool.read_by_all`, and the allocator reuses their own memory for the next chunks. If they
were kept, the kernel would clear 256 small pages for each MiB of new chunks, which takes five times
as long as to copy it. Until then all readers share the chunks. A later reader is given copies.

A thread writes behind the fetch, while the fetch receives and hashes the next chunks: `_Backlog`.
The fetch waits for it only if more than `BEHIND` bytes are not written. What is not written stays
in memory, so a write that fails loses nothing: it is repeated, this time with the fetch waiting,
and goes on in the next file if there is one.
"""

from __future__ import annotations

import mmap
import sys
import threading
import warnings
from bisect import bisect_right
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio

from asupplemented.abc import ResourceKey, Spool
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
from asupplemented.limits import BLOCK, KIB, MAX_SPOOLED, MIB, SMALL_BLOB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from asupplemented.abc import Context

__all__ = (
    "SPOOL_MEMORY",
    "FileSpool",
    "MemorySpool",
    "SpoolMemory",
    "TemporarySpool",
    "make_spool",
)

RECENT: Final = BLOCK
"""Written bytes that stay in memory for readers that keep up."""

WRITE: Final = BLOCK
"""Bytes that are written at once: a hop to a thread takes longer than to write 100 KiB."""

FEW: Final = 4
"""Files that are written or read at the same time in large batches; else these get smaller."""

SMALL_WRITE: Final = 256 * KIB
"""A batch when there are many files, which share the memory, or when other processes read it."""

BEHIND: Final = 4 * MIB
"""Bytes that a fetch may be ahead of the thread that writes them."""

MAX_CHUNKS: Final = 64
"""Chunks that are kept before they are written, so that a source of single bytes does not fill the
memory."""

MANY_CHUNKS: Final = 1024
"""The same while the memory of the session is used, and for what waits for the thread."""

TURN: Final = 8
"""Batches that a thread writes before other work has its turn."""

AREA: Final = 8 * MIB
"""Memory in large pages that is mapped at once. A spool that holds less does without, so that what
chunks of up to 1 MiB leave unused is small beside what it holds."""

_Stored: TypeAlias = bytes | memoryview
"""A chunk, or a copy of it that is never changed."""


class SpoolMemory:
    """The memory of a session for blobs that are shared while they are fetched.

    Args:
        free: Bytes that may be taken.
    """

    __slots__ = ("free",)

    def __init__(self, free: int = MAX_SPOOLED) -> None:
        self.free = free

    def take(self, size: int) -> bool:
        """Take bytes; False if there are not so many."""
        if size > self.free:
            return False
        self.free -= size
        return True

    def give(self, size: int) -> None:
        """Give bytes back."""
        self.free += size


SPOOL_MEMORY: Final = ResourceKey["SpoolMemory"]("memory for blobs that are fetched")


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

    def close_at_once(self) -> bool:
        """Close; see `close_all`."""
        self._data = None
        return True

    async def aclose(self) -> None:
        self._data = None

    def _open_data(self) -> bytearray:
        if self._data is None:
            raise _closed()
        return self._data


class _Backlog:
    """Chunks that a thread writes to a file, behind the fetch that hands them over.

    Args:
        workers: The threads.
        file: The file.
        begin: Offset in the blob of its first byte.
        written: Offset behind the last byte that is surely written.

    Attributes:
        written: The same offset, moved on by the thread after each write.
        failure: Why the thread gave up; chunks that it has not written are never written by it.
        job: The call of the thread, None if it has written everything, or has given up.
    """

    __slots__ = ("_begin", "_chunks", "_lock", "_workers", "failure", "file", "job", "written")

    def __init__(self, workers: Workers, file: SharedFile, begin: int, written: int) -> None:
        self.file = file
        self.written = written
        self.failure: Exception | None = None
        self.job: Future[None] | None = None
        self._begin = begin
        self._chunks: deque[_Stored] = deque()
        self._lock = threading.Lock()
        self._workers = workers

    def put(self, chunks: Sequence[_Stored]) -> None:
        """Hand chunks over.

        Raises:
            ClosedError: The session is closed.
        """
        with self._lock:
            if self.failure is None:
                self._chunks.extend(chunks)
                if self.job is None:
                    self.job = self._workers.submit(self._drain)

    async def settle(self) -> None:
        """Wait until the thread has written everything, or has given up.

        Raises:
            ClosedError: The session is closed.
        """
        while (job := self.job) is not None:
            await self._workers.wait(job)

    def _drain(self) -> None:
        """Write the chunks, also those that are put meanwhile, for a turn. In a thread."""
        try:
            for _ in range(TURN):
                chunks = self._take()
                if not chunks:
                    return
                self.file.write(self.written - self._begin, *chunks)
                self.written += sum(map(len, chunks))
            with self._lock:
                self.job = self._workers.submit(self._drain)
        except Exception as error:  # noqa: BLE001 - the fetch repeats the write, and raises it
            with self._lock:
                self.failure, self.job = error, None

    def _take(self) -> list[_Stored]:
        """The chunks to write next; none ends the call of the thread."""
        chunks: list[_Stored] = []
        size = 0
        with self._lock:
            while self._chunks and size < WRITE:
                chunks.append(self._chunks.popleft())
                size += len(chunks[-1])
            if not chunks:
                self.job = None
        return chunks


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
        "_backlog",
        "_batch",
        "_closed",
        "_context",
        "_delay",
        "_end",
        "_handed",
        "_now",
        "_openers",
        "_parts",
        "_starts",
        "_tail",
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
        self._backlog: _Backlog | None = None
        self._closed = False
        self._end = 0
        self._written = 0
        """Offset behind the last byte that is surely in the file; a chunk ends there."""
        self._handed = 0
        """Offset behind the last byte that was handed to the backlog."""
        self._now = context.resource(CLOCK, Clock).now
        self._wrote_at = self._now()
        self._tail: deque[_Stored] = deque()
        """The newest chunks: those that are not written, and some that are."""
        self._starts: deque[int] = deque()
        """The offset of each of them."""

    @property
    def length(self) -> int:
        return self._end

    async def append(self, chunk: bytes) -> None:
        self._check_open()
        self._tail.append(chunk)
        self._starts.append(self._end)
        try:
            if self._is_due(len(chunk)):
                await self._write_behind(len(chunk))
        except SupplementedError:
            if not self._closed:
                self._tail.pop()
                self._starts.pop()
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
        tail_start = self._tail_start
        if start >= tail_start:
            return self._read_tail(start, size)
        file, offset, length = self._locate(start, min(size, tail_start - start))
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

    def _drop(self) -> None:
        """Forget what is in memory; nothing is read or appended after that."""
        if not self._closed:
            self._workers.remove_reader()
        self._closed = True
        self._tail.clear()
        self._starts.clear()

    async def aclose(self) -> None:
        self._drop()
        if self._parts:
            await run_closing(self._context, self._close_files)
        if self._backlog is not None:  # It ends with the write that is running: the file is closed.
            with anyio.CancelScope(shield=True), suppress(ClosedError):
                await self._backlog.settle()

    def _close_files(self) -> None:
        # In a thread, because freeing a large file takes a while.
        for _, file in self._parts:
            file.close()

    # Writing

    def _is_due(self, size: int) -> bool:
        waiting = self._end + size - self._handed
        late = self._delay is not None and self._now() - self._wrote_at >= self._delay
        return late or waiting >= self._batch or len(self._tail) >= MAX_CHUNKS

    @property
    def _allowance(self) -> int:
        """Bytes that may be in memory without being written."""
        return BEHIND

    async def _write_behind(self, size: int) -> None:
        """Hand over what is not written; wait if it is too much, after a failure, or if late.

        Args:
            size: Bytes of the newest chunk.
        """
        self._note_progress()
        backlog, waiting = self._backlog, self._end + size - self._handed
        if not self._parts:
            await self._open_next()
        elif backlog is not None and backlog.failure is not None:
            await self._flush()
            return
        if waiting < self._batch and len(self._tail) < MAX_CHUNKS:
            await self._flush()  # it is late, so other processes wait for it
            return
        self._hand_over()
        unwritten = self._end + size - self._written
        if unwritten > self._allowance or len(self._tail) > MANY_CHUNKS:
            await self._flush()

    def _hand_over(self) -> None:
        begin, file = self._parts[-1]
        if self._backlog is None or self._backlog.file is not file:
            self._backlog = _Backlog(self._workers, file, begin, self._written)
        self._backlog.put(self._list_chunks(self._handed))
        self._handed = self._starts[-1] + len(self._tail[-1])

    def _note_progress(self) -> None:
        """Take note of what the thread has written."""
        backlog = self._backlog
        if backlog is not None and backlog.written > self._written:
            self._written = backlog.written
            self._wrote_at = self._now()
            self._trim()

    async def _settle_backlog(self) -> None:
        """Wait until the thread has written its backlog, or has failed."""
        if self._backlog is not None:
            await self._backlog.settle()
        self._check_open()
        self._note_progress()
        self._backlog = None
        self._handed = self._written

    async def _flush(self) -> None:
        """Write what is not written. May be repeated: the same bytes go to the same place."""
        await self._settle_backlog()
        if not self._parts:
            await self._open_next()
        while chunks := self._list_chunks(self._written):
            try:
                await self._write(chunks)
            except SourceError as error:
                if not self._openers:
                    raise
                await self._move_on(error)

    async def _move_on(self, error: SourceError) -> None:  # noqa: ARG002 - for subclasses
        """Go on in the next file, because the last one failed."""
        await self._open_next()

    async def _open_next(self) -> None:
        await self._settle_backlog()
        file = await run_opening(self._context, self._openers[0], SharedFile.close)
        self._openers.popleft()
        self._parts.append((self._written, file))
        if self._closed:
            file.close()
        self._check_open()

    async def _write(self, chunks: Sequence[_Stored]) -> None:
        begin, file = self._parts[-1]
        await run_blocking(self._context, file.write, self._written - begin, *chunks)
        self._check_open()
        self._written += sum(map(len, chunks))
        self._handed = self._written
        self._wrote_at = self._now()
        self._trim()

    def _list_chunks(self, position: int) -> Sequence[_Stored]:
        """The chunks from an offset on, which is the beginning of one or the end of all."""
        first = bisect_right(self._starts, position - 1)
        return tuple(islice(self._tail, first, None))

    def _trim(self) -> None:
        """Drop chunks that are written and need not stay in memory."""
        size = self._written - self._tail_start
        while size > RECENT or (size > 0 and len(self._tail) > MAX_CHUNKS // 2):
            size -= len(self._tail.popleft())
            self._starts.popleft()

    # Reading

    @property
    def _tail_start(self) -> int:
        """Offset of the first byte that is in memory."""
        return self._starts[0] if self._starts else self._end

    def _locate(self, start: int, size: int) -> tuple[SharedFile, int, int]:
        """Which file holds what was written at `start`, where, and how much of it at most."""
        end = start + size
        for begin, file in reversed(self._parts):
            if begin <= start:
                return file, start - begin, end - start
            end = min(end, begin)
        raise _closed()

    def _read_tail(self, start: int, size: int) -> bytes:
        number = bisect_right(self._starts, start) - 1
        offset = start - self._starts[number]
        return bytes(self._tail[number][offset : offset + size])  # of all of a chunk: itself

    def _check_open(self) -> None:
        if self._closed:
            raise _closed()

    def __del__(self) -> None:
        if getattr(self, "_end", 0) and not self._closed:
            message = f"unclosed {self!r}; await its aclose()"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<{type(self).__name__} of {self._end} bytes, {state}>"


class TemporarySpool(FileSpool):
    """A spool in memory, as long as the session has some, then in a file without a name.

    Args:
        context: See `FileSpool`.
        directory: Where the file lies, None for the system's directory for such files.
    """

    __slots__ = ("_area", "_copied", "_held", "_memory")

    def __init__(self, context: Context, directory: str | Path | None = None) -> None:
        super().__init__(context, partial(SharedFile.temporary, directory))
        self._memory = context.resource(SPOOL_MEMORY, SpoolMemory)
        self._held = 0
        """Bytes of the session's memory that it has."""
        self._area = memoryview(b"")
        """Memory for copies that is not used yet."""
        self._copied = 0
        """Chunks that were copied, the oldest ones."""

    def _is_due(self, size: int) -> bool:
        if self._parts or len(self._tail) > MANY_CHUNKS or not self._memory.take(size):
            return super()._is_due(size)
        self._held += size
        return False

    @property
    def _allowance(self) -> int:
        return self._held + BEHIND

    def _trim(self) -> None:
        super()._trim()
        if self._end - self._written <= BEHIND:
            self._give_back()

    def _give_back(self) -> None:
        held, self._held = self._held, 0
        self._memory.give(held)

    def close_at_once(self) -> bool:
        """Close, if there is no file; see `close_all`."""
        if self._parts or self._backlog is not None:
            return False
        self._area = memoryview(b"")
        self._give_back()
        self._drop()
        return True

    def read_by_all(self, position: int) -> None:
        if self._parts or self._held < AREA:
            return
        while self._copied < len(self._tail):
            chunk = self._tail[self._copied]
            size = len(chunk)
            if self._starts[self._copied] + size > position:
                return
            if size > len(self._area):
                area = _map_area(max(size, AREA))
                if area is None:
                    return
                self._area = area
            copy, self._area = self._area[:size], self._area[size:]
            copy[:] = chunk
            self._tail[self._copied] = copy.toreadonly()
            self._copied += 1

    async def aclose(self) -> None:
        self._area = memoryview(b"")
        self._give_back()
        await super().aclose()


def _map_area(size: int) -> memoryview | None:
    """Memory in large pages, unmapped with its last view; None where there is none."""
    if sys.platform != "linux":
        return None
    try:
        area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        area.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # A kernel without them, or a limit of memory: chunks are kept as they came.
        return None
    return memoryview(area)


def _check_start(start: int, length: int) -> None:
    if not 0 <= start < length:
        message = f"a spool of {length} bytes has none at {start}; wait until there are more"
        raise UsageError(message)


def _closed() -> ClosedError:
    return ClosedError("the spool of a blob was closed; open the blob again")
