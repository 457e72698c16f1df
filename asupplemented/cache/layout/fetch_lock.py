"""Which process fetches a blob into a cache, and reading along with it. Blocking.

The process that holds the lock on the lock file of a blob fetches it, and writes the name of its
file in the making there. Other processes read that file while it grows. If the lock is free and the
blob is not there, the process that held it is gone, and the next process to take the lock fetches
instead. What another process wrote is never trusted: each reader verifies it.
"""

from __future__ import annotations

import enum
import os
import re
import threading
from typing import TYPE_CHECKING, Final

from asupplemented.aio.atomic import PREFIX, StagedFile
from asupplemented.aio.files import SharedFile, map_write_errors, open_regular, read_limited
from asupplemented.aio.locks import acquire_lock, release_lock
from asupplemented.blobs.blob_file import share_blob_file
from asupplemented.errors import NotFoundError, SupplementedError
from asupplemented.limits import BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asupplemented.abc import BlobFile

__all__ = ("FetchLock", "FollowState", "FollowedFile", "read_name")

MAX_NAME: Final = 64

_ATTEMPTS: Final = 100
"""More than a process needs that only removes leftovers, and holds each lock for a moment."""

_NAME: Final = re.compile(re.escape(PREFIX) + "[0-9a-f]{16}")


class FetchLock:
    """One fetch of a blob by this process: its file in the making, and the lock if it is held.

    Methods may be called from any thread.

    Args:
        ingest: Where files in the making lie.
        path: The lock file of the blob.
    """

    __slots__ = ("_closed", "_fd", "_lock", "_path", "file")

    def __init__(self, ingest: Path, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._closed = False
        self.file = StagedFile.create(ingest)

    @property
    def held(self) -> bool:
        """Whether this process holds the lock, and so is the one that fetches."""
        return self._fd is not None

    def acquire(self) -> bool:
        """Take the lock, unless another process fetches the blob; gives whether it is held.

        A process that removes leftovers holds the lock of each lock file for a moment, and then
        removes the file. It writes no name there, and a process that fetches does.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        for _ in range(_ATTEMPTS):
            if self.try_acquire() or read_name(self._path) is not None:
                break
            os.sched_yield()
        return self.held

    def try_acquire(self) -> bool:
        """Take the lock if it is free; gives whether it is held now.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        with self._lock:
            if self._closed:
                return False
            if self._fd is None:
                self._fd = acquire_lock(self._path)
                if self._fd is not None:
                    self._write_name(self._fd)
            return self._fd is not None

    def _write_name(self, fd: int) -> None:
        with map_write_errors(self._path):
            os.ftruncate(fd, 0)
            os.pwrite(fd, self.file.path.name.encode("ascii"), 0)

    def release(self) -> None:
        """Release the lock if it is held. May be called again."""
        with self._lock:
            self._release()

    def _release(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            release_lock(fd, self._path)

    def close(self) -> None:
        """End the fetch: release the lock, and close the file. May be called again."""
        with self._lock:
            self._closed = True
            self._release()
        self.file.close()

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.close()


class FollowState(enum.Enum):
    """What a look at the fetch of another process gives, if not bytes."""

    WAIT = enum.auto()
    """There is nothing new."""
    CHANGED = enum.auto()
    """Another process has taken over: look again."""
    END = enum.auto()
    """The blob is whole, and was read to its end."""
    GONE = enum.auto()
    """The other process is gone, and this process holds the lock now."""


class FollowedFile:
    """What other processes have fetched of one blob so far.

    One thread at a time looks; another one may close it.

    Args:
        fetch_lock: The fetch of this process, which takes the lock when it is free.
        path: The lock file of the blob.
        ingest: Where files in the making lie.
        find_whole: Opens the whole blob, if it is there and this principal may have it.
    """

    __slots__ = (
        "_closed",
        "_fetch_lock",
        "_find_whole",
        "_ingest",
        "_lock",
        "_name",
        "_path",
        "_reader",
    )

    def __init__(
        self,
        fetch_lock: FetchLock,
        path: Path,
        ingest: Path,
        find_whole: Callable[[], BlobFile | None],
    ) -> None:
        self._fetch_lock = fetch_lock
        self._path = path
        self._ingest = ingest
        self._find_whole: Callable[[], BlobFile | None] | None = find_whole
        self._lock = threading.Lock()
        self._closed = False
        self._name: str | None = None
        self._reader: SharedFile | None = None

    def look(self, position: int) -> bytes | FollowState:
        """The bytes from a position on, or why there are none.

        Raises:
            SupplementedError: A file cannot be read.
        """
        data = b"" if self._reader is None else self._reader.read(position, BLOCK)
        if data:
            return data
        if self._find_whole is None or self._closed:
            return FollowState.END
        return self._look_around(position)

    def _look_around(self, position: int) -> bytes | FollowState:
        if self._fetch_lock.held:
            return FollowState.GONE
        if self._open_whole():
            return self.look(position)
        if self._open_staged():
            return FollowState.CHANGED
        if not self._fetch_lock.try_acquire():
            return FollowState.WAIT
        # The lock is free, because the other process added the blob since, or died.
        if self._open_whole():
            self._fetch_lock.release()
            return self.look(position)
        return FollowState.GONE

    def close(self) -> None:
        """Close the file that is being read. May be called again."""
        with self._lock:
            self._closed = True
            reader = self._reader
        if reader is not None:
            reader.close()

    def _open_whole(self) -> bool:
        """Go on in the whole blob, if it is there."""
        file = None if self._find_whole is None else self._find_whole()
        if file is None:
            return False
        self._find_whole = None
        self._go_on_in(share_blob_file(file))
        return True

    def _open_staged(self) -> bool:
        """Go on in the file that the lock file names, if that is another one than before."""
        name = read_name(self._path)
        if name is None or name == self._name:
            return False
        path = self._ingest / name
        try:
            fd, _ = open_regular(path, follow=False)
        except NotFoundError:
            return False
        self._name = name
        self._go_on_in(SharedFile(fd, path))
        return True

    def _go_on_in(self, reader: SharedFile) -> None:
        with self._lock:
            before, self._reader = self._reader, reader
            closed = self._closed
        if before is not None:
            before.close()
        if closed:
            reader.close()


def read_name(path: Path) -> str | None:
    """The file in the making that a lock file names, None if it names none. Blocking."""
    try:
        raw = read_limited(path, MAX_NAME, follow=False)
    except SupplementedError:
        return None
    name = raw.decode("ascii", "replace")
    return name if _NAME.fullmatch(name) else None
