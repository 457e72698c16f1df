"""Writing files so that nobody ever sees half of one.

A file is written under a name that no reader looks at, in the directory tree that it will live
in, and renamed into place when it is whole. What a killed process leaves behind has such a name
too; the next writer sweeps it away, told apart from a file in the making by its lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import threading
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asupplemented.aio.files import run_blocking, run_closing, run_opening
from asupplemented.errors import LayoutError, PermissionDeniedError, SourceError, UsageError
from asupplemented.limits import BLOCK

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from asupplemented.abc import BlobStream, Context

__all__ = (
    "PREFIX",
    "StagedFile",
    "create_staged",
    "drop_lock",
    "ingest",
    "is_at",
    "lock_file",
    "make_directory",
    "map_write_errors",
    "remove_leftovers",
    "sync_directory",
    "take_lock",
    "try_lock",
    "write_file",
)

PREFIX: Final = ".asupplemented-"
"""How the names of files in the making begin: what has such a name is ours to sweep."""

_REFUSED: Final = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_MISSHAPEN: Final = frozenset(
    (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    )
)
_LOCK_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ATTEMPTS: Final = 100
"""Names to try; more than one is needed only while another process sweeps."""


@contextmanager
def map_write_errors(path: Path) -> Generator[None]:
    """Turn what the operating system says about writing into errors of the library.

    Args:
        path: What is written, for the message.

    Raises:
        PermissionDeniedError: No permission, or a read-only file system.
        LayoutError: Something else is in the way: a file where a directory has to be.
        SourceError: The disk is full, or failed.
    """
    try:
        yield
    except SourceError:
        raise
    except OSError as error:
        raise _map(error, path) from error


def _map(error: OSError, path: Path) -> SourceError:
    message = f"cannot write {path}: {os.strerror(error.errno) if error.errno else error}"
    if error.errno in _REFUSED:
        return PermissionDeniedError(
            f"{message}; check its permissions, and whether it is mounted read-only"
        )
    if error.errno in _FULL:
        return SourceError(f"{message}; make room and try again, what is whole is kept")
    return LayoutError(message) if error.errno in _MISSHAPEN else SourceError(message)


class StagedFile:
    """A file in the making. Blocking; every method may be called from any thread.

    It ends with `publish` or `discard`, whichever comes first; after that, both do nothing, and
    a write in another thread has no effect.
    """

    __slots__ = ("_durable", "_fd", "_lock", "_path", "size")

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        """Make the file.

        Args:
            directory: Where it lies until it is published: on the file system of its target.
            durable: Whether `publish` waits until the bytes are on the disk.

        Raises:
            SourceError: See `map_write_errors`.
        """
        self._durable = durable
        self._lock = threading.Lock()
        self.size = 0
        """Bytes written so far."""
        with map_write_errors(directory):
            self._fd, self._path = create_staged(directory)

    @property
    def path(self) -> Path:
        """Where the file is until it is published."""
        return self._path

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append all of some chunks.

        Raises:
            SourceError: See `map_write_errors`.
        """
        with self._lock, map_write_errors(self._path):
            for chunk in chunks:
                view = memoryview(chunk)
                while view and self._fd >= 0:
                    written = os.write(self._fd, view)
                    self.size += written
                    view = view[written:]

    def publish(self, target: Path) -> None:
        """Put the file in its place, instead of what is there.

        The directory of `target` is made if it is not there.

        Raises:
            SourceError: See `map_write_errors`; the file is gone then.
        """
        try:
            with self._lock, map_write_errors(target):
                if self._fd >= 0:
                    if self._durable:
                        os.fsync(self._fd)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._path.rename(target)
                    self._close()
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the file, unless it was published. Never raises."""
        with self._lock:
            if self._fd >= 0:
                with suppress(OSError):
                    self._path.unlink()
                self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        with suppress(OSError):
            os.close(fd)


async def ingest(
    context: Context,
    stream: BlobStream,
    target: Path,
    *,
    staging: Path,
    durable: bool = True,
) -> int:
    """Write an entered stream to its end, and put the file in place when it is verified.

    Args:
        context: The session, whose threads write.
        stream: A whole blob, not a range of one; the stream is what verifies.
        target: Where the file goes, instead of what is there.
        staging: A directory of the same file system.
        durable: See `StagedFile`.

    Returns:
        Bytes written.

    Raises:
        UsageError: The stream ended without having verified a whole blob.
        SupplementedError: Whatever the stream raises, and see `map_write_errors`. On any error,
            and on cancellation, nothing of the blob stays.
    """
    make = partial(StagedFile, staging, durable=durable)
    staged = await run_opening(context, make, StagedFile.discard)
    try:
        await _drain(context, stream, staged)
        _check_whole(stream)
        await run_blocking(context, staged.publish, target)
    except BaseException:
        # In a thread, because a write that has begun in another one has to end first.
        await run_closing(context, staged.discard)
        raise
    return staged.size


def write_file(target: Path, data: bytes, *, staging: Path, durable: bool = True) -> None:
    """Write a small file whole, instead of what is there. Blocking.

    Args:
        target: Where it goes; its directory is made if it is not there.
        data: All of it.
        staging: A directory of the same file system.
        durable: See `StagedFile`.

    Raises:
        SourceError: See `map_write_errors`; what was there before still is.
    """
    staged = StagedFile(staging, durable=durable)
    try:
        staged.write((data,))
        staged.publish(target)
    finally:
        staged.discard()


def make_directory(path: Path, *, mode: int = 0o755) -> None:
    """Make a directory unless it is there; its parent is not made. Blocking.

    Args:
        path: Where.
        mode: Its permissions, less the umask, if it is made.

    Raises:
        SourceError: See `map_write_errors`.
    """
    with map_write_errors(path):
        path.mkdir(mode=mode, exist_ok=True)


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk. Blocking.

    Raises:
        SourceError: See `map_write_errors`.
    """
    with map_write_errors(path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def remove_leftovers(directory: Path) -> None:
    """Remove what killed writers left behind; files in the making stay. Blocking.

    It does what it can: a file that cannot be removed is in nobody's way.
    """
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _sweep(Path(entry.path))


@contextmanager
def try_lock(path: Path) -> Generator[bool]:
    """Hold an exclusive lock between processes and threads, or not. Blocking, but never waits.

    The lock is a file beside what it protects, and is gone when nobody holds it.

    Args:
        path: The file; nothing else may use this name.

    Yields:
        Whether the lock is held.

    Raises:
        SourceError: The file cannot be made or locked; see `map_write_errors`.
    """
    fd = take_lock(path)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            drop_lock(fd, path)


def take_lock(path: Path) -> int | None:
    """Take the lock that `try_lock` holds, for longer than a block lasts.

    Returns:
        The open file, to be given to `drop_lock`; None if somebody else holds the lock.

    Raises:
        SourceError: The file cannot be made or locked; see `map_write_errors`.
    """
    with map_write_errors(path):
        fd = os.open(path, _LOCK_FLAGS, 0o644)
        try:
            held = lock_file(fd) and is_at(fd, path)
        except BaseException:
            os.close(fd)
            raise
    if held:
        return fd
    os.close(fd)
    return None


def drop_lock(fd: int, path: Path) -> None:
    """Give back what `take_lock` took, and remove its file."""
    try:
        with suppress(OSError):
            path.unlink()
    finally:
        os.close(fd)


def create_staged(directory: Path) -> tuple[int, Path]:
    """Make a file under a name that no reader looks at, locked against being swept.

    Returns:
        The file, open for reading and writing, and its name; both belong to the caller.

    Raises:
        OSError: It cannot be made; see `map_write_errors`.
    """
    for _ in range(_ATTEMPTS):
        path = directory / (PREFIX + secrets.token_hex(8))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        if _mark(fd) and is_at(fd, path):
            return fd, path
        os.close(fd)
    message = f"every file made in {directory} was taken away at once"
    raise LayoutError(message)


def lock_file(fd: int, *, shared: bool = False) -> bool:
    """Lock an open file until it is closed. Blocking, but never waits.

    Args:
        fd: The open file. A lock that it holds already is changed.
        shared: Whether others may hold it, too.

    Returns:
        False if somebody else holds it.

    Raises:
        OSError: This file system has no locks.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(fd: int, path: Path) -> bool:
    """Whether the name still means the open file; it may be gone, or be another one's by now."""
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


async def _drain(context: Context, stream: BlobStream, staged: StagedFile) -> None:
    """Write what a stream gives, in batches that are worth the hop to a thread."""
    batch: list[bytes] = []
    pending = 0
    async for chunk in stream:
        batch.append(chunk)
        pending += len(chunk)
        if pending >= BLOCK:
            await run_blocking(context, staged.write, batch)
            batch, pending = [], 0
    if batch:
        await run_blocking(context, staged.write, batch)


def _check_whole(stream: BlobStream) -> None:
    if stream.verified is not True:
        message = "only a whole, verified blob can be written, not a range of one"
        raise UsageError(message, digest=stream.descriptor.digest)


def _mark(fd: int) -> bool:
    """Lock a file in the making; False if somebody was quicker."""
    try:
        return lock_file(fd)
    except OSError:
        return True  # A file system without locks: then nobody can lock it to sweep it either.


def _sweep(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if lock_file(fd) and is_at(fd, path):
            path.unlink()
    finally:
        os.close(fd)
