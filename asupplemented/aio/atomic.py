"""Writing files so that no reader ever sees half of one.

A file is written under a name that no reader looks at, in the directory tree where it will live,
and renamed when it is whole. What a killed process leaves behind has such a name, too. The next
writer removes it, unless it is locked: a file in the making is locked by its writer.
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from asupplemented.aio.beneath import open_directory
from asupplemented.aio.files import SharedFile, map_write_errors
from asupplemented.aio.locks import is_at, lock_file
from asupplemented.errors import LayoutError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = (
    "PREFIX",
    "StagedFile",
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

    Args:
        fd: The open file.
        path: Its name until it is published.
        root: See `create`.
    """

    __slots__ = ("_naming", "_root", "_staged")

    def __init__(self, fd: int, path: Path, root: Path | None = None) -> None:
        super().__init__(fd, path)
        self._root = root
        self._naming = threading.Lock()
        self._staged = True

    @classmethod
    def create(cls, directory: Path, *, root: Path | None = None) -> Self:
        """Make the file.

        Args:
            directory: Where it lies until it is published: on the file system of its target.
            root: A directory above `directory` and the target, or `directory` itself, that is made
                if it is not there. Below it, directories are made as well, and no link is
                followed. None if `directory` has to be there, and links are followed.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        with map_write_errors(directory):
            return cls(*_create(directory, root), root)

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
            if self._root is None:
                target.parent.mkdir(mode=directory_mode, parents=True, exist_ok=True)
            make = None if self._root is None else directory_mode
            with (
                open_directory(self.path.parent, root=self._root) as source,
                open_directory(target.parent, root=self._root, make=make) as destination,
            ):
                os.rename(self.path.name, target.name, src_dir_fd=source, dst_dir_fd=destination)
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


def write_file(
    target: Path, data: bytes, *, staging: Path, root: Path | None = None, durable: bool = True
) -> None:
    """Write a small file whole, in place of what is there. Blocking.

    Args:
        target: Where it goes; its directory is made if it is not there.
        data: All of it.
        staging: A directory of the same file system.
        root: See `StagedFile.create`.
        durable: Whether the bytes are on the disk before the file is published.

    Raises:
        SourceError: See `asupplemented.aio.files.map_write_errors`; what was there before still
            is.
    """
    staged = StagedFile.create(staging, root=root)
    try:
        staged.write(0, data)
        if durable:  # Otherwise a power failure may leave a name without bytes.
            staged.sync()
        staged.publish(target)
    finally:
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
        for _ in range(_ATTEMPTS):
            try:
                path.mkdir(mode=mode)
            except FileExistsError:
                if path.is_dir():
                    return
                if os.path.lexists(path):
                    raise
                continue  # Another writer, which wrote nothing, has just removed it.
            return


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


def remove_leftovers(directory: Path, *, root: Path | None = None) -> None:
    """Remove what killed writers left behind; files in the making stay. Blocking.

    Errors are ignored, because a file that stays does no harm.

    Args:
        directory: Where such files lie.
        root: A directory above it, below which no link is followed; None for itself.
    """
    with suppress(OSError), open_directory(directory, root=root) as fd:
        for name in _list_names(fd):
            if name.startswith(PREFIX):
                with suppress(OSError):
                    _remove_unlocked(name, fd)


def _list_names(directory: int) -> list[str]:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.listdir(fd)  # noqa: PTH208 - of an open directory
    finally:
        os.close(fd)


def _create(directory: Path, root: Path | None) -> tuple[int, Path]:
    for _ in range(_ATTEMPTS):
        name = PREFIX + secrets.token_hex(8)
        try:
            fd = _try_create(name, directory, root)
        except FileNotFoundError:
            if root is None or not os.access(root.parent, os.F_OK):
                raise
            continue  # Another writer, which wrote nothing, has just removed the directory.
        if fd is not None:
            return fd, directory / name
    message = f"every file made in {directory} was taken away at once"
    raise LayoutError(message)


def _try_create(name: str, directory: Path, root: Path | None) -> int | None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open_directory(directory, root=root, make=None if root is None else 0o755) as above:
        fd = os.open(name, flags, 0o644, dir_fd=above)
        # Another process that removes leftovers may have locked or removed it before our lock.
        if _mark(fd) and is_at(fd, name, dir_fd=above):
            return fd
        os.close(fd)
        return None


def _mark(fd: int) -> bool:
    """Lock a file in the making; False if another process was faster."""
    try:
        return lock_file(fd)
    except OSError:
        return True  # A file system without locks: then no process can lock it to remove it.


def _remove_unlocked(name: str, directory: int) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory)
    try:
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        if regular and lock_file(fd) and is_at(fd, name, dir_fd=directory):
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(fd)
