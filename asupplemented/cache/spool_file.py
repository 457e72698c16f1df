"""The file of a spool: written and read by position, from any thread, until it is closed."""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from asupplemented.aio.atomic import create_staged, lock_file, map_write_errors
from asupplemented.aio.files import map_os_error
from asupplemented.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("IngestFile", "SpoolFile")


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
    def temporary(cls, directory: str | Path | None = None) -> Self:
        """A file without a name, gone when it is closed.

        Args:
            directory: Where its bytes lie, None for the system's directory for such files.

        Raises:
            SourceError: See `asupplemented.aio.atomic.map_write_errors`.
        """
        with map_write_errors(Path(directory or "the directory for temporary files")):
            fd, name = tempfile.mkstemp(dir=directory)
            try:
                os.unlink(name)  # noqa: PTH108 - a name from the system is a string
            except BaseException:
                os.close(fd)
                raise
        return cls(fd, Path(name))

    def write(self, start: int, *chunks: bytes) -> None:
        """Write all chunks, one behind the other, from `start` on.

        On a failure, some of it may be there.

        Raises:
            ClosedError: The file was closed.
            SourceError: See `asupplemented.aio.atomic.map_write_errors`.
        """
        with self.use() as fd, map_write_errors(self.path):
            if fd is None:
                message = "the file of a spool was closed; open the blob again"
                raise ClosedError(message)
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
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


class IngestFile(SpoolFile):
    """A file in the making that becomes a blob, or is gone when it is closed.

    It is locked as long as it is in the making: what lies there without a lock was left behind
    by a process that died.
    """

    __slots__ = ("_named", "_naming")

    def __init__(self, fd: int, path: Path) -> None:
        super().__init__(fd, path)
        self._naming = threading.Lock()
        self._named = True

    @classmethod
    def create(cls, directory: Path) -> Self:
        """Make the file in a directory.

        Raises:
            SourceError: See `asupplemented.aio.atomic.map_write_errors`.
        """
        with map_write_errors(directory):
            return cls(*create_staged(directory))

    def sync(self) -> None:
        """Wait until the bytes are on the disk.

        Raises:
            SourceError: See `asupplemented.aio.atomic.map_write_errors`.
        """
        with self.use() as fd, map_write_errors(self.path):
            if fd is not None:
                os.fsync(fd)

    def publish(self, target: Path) -> bool:
        """Put the file in its place, and protect it from eviction until it is closed.

        The directory of `target` is made if it is not there, for others to read and not to write.

        Returns:
            False if the file was closed before, and nothing was done.

        Raises:
            SourceError: See `asupplemented.aio.atomic.map_write_errors`.
        """
        with self._naming, self.use() as fd, map_write_errors(target):
            if fd is None or not self._named:
                return False
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self.path.rename(target)
            self._named = False
            with suppress(OSError):  # Without locks, who reads it keeps it by its descriptor.
                lock_file(fd, shared=True)
            return True

    def close(self) -> None:
        """Close the file, and remove it unless it was published. May be called again."""
        with self._naming:
            if self._named:
                self._named = False
                with suppress(OSError):
                    self.path.unlink()
        super().close()
