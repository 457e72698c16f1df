"""Blobs in local files: how one is opened, and how a change of its content shows."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from asupplemented.abc import BlobFile
from asupplemented.aio.files import SharedFile, map_os_error, open_regular
from asupplemented.errors import BlobNotFoundError
from asupplemented.limits import BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asupplemented.errors import SupplementedError
    from asupplemented.model.digest import Digest

__all__ = ("FileIdentity", "identify", "matches", "open_blob_file", "share_blob_file")


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


def matches(fd: int, digest: Digest) -> bool:
    """Whether all of an open file has a digest. Blocking.

    Raises:
        SourceError: The file cannot be read.
    """
    hasher, position = digest.hasher(), 0
    try:
        while block := os.pread(fd, BLOCK, position):
            hasher.update(block)
            position += len(block)
    except OSError as error:
        raise map_os_error(error, f"blob {digest}") from error
    return hasher.hexdigest() == digest.encoded
