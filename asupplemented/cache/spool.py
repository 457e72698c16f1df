"""Spools: blobs in the making, written by one fetch and followed by any number of readers.

What came last stays in memory for a while. A reader that keeps up is served from there, without
a hop to a thread; who is further behind reads the file.
"""

from __future__ import annotations

import os
import tempfile
import threading
import warnings
from collections import deque
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asupplemented.abc import Spool
from asupplemented.errors import ClosedError, SupplementedError, TruncatedError, UsageError
from asupplemented.files import map_os_error, run_blocking, run_opening
from asupplemented.limits import BLOCK, KIB, SMALL_BLOB
from asupplemented.retry import CLOCK, Clock
from asupplemented.staging import map_write_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asupplemented.abc import Context

__all__ = ("FileSpool", "MemorySpool", "SpoolFile", "TemporarySpool", "make_spool")

RECENT: Final = BLOCK
"""Bytes that stay in memory for readers who keep up."""

WRITE: Final = 256 * KIB
"""Bytes that are worth the hop to a thread that writes them."""

MAX_CHUNKS: Final = 64
"""Chunks that are kept apart in memory: a source that sends single bytes fills no more."""


def make_spool(context: Context, size: int | None, directory: str | Path | None = None) -> Spool:
    """A spool for a blob that nobody keeps. Nothing is opened before it is needed.

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
        """Do nothing: nobody keeps what is in memory."""

    async def aclose(self) -> None:
        self._data = None

    def _open_data(self) -> bytearray:
        if self._data is None:
            raise _closed()
        return self._data


class SpoolFile:
    """A file that is read while it grows. Blocking; every method may be called from any thread.

    Closing never waits: what another thread does with the file ends first, and then closes it.

    Args:
        fd: The open file, for reading and writing; it belongs to the spool file from now on.
        path: Its name, for messages; it may be gone.
    """

    __slots__ = ("_closed", "_fd", "_lock", "_users", "path")

    def __init__(self, fd: int, path: Path) -> None:
        self.path = path
        self._fd = fd
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False

    @classmethod
    def temporary(cls, directory: str | Path | None = None) -> SpoolFile:
        """A file without a name, gone when it is closed.

        Args:
            directory: Where its bytes lie, None for the system's directory for such files.

        Raises:
            SourceError: See `asupplemented.staging.map_write_errors`.
        """
        with map_write_errors(Path(directory or "the directory for temporary files")):
            fd, name = tempfile.mkstemp(dir=directory)
            try:
                os.unlink(name)  # noqa: PTH108 - a name from the system is a string
            except BaseException:
                os.close(fd)
                raise
        return cls(fd, Path(name))

    def write(self, start: int, data: bytes) -> None:
        """Write all of `data`, from `start` on. On a failure, some of it may be there.

        Raises:
            SourceError: See `asupplemented.staging.map_write_errors`.
        """
        with self.use() as fd, map_write_errors(self.path):
            view = memoryview(data)
            while view and fd is not None:
                written = os.pwrite(fd, view, start)
                start += written
                view = view[written:]

    def read(self, start: int, size: int) -> bytes:
        """Read up to `size` bytes from `start` on; none behind the end, or if it is closed.

        Raises:
            SourceError: The disk failed.
        """
        with self.use() as fd:
            try:
                return b"" if fd is None else os.pread(fd, size, start)
            except OSError as error:
                raise map_os_error(error, self.path) from error

    @contextmanager
    def use(self) -> Generator[int | None]:
        """The file descriptor, kept open meanwhile; None if the file is closed."""
        with self._lock:
            usable = not self._closed
            self._users += usable
        try:
            yield self._fd if usable else None
        finally:
            with self._lock:
                self._users -= usable
                last = usable and self._closed and not self._users
            if last:
                self._close()

    def close(self) -> None:
        """Close the file, at once or after what is running. May be called again."""
        with self._lock:
            closing = not self._closed and not self._users
            self._closed = True
        if closing:
            self._close()

    def _close(self) -> None:
        with suppress(OSError):  # What a disk says only now concerns a file that is dropped.
            os.close(self._fd)

    def __del__(self) -> None:
        self.close()


class FileSpool(Spool):
    """A spool in a file that is made when there is enough to be written.

    Bytes are written in batches. A write that fails takes only the newest chunk with it: what
    was appended before it stays readable, in memory if need be.

    Args:
        context: The session, in whose threads the file is written and read.
        opener: Makes the file; blocking, called in a thread.
        delay: Seconds after which the next chunk is written even if it is small, so that
            others see the file grow; None if nobody else looks at it.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_context",
        "_delay",
        "_end",
        "_file",
        "_opener",
        "_tail",
        "_tail_start",
        "_written",
        "_wrote_at",
    )

    def __init__(
        self,
        context: Context,
        opener: Callable[[], SpoolFile],
        *,
        delay: float | None = None,
    ) -> None:
        self._context = context
        self._opener = opener
        self._delay = delay
        self._file: SpoolFile | None = None
        self._closed = False
        self._end = 0
        self._written = 0
        """Offset behind the last byte that is surely in the file; a chunk ends there."""
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
            # The thread may be writing it still, so that it counts: nothing else may ever be
            # written at this place.
            self._end += len(chunk)
            raise
        self._end += len(chunk)

    async def read(self, start: int, size: int) -> bytes:
        self._check_open()
        _check_start(start, self._end)
        if start >= self._tail_start:
            return self._read_tail(start, size)
        length = min(size, self._tail_start - start)
        data = b""
        if self._file is not None:
            data = await run_blocking(self._context, self._file.read, start, length)
        if not data:
            self._check_open()
            message = "the file of a blob in the making became shorter; somebody else cut it off"
            raise TruncatedError(message)
        return data

    async def commit(self) -> None:
        """Do nothing: nobody keeps this file."""

    async def aclose(self) -> None:
        self._closed = True
        self._tail.clear()
        if self._file is not None:
            self._file.close()

    # Writing

    def _is_due(self, size: int) -> bool:
        waiting = self._end + size - self._written
        late = self._delay is not None and self._now() - self._wrote_at >= self._delay
        return late or waiting >= WRITE or len(self._tail) >= MAX_CHUNKS

    async def _flush(self) -> None:
        """Write what is not written. May be repeated: the same bytes go to the same place."""
        file = await self._open()
        chunks = self._unwritten()
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        await run_blocking(self._context, file.write, self._written, data)
        self._check_open()
        self._written += len(data)
        self._wrote_at = self._now()
        self._trim()

    async def _open(self) -> SpoolFile:
        if self._file is None:
            file = await run_opening(self._context, self._opener, SpoolFile.close)
            if self._closed:
                file.close()
            self._file = file
        self._check_open()
        return self._file

    def _unwritten(self) -> list[bytes]:
        position = self._tail_start
        chunks: list[bytes] = []
        for chunk in self._tail:
            if position >= self._written:
                chunks.append(chunk)
            position += len(chunk)
        return chunks

    def _trim(self) -> None:
        """Let go of what need not stay in memory."""
        size = self._written - self._tail_start
        while size > RECENT or len(self._tail) > MAX_CHUNKS // 2:
            dropped = len(self._tail.popleft())
            self._tail_start += dropped
            size -= dropped

    # Reading

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

    def _now(self) -> float:
        return self._context.resource(CLOCK, Clock).now()

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None and not self._closed:
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
        super().__init__(context, partial(SpoolFile.temporary, directory))


def _check_start(start: int, length: int) -> None:
    if not 0 <= start < length:
        message = f"a spool of {length} bytes has none at {start}; wait until there are more"
        raise UsageError(message)


def _closed() -> ClosedError:
    return ClosedError("the spool of a blob was closed; open the blob again")
