"""Files, read off the event loop.

A hop to a thread costs about as much as reading 200 KiB, so work goes there in pieces that are
worth it: a whole batch of small files, or a block of a large one. The threads are the
session's own: those of the event loop are few, and names are looked up in them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from asupplemented.abc import AsyncResource, BlobFile, ResourceKey
from asupplemented.errors import (
    AccessError,
    BlobNotFoundError,
    LayoutError,
    LimitExceededError,
    NetworkError,
    NotFoundError,
    RangeError,
    SourceError,
    SourceTimeoutError,
    TruncatedError,
)
from asupplemented.limits import BLOCK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Self

    from asupplemented.abc import Context
    from asupplemented.errors import SupplementedError

__all__ = (
    "WORKERS",
    "BlockReader",
    "FileBlob",
    "Workers",
    "map_os_error",
    "open_blob_file",
    "open_regular",
    "read_limited",
    "run_blocking",
    "run_opening",
    "usable_cores",
)

P = ParamSpec("P")
T = TypeVar("T")

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""A FIFO opens at once instead of waiting for a writer, a terminal takes nobody over (DI7)."""

_MISSHAPEN: Final = frozenset((errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENXIO))


# Threads


def usable_cores() -> int:
    """Cores that this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


class Workers(AsyncResource):
    """The threads of a session for blocking work: two for each core, 2 to 8 in all."""

    __slots__ = ("_executor", "_running")

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(
            min(8, 2 * usable_cores()), thread_name_prefix="asupplemented-files"
        )
        self._running: set[Future[object]] = set()

    def submit(self, func: Callable[[], T]) -> Future[T]:
        """Start a call in a thread.

        Raises:
            RuntimeError: The workers are closed.
        """
        future = self._executor.submit(func)
        return future

    async def aclose(self) -> None:
        """Wait for what is running, and end the threads. What has not begun never will."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._executor.shutdown)


WORKERS: Final = ResourceKey["Workers"]("threads for files")


