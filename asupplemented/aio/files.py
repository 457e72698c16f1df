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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar, cast

import anyio

from asupplemented.abc import AsyncResource, ResourceKey
from asupplemented.errors import (
    ClosedError,
    LayoutError,
    LimitExceededError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    SourceError,
    SourceTimeoutError,
    TruncatedError,
)
from asupplemented.limits import OFFLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from asupplemented.abc import Context
    from asupplemented.errors import SupplementedError

__all__ = (
    "WORKERS",
    "Workers",
    "map_os_error",
    "open_regular",
    "open_with_status",
    "read_limited",
    "run_blocking",
    "run_by_size",
    "run_closing",
    "run_opening",
    "usable_cores",
)

P = ParamSpec("P")
T = TypeVar("T")

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""A FIFO opens at once instead of waiting for a writer, a terminal takes nobody over (DI-07)."""

MAX_WORKERS: Final = 8
"""Threads for files; more of them only wait for each other."""

_MISSHAPEN: Final = frozenset((errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENXIO))


# Threads


def usable_cores() -> int:
    """Cores that this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


class Workers(AsyncResource):
    """The threads of a session for blocking work: two for each core, 2 to 8 in all."""

    __slots__ = ("_executor", "_readers", "_running")

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(
            min(MAX_WORKERS, 2 * usable_cores()), thread_name_prefix="asupplemented-file"
        )
        self._running: set[Future[object]] = set()
        self._readers = 0

    def submit(self, func: Callable[[], T]) -> Future[T]:
        """Start a call in a thread. May be called from such a thread, too.

        Raises:
            ClosedError: The session is closed.
        """
        try:
            future = self._executor.submit(func)
        except RuntimeError as error:
            raise _closed() from error
        self._running.add(cast("Future[object]", future))
        future.add_done_callback(self._running.discard)
        return future

    @property
    def running(self) -> int:
        """Calls that have not ended, those that wait for a thread included."""
        return len(self._running)

    def enlist(self) -> int:
        """Count one more file that is read at length, and tell how many there are now."""
        self._readers += 1
        return self._readers

    def discharge(self) -> None:
        """Count one less."""
        self._readers -= 1

    async def run(self, func: Callable[[], T]) -> T:
        """Call a function in a thread and wait for it; see `run_blocking`.

        Raises:
            ClosedError: The session is closed.
        """
        return await _result(self.submit(func))

    async def aclose(self) -> None:
        """Wait for what is running, and end the threads. What has not begun never will."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        running = [asyncio.wrap_future(future) for future in tuple(self._running)]
        await asyncio.gather(*running, return_exceptions=True)
        self._executor.shutdown()  # Nothing runs any more, so this does not block.


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
    return await context.resource(WORKERS, Workers).run(partial(func, *args, **kwargs))


async def run_by_size(context: Context, size: int, func: Callable[[], T]) -> T:
    """Call a function that works on a document: in a thread if that is large.

    Args:
        context: The session, whose threads are used.
        size: Bytes of the document.
        func: What to call.
    """
    return await run_blocking(context, func) if size > OFFLOAD_BYTES else func()


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
        return await _result(future)
    except BaseException:
        # Also when it was delivered, but the caller was cancelled before it could take it.
        future.add_done_callback(drop)
        raise


async def run_closing(context: Context, func: Callable[[], object]) -> None:
    """Call a function that must be called, in a worker thread if there still is one.

    It is called even if the caller is cancelled, or the session is closed, before its turn
    comes; and it is waited for unless the caller is cancelled.

    Args:
        context: The session, whose threads are used.
        func: Releases something, and does not raise.
    """
    try:
        future = context.resource(WORKERS, Workers).submit(func)
    except ClosedError:
        func()
        return
    future.add_done_callback(lambda done: func() if done.cancelled() else None)
    with anyio.CancelScope(shield=True), suppress(ClosedError):
        await _result(future, lasting=True)


async def _result(future: Future[T], *, lasting: bool = False) -> T:
    """Wait for a call; if the caller is cancelled, it is not begun any more unless it lasts."""
    waiting = asyncio.wrap_future(future)
    try:
        return await (asyncio.shield(waiting) if lasting else waiting)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if future.cancelled() and task is not None and not task.cancelling():
            raise _closed() from error  # It was still waiting for a thread.
        raise


def _closed() -> ClosedError:
    return ClosedError("the session is closed, and reads no more files; make a new session")


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
            return PermissionDeniedError(f"{message}; check its permissions")
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
    """Open a regular file for reading, and nothing else (rule DI-07). Blocking, but never waits.

    Args:
        path: The file.
        missing: Makes the error for a file that is not there.
        follow: Whether the last part of the path may be a symbolic link.

    Returns:
        The file descriptor, to be closed by the caller.

    Raises:
        SupplementedError: What `missing` made.
        PermissionDeniedError: No permission.
        LayoutError: It is a directory, FIFO, device or socket, or a link where none may be.
        SourceError: It cannot be opened for another reason.
    """
    fd, _ = open_with_status(path, missing=missing, follow=follow)
    return fd


def open_with_status(
    path: str | Path,
    *,
    missing: Callable[[str], SupplementedError] = NotFoundError,
    follow: bool = True,
) -> tuple[int, os.stat_result]:
    """The same as `open_regular`, and what the operating system says about the open file."""
    try:
        fd = os.open(path, _FLAGS if follow else _FLAGS | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise missing(f"there is no file {path}") from error
    except OSError as error:
        raise map_os_error(error, path) from error
    try:
        return fd, _check_regular(fd, path)
    except BaseException:
        os.close(fd)
        raise


def _check_regular(fd: int, path: str | Path) -> os.stat_result:
    try:
        status = os.fstat(fd)
    except OSError as error:
        raise map_os_error(error, path) from error
    if not stat.S_ISREG(status.st_mode):
        message = f"{path} is not a regular file"
        raise LayoutError(message)
    return status


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
        limit: The most bytes to accept (rules L-01, L-03).
        missing: Makes the error for a file that is not there.
        follow: See `open_regular`.

    Raises:
        LimitExceededError: It has more than `limit` bytes.
        SupplementedError: See `open_regular`.
    """
    fd, status = open_with_status(path, missing=missing, follow=follow)
    try:
        data = os.read(fd, min(status.st_size, limit) + 1)
        if len(data) != status.st_size:  # Else that was the end: one call less for each file.
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
