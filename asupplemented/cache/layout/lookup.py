"""Finding what a cache holds, and deciding whether it can be believed. Blocking, for threads.

A blob was verified when it came, and only our user can change its file: so a hit is served as
it is. Where somebody else could have changed it, or the caller wants no trust at all, it is hashed
once, and again when its file has changed.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from asupplemented.abc import BlobFile, RawManifest
from asupplemented.aio.files import map_os_error, open_regular, read_limited
from asupplemented.aio.locks import LockBusy, is_at, lock_file
from asupplemented.aio.lru import LRU
from asupplemented.blobs.blob_file import FileIdentity
from asupplemented.blobs.read_ahead import MAX_REMEMBERED, SETTLED
from asupplemented.errors import NotFoundError, SupplementedError
from asupplemented.limits import BLOCK, MAX_MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented.cache.layout.store import Stock
    from asupplemented.model.digest import Digest

__all__ = ("Finder",)

_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH


class Finder:
    """Opens blobs and reads manifests of a cache.

    Args:
        stock: What the cache holds.
        verify: Whether every file is hashed before it is served, even if only we could have
            written it.
    """

    __slots__ = ("_stock", "_verified", "_verify")

    def __init__(self, stock: Stock, *, verify: bool) -> None:
        self._stock = stock
        self._verify = verify
        self._verified = LRU["Digest", FileIdentity](MAX_REMEMBERED)

    def may_have(self, digest: Digest, principal: str | None, *, shared: bool) -> bool:
        """Whether somebody may have a blob, if it is there."""
        return shared or self._stock.records.is_granted(digest, principal)

    def open(self, digest: Digest, size: int | None, wall: float) -> BlobFile | None:
        """Open a blob, and keep it from being evicted until it is closed.

        Args:
            digest: The blob.
            size: How many bytes it is said to have, None if nobody says.
            wall: Seconds since the epoch.

        Returns:
            None if it is not there, or is not what it should be.

        Raises:
            SupplementedError: The file cannot be read.
        """
        path = self._stock.places.blob(digest)
        try:
            fd, status = open_regular(path, follow=False)
        except NotFoundError:
            return None
        with ExitStack() as closing:
            closing.callback(os.close, fd)
            if not _lease(fd, path):
                return None
            fits = size is None or size == status.st_size
            believed = fits and not self._verify and self._is_ours(path, status)
            if believed or self._is_true(fd, FileIdentity.of(status), digest, wall):
                if not fits:
                    return None  # Who told the size was wrong, and the file is right.
                closing.pop_all()
                self._stock.records.touch(digest, wall)
                return BlobFile(fd, path, 0, status.st_size, partial(os.close, fd))
        self._remove(digest)
        return None

    def read_manifest(self, digest: Digest, wall: float) -> RawManifest | None:
        """Read a manifest. It is small, so it is verified each time.

        Raises:
            SupplementedError: The file cannot be read.
        """
        kind = self._stock.records.kind(digest)
        if kind is None:
            return None
        try:
            raw = read_limited(self._stock.places.blob(digest), MAX_MANIFEST, follow=False)
        except NotFoundError:
            return None
        if not digest.matches(raw):
            self._remove(digest)
            return None
        self._stock.records.touch(digest, wall)
        return RawManifest(raw, kind)

    def _is_ours(self, path: Path, status: os.stat_result) -> bool:
        """Whether nobody but our user, and root, can have put a file in its place."""
        root = self._stock.places.root
        above = (path.parent, path.parent.parent, root)
        return _is_owned(status) and all(_is_owned(directory.stat()) for directory in above)

    def _is_true(self, fd: int, identity: FileIdentity, digest: Digest, wall: float) -> bool:
        """Whether a file has the digest that names it: hashed, unless we know it."""
        if self._verified.get(digest) == identity:
            return True
        if not _hash(fd, digest):
            return False
        if wall - max(identity.modified, identity.changed) / 1e9 >= SETTLED:
            self._verified.put(digest, identity)
        return True

    def _remove(self, digest: Digest) -> None:
        with suppress(LockBusy, SupplementedError):  # Else the next one who meets it removes it.
            self._stock.remove(digest)


def _lease(fd: int, path: Path) -> bool:
    """Keep a file from being evicted as long as it is open; False if it just was."""
    try:
        return lock_file(fd, shared=True) and is_at(fd, path)
    except OSError:
        return True  # No locks here: what is open can be read to its end all the same.


def _is_owned(status: os.stat_result) -> bool:
    """Whether nobody but our user, and root, can write a file or directory."""
    return status.st_uid in {os.geteuid(), 0} and not status.st_mode & _WRITABLE


def _hash(fd: int, digest: Digest) -> bool:
    hasher, position = digest.hasher(), 0
    try:
        while block := os.pread(fd, BLOCK, position):
            hasher.update(block)
            position += len(block)
    except OSError as error:
        raise map_os_error(error, f"blob {digest}") from error
    return hasher.hexdigest() == digest.encoded
