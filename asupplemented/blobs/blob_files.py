"""Blobs in local files: opened as what they are, and read by position.

A file that is being read in a thread is closed by that thread, not under its feet.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from asupplemented.abc import BlobFile
from asupplemented.aio.files import map_os_error, open_with_status
from asupplemented.errors import BlobNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from asupplemented.errors import SupplementedError

__all__ = ("BlockReader", "FileIdentity", "open_blob_file")


def open_blob_file(
    path: Path,
    *,
    missing: Callable[[str], SupplementedError] = BlobNotFoundError,
    follow: bool = True,
) -> BlobFile:
    """Open a file that is one blob, as a `LocalFile` adapter has to. Blocking.

    Raises:
        SupplementedError: See `asupplemented.aio.files.open_regular`.
    """
    fd, status = open_with_status(path, missing=missing, follow=follow)
    return BlobFile(fd, path, 0, status.st_size, partial(os.close, fd))


class FileIdentity(NamedTuple):
    """Which file it is, and everything that changes when its content does."""

    device: int
    inode: int
    size: int
    modified: int
    """Nanoseconds since the epoch."""
    changed: int
    """The same, of the inode; nobody can set it at will."""

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        """The identity of a file by its status."""
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


class BlockReader:
    """Reads a blob's file by position, from any thread, until it is closed.

    Closing never waits: a read in another thread ends first and then closes the file, so that
    no read ever meets a descriptor that means another file by now.
    """

    __slots__ = ("_closed", "_lock", "_users", "file")

    def __init__(self, file: BlobFile) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._users = 0
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
        with self._open() as usable:
            return os.pread(self.file.fd, length, self.file.offset + start) if usable else b""

    def identify(self) -> FileIdentity | None:
        """What the file is, and in which state; None if the reader is closed. Blocking.

        Raises:
            SourceError: The operating system does not say.
        """
        with self._open() as usable:
            return FileIdentity.of(os.fstat(self.file.fd)) if usable else None

    def close(self) -> None:
        """Close the file, at once or after the reads that are running. May be called again."""
        with self._lock:
            closing = not self._closed and not self._users
            self._closed = True
        if closing:
            self.file.close()

    def __del__(self) -> None:
        self.close()

    @contextmanager
    def _open(self) -> Generator[bool]:
        """Keep the file open; gives whether it is."""
        with self._lock:
            usable = not self._closed
            self._users += usable
        try:
            yield usable
        except OSError as error:
            raise map_os_error(error, self.file.path) from error
        finally:
            with self._lock:
                self._users -= usable
                last = usable and self._closed and not self._users
            if last:
                self.file.close()
