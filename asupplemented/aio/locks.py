"""Locks between processes, made of files, and waiting for one.

A lock is a ``flock`` on an open file, so the operating system releases it when its process dies.
A lock file is removed by the process that releases it. Another process may have opened it before
that and locks a file that has no name any more, so holding a lock means two things: the file is
locked, and its name still stands for it.

Trying never waits. `retry_while_locked` is the one loop that does, on the event loop and with the
clock of the session.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

from asupplemented.aio.files import map_write_errors
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.aio.threads import run_blocking
from asupplemented.errors import SourceTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from asupplemented.abc import Context

__all__ = (
    "LOCK_FILE",
    "LockBusy",
    "acquire_lock",
    "call_locked",
    "is_at",
    "lock_file",
    "release_lock",
    "retry_while_locked",
    "try_lock",
)

T = TypeVar("T")

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

LOCK_FILE: Final = ".asupplemented.lock"
"""The name of the lock file of a directory."""

_LOCK_PATIENCE: Final = 60.0
"""Seconds to try to get a lock; what is done under one takes milliseconds."""

_PAUSE: Final = 0.005
"""Seconds between two attempts; the work under these locks takes about as long."""


class LockBusy(Exception):  # noqa: N818 - not an error: try again a little later
    """Another process or thread holds a lock."""


async def call_locked(context: Context, path: Path, func: Callable[[], T]) -> T:
    """Call a function in a thread while a lock is held.

    Args:
        context: The session, whose threads and clock are used.
        path: The lock file.
        func: What to call.

    Raises:
        SourceTimeoutError: Another process held the lock for a minute.
        SourceError: See `try_lock`.
    """

    def call() -> T:
        with try_lock(path) as held:
            if not held:
                raise LockBusy
            return func()

    return await retry_while_locked(context, path, call)


async def retry_while_locked(
    context: Context, path: Path, func: Callable[[], T], *, patience: float = _LOCK_PATIENCE
) -> T:
    """Call a function in a thread, and again while it finds a lock held elsewhere.

    Args:
        context: The session, whose threads and clock are used.
        path: What is locked, for the message.
        func: Raises `LockBusy` having done nothing that cannot be done again.
        patience: Seconds to try for.

    Raises:
        SourceTimeoutError: The lock was not released within `patience`.
    """
    clock = context.resource(CLOCK, Clock)
    deadline = clock.now() + patience
    while True:
        try:
            return await run_blocking(context, func)
        except LockBusy as error:
            if clock.now() >= deadline:
                message = (
                    f"{path} has been locked by another process for {patience:g} s; end that "
                    "process if it hangs, or try again later"
                )
                raise SourceTimeoutError(message) from error
        # A random pause, so that processes that wait do not come back together.
        await clock.sleep(_PAUSE * (1 + clock.random()))


@contextmanager
def try_lock(path: Path) -> Generator[bool]:
    """Hold an exclusive lock between processes and threads, or not. Blocking, but never waits.

    Args:
        path: The lock file, beside what it protects; nothing else may use this name.

    Yields:
        Whether the lock is held.

    Raises:
        SourceError: The file cannot be made or locked; see
            `asupplemented.aio.files.map_write_errors`.
    """
    fd = acquire_lock(path)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            release_lock(fd, path)


def acquire_lock(path: Path) -> int | None:
    """Take the lock that `try_lock` holds, for longer than a block lasts.

    Returns:
        The open file, to be given to `release_lock`; None if the lock is held elsewhere.

    Raises:
        SourceError: The file cannot be made or locked; see
            `asupplemented.aio.files.map_write_errors`.
    """
    with map_write_errors(path):
        fd = os.open(path, _FLAGS, 0o600)  # A user that can open it could hold the lock for ever.
        try:
            held = lock_file(fd) and is_at(fd, path)
        except BaseException:  # an interrupt, too, must not leak the fd
            os.close(fd)
            raise
    if held:
        return fd
    os.close(fd)
    return None


def release_lock(fd: int, path: Path) -> None:
    """Release what `acquire_lock` took, and remove its file."""
    # Removed while it is locked: afterwards the name may stand for another process's lock.
    try:
        with suppress(OSError):
            path.unlink()
    finally:
        os.close(fd)


def lock_file(fd: int, *, shared: bool = False) -> bool:
    """Lock an open file until it is closed. Blocking, but never waits.

    Args:
        fd: The open file. A lock that it holds already is changed.
        shared: Whether other open files may share the lock.

    Returns:
        False if the lock is held elsewhere.

    Raises:
        OSError: This file system has no locks.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(fd: int, path: str | Path, *, dir_fd: int | None = None) -> bool:
    """Whether a path still names an open file; the name may be gone or belong to another file.

    Args:
        fd: The open file.
        path: The path, from `dir_fd` on if that is given.
        dir_fd: An open directory.
    """
    try:
        there = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)