async def run_blocking(
    context: Context, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a function in a worker thread.

    When the caller is cancelled, a call that has begun runs to its end, and its result is
    dropped: for results that must be released there is `run_opening`.

    Args:
        context: The session, whose threads are used.
        func: What to call.
        *args: Its arguments.
        **kwargs: Its keyword arguments.

    Raises:
        ClosedError: The session is closed.
    """
    workers = context.resource(WORKERS, Workers)
    return await asyncio.wrap_future(workers.submit(partial(func, *args, **kwargs)))


async def run_opening(context: Context, func: Callable[[], T], release: Callable[[T], object]) -> T:
    """Call a function in a worker thread that returns something to be released.

    Args:
        context: The session, whose threads are used.
        func: Opens something.
        release: Called with what arrives when the caller has been cancelled meanwhile, in any
            thread.

    Raises:
        ClosedError: The session is closed.
    """
    future = context.resource(WORKERS, Workers).submit(func)

    def drop(done: Future[T]) -> None:
        if not done.cancelled() and done.exception() is None:
            release(done.result())

    try:
        return await asyncio.wrap_future(future)
    except BaseException:
        # Also when it was delivered, but the caller was cancelled before it could take it.
        future.add_done_callback(drop)
        raise


# Opening


def map_os_error(error: OSError | EOFError, what: object) -> SourceError:
    """The error of this library that says what an exception of the standard library says.

    Args:
        error: What was raised.
        what: What was read, for the message.
    """
    reason = (os.strerror(error.errno) if isinstance(error, OSError) and error.errno else None) or (
        str(error) or type(error).__name__
    )
    message = f"cannot read {what}: {reason}"
    match error:
        case TimeoutError():
            return SourceTimeoutError(message)
        case PermissionError():
            return AccessError(f"{message}; check its permissions")
        case ConnectionError():
            return NetworkError(message)
        case EOFError():
            return TruncatedError(message)
        case _ if error.errno in _MISSHAPEN:
            return LayoutError(message)
        case _:
            return SourceError(message)


def open_regular(
    path: str | Path,
    *,
    missing: Callable[[str], SupplementedError] = NotFoundError,
    follow: bool = True,
) -> int:
    """Open a regular file for reading, and nothing else (rule DI7). Blocking, but never waits.

    Args:
        path: The file.
        missing: Makes the error for a file that is not there.
        follow: Whether the last part of the path may be a symbolic link.

    Returns:
        The file descriptor, to be closed by the caller.

    Raises:
        SupplementedError: What `missing` made.
        AccessError: No permission.
        LayoutError: It is a directory, FIFO, device or socket, or a link where none may be.
        SourceError: It cannot be opened for another reason.
    """
    fd, _ = _open(path, missing, follow=follow)
    return fd


def _open(
    path: str | Path, missing: Callable[[str], SupplementedError], *, follow: bool
) -> tuple[int, os.stat_result]:
    try:
        fd = os.open(path, _FLAGS if follow else _FLAGS | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise missing(f"there is no file {path}") from error
    except OSError as error:
        raise map_os_error(error, path) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            message = f"{path} is not a regular file"
            raise LayoutError(message)
    except BaseException:
        os.close(fd)
        raise
    return fd, status


def read_limited(
    path: str | Path,
    limit: int,
    *,
    missing: Callable[[str], SupplementedError] = NotFoundError,
    follow: bool = True,
) -> bytes:
    """Read a small file whole. Blocking.

    Args:
        path: A regular file.
        limit: The most bytes to accept (rules L1, L3).
        missing: Makes the error for a file that is not there.
        follow: See `open_regular`.

    Raises:
        LimitExceededError: It has more than `limit` bytes.
        SupplementedError: See `open_regular`.
    """
    fd, status = _open(path, missing, follow=follow)
    try:
        data = os.read(fd, min(status.st_size, limit) + 1)
        while len(data) <= limit and (more := os.read(fd, limit + 1 - len(data))):
            data += more
    except OSError as error:
        raise map_os_error(error, path) from error
    finally:
        os.close(fd)
    if len(data) > limit:
        message = f"{path} exceeded maximum allowed size of {limit} bytes"
        raise LimitExceededError(message, limit=limit)
    return data


def open_blob_file(
    path: Path,
    *,
    missing: Callable[[str], SupplementedError] = BlobNotFoundError,
    follow: bool = True,
) -> BlobFile:
    """Open a file that is one blob, as a `LocalFile` adapter has to. Blocking.

    Raises:
        SupplementedError: See `open_regular`.
    """
    fd, status = _open(path, missing, follow=follow)
    return BlobFile(fd, path, 0, status.st_size, partial(os.close, fd))


# Reading


class BlockReader:
    """Reads a blob's file by position, from any thread, until it is closed.

    Closing never waits: a read in another thread ends first and then closes the file, so that
    no read ever meets a descriptor that means another file by now.
    """

    __slots__ = ("_closed", "_lock", "_reads", "file")

    def __init__(self, file: BlobFile) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._reads = 0
        self._closed = False

    def read(self, start: int, length: int) -> bytes:
        """Read up to `length` bytes of the blob. Blocking.

        Args:
            start: Offset within the blob.
            length: The most bytes to read.

        Returns:
            Fewer bytes only where the file has ended, none if the reader is closed.

        Raises:
            SourceError: The file cannot be read.
        """
        with self._lock:
            if self._closed:
                return b""
            self._reads += 1
        try:
            return os.pread(self.file.fd, length, self.file.offset + start)
        except OSError as error:
            raise map_os_error(error, self.file.path) from error
        finally:
            with self._lock:
                self._reads -= 1
                last = self._closed and not self._reads
            if last:
                self.file.close()

    def close(self) -> None:
        """Close the file, at once or after the reads that are running."""
        with self._lock:
            closing = not self._closed and not self._reads
            self._closed = True
        if closing:
            self.file.close()


class FileBlob:
    """``[start, end)`` of a blob in a local file, as a `RawBlob`.

    Args:
        context: The session, in whose threads the file is read.
        opener: Opens the file; blocking, called in a thread.
        start: Offset of the first byte.
        end: Offset behind the last byte; None is the end of the blob.
    """

    __slots__ = ("_context", "_end", "_opener", "_position", "_reader", "_start")

    def __init__(
        self,
        context: Context,
        opener: Callable[[], BlobFile],
        start: int = 0,
        end: int | None = None,
    ) -> None:
        self._context = context
        self._opener = opener
        self._start = self._position = start
        self._end = end
        self._reader: BlockReader | None = None

    @property
    def start(self) -> int:
        return self._start

    @property
    def size(self) -> int | None:
        return None if self._reader is None else self._reader.file.size

    @property
    def etag(self) -> str | None:
        return None

    async def __aenter__(self) -> Self:
        file = await run_opening(self._context, self._opener, lambda late: late.close())
        if self._start > file.size:
            file.close()
            message = f"the range starts at {self._start}, and {file.path} has {file.size} bytes"
            raise RangeError(message)
        self._reader = BlockReader(file)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._reader is not None:
            self._reader.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        reader = self._reader
        if reader is None:
            raise StopAsyncIteration
        end = reader.file.size if self._end is None else min(self._end, reader.file.size)
        length = min(BLOCK, end - self._position)
        if length <= 0:
            raise StopAsyncIteration
        block = await run_blocking(self._context, reader.read, self._position, length)
        if not block:
            raise StopAsyncIteration
        self._position += len(block)
        return block
