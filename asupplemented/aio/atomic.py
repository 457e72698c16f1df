"""Writing files so that no reader ever sees half of one.

A file is written under a name that no reader looks at, in the directory tree where it will live,
and renamed when it is whole. What a killed process leaves behind has such a name, too. The next
writer removes it, unless it is locked: a file in the making is locked by its writer.
"""

from __future__ import annotations

import os
import secrets
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from asupplemented.aio.files import SharedFile, map_write_errors
from asupplemented.aio.locks import is_at, lock_file
from asupplemented.aio.threads import run_blocking, run_closing, run_opening
from asupplemented.errors import LayoutError, UsageError
from asupplemented.limits import BLOCK

if TYPE_CHECKING:
    from asupplemented.abc import BlobStream, Context

__all__ = (
    "PREFIX",
    "StagedFile",
    "ingest",
    "make_directory",
    "remove_leftovers",
    "sync_directory",
    "write_file",
)

PREFIX: Final = ".asupplemented-"
"""How the names of files in the making begin; files with such names are removed as leftovers."""

_ATTEMPTS: Final = 100
"""Names to try; more than one is needed only while another process removes leftovers."""


class StagedFile(SharedFile):
    """A file in the making: published under its name, or gone when it is closed.

    Blocking; every method may be called from any thread.
    """

    __slots__ = ("_naming", "_staged")

    def __init__(self, fd: int, path: Path) -> None:
        super().__init__(fd, path)
        self._naming = threading.Lock()
        self._staged = True

    @classmethod
    def create(cls, directory: Path) -> Self:
        """Make the file.

        Args:
            directory: Where it lies until it is published: on the file system of its target.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        with map_write_errors(directory):
            return cls(*_create(directory))

    def sync(self) -> None:
        """Wait until the bytes are on the disk.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        with self.use() as fd, map_write_errors(self.path):
            if fd is not None:
                os.fsync(fd)

    def publish(self, target: Path, *, directory_mode: int = 0o777) -> bool:
        """Rename the file to its target, in place of what is there.

        Until the file is closed, a shared lock protects it: a cache does not evict it.

        Args:
            target: Its name from now on.
            directory_mode: Permissions, less the umask, of its directory if that has to be made.

        Returns:
            False if the file was closed or published before, and nothing was done.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`; then nothing was renamed.
        """
        with self._naming, self.use() as fd, map_write_errors(target):
            if fd is None or not self._staged:
                return False
            target.parent.mkdir(mode=directory_mode, parents=True, exist_ok=True)
            self.path.rename(target)
            self._staged = False
            with suppress(OSError):  # Without locks, its descriptor keeps it readable.
                lock_file(fd, shared=True)
            return True

    def close(self) -> None:
        """Close the file, and remove it unless it was published. May be called again."""
        # Not while another thread renames it, because the name could be removed after that.
        with self._naming:
            if self._staged:
                self._staged = False
                with suppress(OSError):
                    self.path.unlink()
        super().close()


async def ingest(
    context: Context,
    stream: BlobStream,
    target: Path,
    *,
    staging: Path,
    durable: bool = True,
) -> int:
    """Write an entered stream to its end, and publish the file when it is verified.

    Args:
        context: The session, whose threads write.
        stream: A whole blob, not a range of one. The stream verifies it.
        target: Where the file goes, in place of what is there.
        staging: A directory of the same file system.
        durable: Whether the bytes are on the disk before the file is published.

    Returns:
        Bytes written.

    Raises:
        UsageError: The stream ended without having verified a whole blob.
        SupplementedError: What the stream raises, and see
            `asupplemented.aio.files.map_write_errors`. On any error, and on cancellation,
            nothing of the blob stays.
    """
    staged = await run_opening(context, partial(StagedFile.create, staging), StagedFile.close)
    try:
        size = await _drain(context, stream, staged)
        _check_whole(stream)
        await run_blocking(context, _publish, staged, target, durable=durable)
    except BaseException:
        await run_closing(context, staged.close)
        raise
    return size


def write_file(target: Path, data: bytes, *, staging: Path, durable: bool = True) -> None:
    """Write a small file whole, in place of what is there. Blocking.

    Args:
        target: Where it goes; its directory is made if it is not there.
        data: All of it.
        staging: A directory of the same file system.
        durable: Whether the bytes are on the disk before the file is published.

    Raises:
        SourceError: See `asupplemented.aio.files.map_write_errors`; what was there before still
            is.
    """
    staged = StagedFile.create(staging)
    try:
        staged.write(0, data)
        _publish(staged, target, durable=durable)
    finally:
        staged.close()


def _publish(staged: StagedFile, target: Path, *, durable: bool) -> None:
    # Synced before it is renamed: otherwise a power failure may leave a name without bytes.
    if durable:
        staged.sync()
    staged.publish(target)
    staged.close()


def make_directory(path: Path, *, mode: int = 0o755) -> None:
    """Make a directory unless it is there; its parent is not made. Blocking.

    Args:
        path: Where.
        mode: Its permissions, less the umask, if it is made.

    Raises:
        SourceError: See `asupplemented.aio.files.map_write_errors`.
    """
    with map_write_errors(path):
        path.mkdir(mode=mode, exist_ok=True)


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk. Blocking.

    Raises:
        SourceError: See `asupplemented.aio.files.map_write_errors`.
    """
    with map_write_errors(path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def remove_leftovers(directory: Path) -> None:
    """Remove what killed writers left behind; files in the making stay. Blocking.

    Errors are ignored, because a file that stays does no harm.
    """
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _remove_unlocked(Path(entry.path))


def _create(directory: Path) -> tuple[int, Path]:
    for _ in range(_ATTEMPTS):
        path = directory / (PREFIX + secrets.token_hex(8))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        # Another process that removes leftovers may have locked or removed it before our lock.
        if _mark(fd) and is_at(fd, path):
            return fd, path
        os.close(fd)
    message = f"every file made in {directory} was taken away at once"
    raise LayoutError(message)


async def _drain(context: Context, stream: BlobStream, staged: StagedFile) -> int:
    """Write a stream to its end, in batches that are worth the hop to a thread."""
    batch: list[bytes] = []
    written = pending = 0
    async for chunk in stream:
        batch.append(chunk)
        pending += len(chunk)
        if pending >= BLOCK:
            await run_blocking(context, staged.write, written, *batch)
            written += pending
            batch, pending = [], 0
    if batch:
        await run_blocking(context, staged.write, written, *batch)
    return written + pending


def _check_whole(stream: BlobStream) -> None:
    if stream.verified is not True:
        message = "only a whole, verified blob can be written, not a range of one"
        raise UsageError(message, digest=stream.descriptor.digest)


def _mark(fd: int) -> bool:
    """Lock a file in the making; False if another process was faster."""
    try:
        return lock_file(fd)
    except OSError:
        return True  # A file system without locks: then no process can lock it to remove it.


def _remove_unlocked(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if lock_file(fd) and is_at(fd, path):
            path.unlink()
    finally:
        os.close(fd)
