"""Finding a blob in a cache, and deciding whether its file can be trusted. Blocking, for threads.

A blob was verified when it came, and the identity of its file was recorded: inode, size, and the
times of its last changes. A file that still has this identity is served as it is, if only this user
can have changed it. Every other file is hashed first: one that differs from the record, one that
other users could have written, and any file if the cache was made with `verify_on_read`. It is
hashed once, and again whenever it has changed.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from asupplemented.abc import BlobFile
from asupplemented.aio.beneath import is_owned
from asupplemented.aio.files import open_regular, read_limited
from asupplemented.aio.locks import LockBusy, is_at, lock_file
from asupplemented.aio.lru import LRU
from asupplemented.blobs.blob_file import FileIdentity, matches
from asupplemented.blobs.read_ahead import MAX_REMEMBERED, SETTLED
from asupplemented.errors import ManifestError, NotFoundError, SupplementedError, VerificationError
from asupplemented.limits import MAX_MANIFEST
from asupplemented.model.manifest import Manifest

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented.cache.layout.store import CacheStore
    from asupplemented.model.digest import Digest

__all__ = ("Lookup",)


class Lookup:
    """Opens blobs and reads manifests of a cache.

    Args:
        store: The blobs and manifests.
        verify: Whether every file is hashed before it is served, even if only this user could
            have written it.
    """

    __slots__ = ("_store", "_verified", "_verify")

    def __init__(self, store: CacheStore, *, verify: bool) -> None:
        self._store = store
        self._verify = verify
        self._verified = LRU["Digest", FileIdentity](MAX_REMEMBERED)

    def is_granted(self, digest: Digest, principal: str | None, *, shared: bool) -> bool:
        """Whether a principal may have a blob, if it is there."""
        return shared or self._store.metadata.is_granted(digest, principal)

    def open(self, digest: Digest, size: int | None, wall: float) -> BlobFile | None:
        """Open a blob, and keep it from being evicted until it is closed.

        Args:
            digest: The blob.
            size: The size that its descriptor gives, None if it gives none.
            wall: Seconds since the epoch.

        Returns:
            None if it is not there, or its file is corrupt or of another size.

        Raises:
            SupplementedError: The file cannot be read.
        """
        path = self._store.paths.blob(digest)
        try:
            fd, status = open_regular(path, follow=False)
        except NotFoundError:
            return None
        with ExitStack() as closing:
            closing.callback(os.close, fd)
            if not _protect(fd, path):
                return None
            fits = size is None or size == status.st_size
            identity = FileIdentity.of(status)
            private = not self._verify and self._is_private(path, status)
            trusted = private and self._store.metadata.is_verified(digest, identity)
            if trusted or self._matches(fd, identity, digest, wall):
                if not fits:
                    return None  # The file is right, so the size of the descriptor is wrong.
                closing.pop_all()
                # A file that changed just now may still be written to: its reader hashes it again.
                settled = trusted or self._verified.get(digest) == identity
                if private and settled and not trusted:
                    self._store.metadata.set_verified(digest, identity)
                self._store.metadata.touch(digest, wall)
                close = partial(os.close, fd)
                verified = status if settled else None
                return BlobFile(fd, path, 0, status.st_size, close, verified=verified)
        self._remove(digest)
        return None

    def read_manifest(
        self, digest: Digest, principal: str | None, source: str | None, wall: float
    ) -> Manifest | None:
        """Read a manifest that a principal read from a source before.

        It is verified: manifests are small, so that is done each time.

        Raises:
            SupplementedError: The file cannot be read, or is malformed.
        """
        media_type = self._store.metadata.media_type(digest, principal, source)
        if media_type is None:
            return None
        try:
            raw = read_limited(self._store.paths.blob(digest), MAX_MANIFEST, follow=False)
        except NotFoundError:
            return None
        try:
            manifest = Manifest.verified(raw, media_type, digest)
        except VerificationError:
            self._remove(digest)
            return None
        with suppress(ManifestError):  # Raised again where it is used; parsed here, in a thread.
            manifest.parse()
        self._store.metadata.touch(digest, wall)
        return manifest

    def _is_private(self, path: Path, status: os.stat_result) -> bool:
        """Whether only this user and root can have put the file where it is."""
        root = self._store.paths.root
        above = (path.parent, path.parent.parent, root)
        return is_owned(status) and all(is_owned(directory.stat()) for directory in above)

    def _matches(self, fd: int, identity: FileIdentity, digest: Digest, wall: float) -> bool:
        """Whether a file has its digest: hashed, unless it was hashed and has not changed."""
        if self._verified.get(digest) == identity:
            return True
        if not matches(fd, digest):
            return False
        # A file that changed just now may change again without a change of its timestamps.
        if wall - max(identity.modified, identity.changed) / 1e9 >= SETTLED:
            self._verified.put(digest, identity)
        return True

    def _remove(self, digest: Digest) -> None:
        with suppress(LockBusy, SupplementedError):  # The next lookup tries again.
            self._store.remove(digest)


def _protect(fd: int, path: Path) -> bool:
    """Keep a file from being evicted as long as it is open; False if it was evicted just now."""
    try:
        return lock_file(fd, shared=True) and is_at(fd, path)
    except OSError:
        return True  # No locks here, but an open file can be read to its end all the same.
