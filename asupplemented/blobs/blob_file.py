"""Blobs in local files: how one is opened, and how a change of its content shows."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.abc import BlobFile
from asupplemented.aio.beneath import Follow, open_beneath
from asupplemented.aio.files import SharedFile, map_os_error
from asupplemented.aio.threads import run_blocking
from asupplemented.errors import BlobNotFoundError
from asupplemented.limits import BLOCK

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented.abc import Context
    from asupplemented.model.digest import Digest

__all__ = (
    "FileIdentity",
    "has_content",
    "identify",
    "matches",
    "open_blob_file",
    "share_blob_file",
)

_HASH_BLOCK: Final = 4 * BLOCK
"""Bytes that are read and hashed in one hop to a thread; hashing can be cancelled between hops."""


def open_blob_file(
    path: Path, *, root: Path | None = None, follow: Follow = Follow.ANY
) -> BlobFile:
    """Open a file that is one blob, as a `LocalFile` adapter has to. Blocking.

    Args:
        path: The file.
        root: A directory above it; None for its own directory.
        follow: Which links below `root` are followed.

    Raises:
        BlobNotFoundError: There is no such file.
        SupplementedError: See `asupplemented.aio.beneath.open_beneath`.
    """
    root = root or path.parent
    name = str(path.relative_to(root))
    fd, status, linked = open_beneath(str(root), name, missing=BlobNotFoundError, follow=follow)
    return BlobFile(fd, path, 0, status.st_size, partial(os.close, fd), linked=linked)


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


async def has_content(context: Context, file: SharedFile, size: int, digest: Digest) -> bool:
    """Whether the first bytes of a file are exactly the blob that a digest names.

    Args:
        context: The session, whose threads read.
        file: The file.
        size: How many bytes are hashed, or fewer if the file ends before.
        digest: The digest.

    Raises:
        SourceError: The file cannot be read.
    """
    hasher, position = digest.hasher(), 0

    def hash_block() -> int:
        block = file.read(position, min(_HASH_BLOCK, size - position))
        hasher.update(block)
        return len(block)

    while count := await run_blocking(context, hash_block):
        position += count
    return hasher.hexdigest() == digest.encoded
