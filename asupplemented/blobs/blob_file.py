"""Blobs in local files: how one is opened, and how a change of its content shows."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from asupplemented.abc import BlobFile
from asupplemented.aio.files import SharedFile, open_regular
from asupplemented.aio.threads import run_blocking, run_opening
from asupplemented.errors import BlobNotFoundError, RangeError
from asupplemented.limits import BLOCK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from asupplemented.abc import Context
    from asupplemented.errors import SupplementedError

__all__ = ("FileBlob", "FileIdentity", "identify", "open_blob_file", "share_blob_file")


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
    fd, status = open_regular(path, missing=missing, follow=follow)
    return BlobFile(fd, path, 0, status.st_size, partial(os.close, fd))


class FileIdentity(NamedTuple):
    """Which file it is, and everything about it that changes with its content."""

    device: int
    inode: int
    size: int
    modified: int
    """Nanoseconds since the epoch."""
    changed: int
    """The same, of the inode; no program can set it at will."""

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        """The identity of a file by its status."""
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


def share_blob_file(file: BlobFile) -> SharedFile:
    """A blob's file for several threads; positions count from the first byte of the blob."""
    return SharedFile(file.fd, file.path, offset=file.offset, close=file.close)


def identify(file: SharedFile) -> FileIdentity | None:
    """The identity of a file now, None if it is closed. Blocking.

    Raises:
        SourceError: The operating system does not tell.
    """
    status = file.status()
    return None if status is None else FileIdentity.of(status)


class FileBlob:
    """``[start, end)`` of a blob in a local file, as a `RawBlob`.

    Args:
        context: The session, in whose threads the file is read.
        opener: Opens the file; blocking, called in a thread.
        start: Offset of the first byte.
        end: Offset behind the last byte; None is the end of the blob.
    """

    __slots__ = ("_context", "_end", "_file", "_opener", "_position", "_reader", "_start")

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
        self._file: BlobFile | None = None
        self._reader: SharedFile | None = None

    @property
    def start(self) -> int:
        return self._start

    @property
    def size(self) -> int | None:
        return None if self._file is None else self._file.size

    @property
    def etag(self) -> str | None:
        return None

    async def __aenter__(self) -> Self:
        file = await run_opening(self._context, self._opener, lambda late: late.close())
        if self._start > file.size:
            file.close()
            message = f"the range starts at {self._start}, and {file.path} has {file.size} bytes"
            raise RangeError(message)
        self._file = file
        self._reader = share_blob_file(file)
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
        reader, file = self._reader, self._file
        if reader is None or file is None:
            raise StopAsyncIteration
        end = file.size if self._end is None else min(self._end, file.size)
        length = min(BLOCK, end - self._position)
        if length <= 0:
            raise StopAsyncIteration
        block = await run_blocking(self._context, reader.read, self._position, length)
        if not block:
            raise StopAsyncIteration
        self._position += len(block)
        return block
