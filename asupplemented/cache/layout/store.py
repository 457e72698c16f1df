"""The blobs and manifests of a cache, kept within its limit. Blocking, for worker threads.

Whatever changes the sum of sizes happens while the quota lock is held: evicting, adding, listing
images. So the limit holds at every moment, whichever process adds.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from asupplemented.aio.atomic import remove_leftovers
from asupplemented.aio.files import map_write_errors, open_regular
from asupplemented.aio.locks import LockBusy, is_at, lock_file
from asupplemented.blobs.blob_file import FileIdentity
from asupplemented.cache.layout.graph import ManifestGraph
from asupplemented.cache.layout.index_json import IndexMaintainer
from asupplemented.cache.layout.paths import (
    BlobMetadata,
    BlobUsage,
    CachePaths,
    read_labels,
    read_number,
)
from asupplemented.cache.layout.quota import EvictionQueue, Quota, QuotaLock
from asupplemented.errors import SourceError, SupplementedError
from asupplemented.events import BlobEvicted
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from asupplemented.aio.atomic import StagedFile
    from asupplemented.cache.layout.paths import ManifestOrigin
    from asupplemented.oci_layout import Tree

__all__ = ("CacheStore",)

COUNT_AGAIN: Final = 60.0
"""Seconds after which the files are counted again before any is evicted."""


class CacheStore:
    """Adds, evicts and pins the blobs and manifests of a cache.

    Args:
        paths: The paths of the cache.
        max_bytes: The most bytes that all files of blobs and manifests may have together, those
            in the making included.

    Attributes:
        metadata: What is known of each blob.
        index: Lists complete images.
        evicted: What was evicted and has not been told of yet, oldest first.
    """

    __slots__ = (
        "_counted",
        "_graph",
        "_queue",
        "_quota",
        "evicted",
        "index",
        "max_bytes",
        "metadata",
        "paths",
    )

    def __init__(self, paths: CachePaths, max_bytes: int) -> None:
        self.paths = paths
        self.max_bytes = max_bytes
        self.metadata = BlobMetadata(paths)
        self._graph = ManifestGraph(paths)
        self.index = IndexMaintainer(paths, self._graph)
        self._quota = Quota(paths.quota)
        self.evicted: deque[BlobEvicted] = deque()
        # Used only while the quota lock is held:
        self._queue = EvictionQueue(())
        self._counted: float | None = None

    def prepare(self, wall: float) -> None:
        """Make what is not there, remove what dead processes left, and evict down to the limit.

        Args:
            wall: Seconds since the epoch.

        Raises:
            LockBusy: A lock is held elsewhere; call it again.
            SupplementedError: The directory cannot be used.
        """
        self.paths.make()
        if not self.paths.layout.is_marked():
            self.paths.layout.try_update(_begin)
        self.sweep()
        with self._locked() as quota:
            self.metadata.remove_lost()
            self.index.remove_lost()
            self._count(quota, wall)
            self._make_room(quota, 0, wall)

    def sweep(self) -> None:
        """Remove what dead processes left behind. Errors are ignored."""
        remove_leftovers(self.paths.ingest)
        remove_leftovers(self.paths.fetch_locks)

    def size_of(self, digest: Digest) -> int | None:
        """Bytes of a blob's file, None if it is not there."""
        try:
            return self.paths.blob(digest).stat(follow_symlinks=False).st_size
        except OSError:
            return None

    def add(
        self,
        file: StagedFile,
        digest: Digest,
        size: int,
        principal: str | None,
        wall: float,
        *,
        manifest: ManifestOrigin | None = None,
        top: bool = False,
    ) -> bool:
        """Publish a whole, verified file as a blob; may be called again after `LockBusy`.

        If the blob is there already, the file is left alone. What was reserved for the file is
        released.

        Args:
            file: Holds all bytes, synced if need be.
            digest: Their digest.
            size: How many there are.
            principal: The principal that fetched them.
            wall: Seconds since the epoch.
            manifest: Where it was read from, if it is a manifest.
            top: Whether to list it in ``index.json`` when all that it references is there.

        Returns:
            Whether the blob is there now; False if there is no room for it.

        Raises:
            LockBusy: A lock is held elsewhere.
            SupplementedError: The directory cannot be used.
        """
        with self._locked() as quota:
            self._release(quota, file)
            # Granted first: a file without a grant takes up room and is found by no reader. Listed
            # last: what is listed is there.
            self.metadata.add_grant(digest, principal, wall, manifest)
            if self.size_of(digest) != size:
                if not self._publish(quota, file, digest, size, wall):
                    if not self.paths.has(digest):
                        self.metadata.remove(digest)
                    return False
                self._record_identity(digest, wall)
            self.index.blob_added(digest)
            if top:
                self.index.list_if_complete(digest)
        return True

    def reserve(self, file: StagedFile, size: int, wall: float) -> bool:
        """Make room for a file in the making, so that it counts before its bytes are written.

        Args:
            file: The file.
            size: The bytes that it may have; more than were reserved for it before.
            wall: Seconds since the epoch.

        Returns:
            False if there is no room.

        Raises:
            LockBusy: A lock is held elsewhere; call it again.
            SupplementedError: The directory cannot be used.
        """
        path = self._reservation(file)
        with self._locked() as quota:
            more = size - read_number(path)
            if not self._make_room(quota, more, wall):
                return False
            # The sum first, as in `_publish`.
            quota.add(more)
            path.write_text(str(size), "ascii")
        return True

    def release(self, file: StagedFile) -> None:
        """Release what is reserved for a file, unless that was done when it was added.

        Raises:
            LockBusy: A lock is held elsewhere; call it again.
            SupplementedError: The directory cannot be used.
        """
        if self._reservation(file).exists():
            with self._locked() as quota:
                self._release(quota, file)

    def remove(self, digest: Digest) -> None:
        """Remove a corrupt blob, unless it is being read.

        Raises:
            LockBusy: A lock is held elsewhere.
            SupplementedError: The directory cannot be used.
        """
        with self._locked() as quota, ExitStack() as locks:
            size = self.size_of(digest)
            if size is not None and self._lock(digest, locks):
                self.index.unlist((digest,))
                self._remove(quota, [BlobUsage(0, digest, size)])

    def set_pinned(self, digests: tuple[Digest, ...], *, pinned: bool) -> None:
        """Pin blobs, and with manifests all that they reference; or take the pins away.

        Raises:
            LockBusy: A lock is held elsewhere.
            SupplementedError: The directory cannot be used.
        """
        with self._locked():
            for digest in digests:
                path = self.paths.pin(digest)
                if pinned:
                    path.touch()
                else:
                    path.unlink(missing_ok=True)

    # While the quota lock is held

    @contextmanager
    def _locked(self) -> Generator[QuotaLock]:
        with map_write_errors(self.paths.root), self._quota.try_lock() as quota:
            if quota is None:
                raise LockBusy
            yield quota

    def _publish(
        self, quota: QuotaLock, file: StagedFile, digest: Digest, size: int, wall: float
    ) -> bool:
        replaced = self.size_of(digest) or 0  # A file of a wrong size, which is replaced.
        if not self._make_room(quota, size - replaced, wall):
            return False
        # The sum first: a process that dies in between leaves a sum that is too large.
        quota.add(size - replaced)
        _backdate(file)
        try:
            # Not for other users to write: then it could not be trusted without being hashed.
            return file.publish(self.paths.blob(digest), directory_mode=0o755)
        except SourceError:
            quota.add(replaced - size)
            raise

    def _record_identity(self, digest: Digest, wall: float) -> None:
        with suppress(OSError):
            status = self.paths.blob(digest).stat(follow_symlinks=False)
            self.metadata.set_verified(digest, FileIdentity.of(status))
            self.metadata.set_used(digest, wall)  # The new file changed the time.

    def _reservation(self, file: StagedFile) -> Path:
        return self.paths.reservations / file.path.name

    def _release(self, quota: QuotaLock, file: StagedFile) -> None:
        path = self._reservation(file)
        reserved = read_number(path)
        path.unlink(missing_ok=True)
        if reserved:
            quota.add(-reserved)  # The sum last.

    def _count_reserved(self) -> int:
        """Bytes that are reserved for files in the making; those of dead processes are dropped."""
        total = 0
        for path in self.paths.reservations.iterdir():
            if (self.paths.ingest / path.name).exists():
                total += read_number(path)
            else:
                path.unlink(missing_ok=True)
        return total

    def _make_room(self, quota: QuotaLock, size: int, wall: float) -> bool:
        """Evict until `size` bytes more fit; gives whether they do."""
        if size > self.max_bytes:
            return False
        if quota.total is None:
            self._count(quota, wall)
        if self._excess(quota, size) <= 0:
            return True
        if self._counted is None or not 0 <= wall - self._counted < COUNT_AGAIN:
            self._count(quota, wall)
        protected = self._protected()
        if size > self.max_bytes - sum(self.size_of(digest) or 0 for digest in protected):
            return False
        again = True
        while self._excess(quota, size) > 0:
            if not self._evict(quota, size, wall, protected):
                if not again:
                    return False
                again = False
                self._count(quota, wall)  # Other processes may have added blobs since.
        return True

    def _excess(self, quota: QuotaLock, size: int) -> int:
        return (quota.total or 0) + size - self.max_bytes

    def _count(self, quota: QuotaLock, wall: float) -> None:
        usages = list(self.metadata.scan())
        quota.set(sum(usage.size for usage in usages) + self._count_reserved())
        self._queue = EvictionQueue(usages)
        self._counted = wall

    def _protected(self) -> frozenset[Digest]:
        pinned = read_labels(self.paths.pins)
        return frozenset[Digest]().union(*map(self._graph.known_closure, pinned))

    def _evict(
        self, quota: QuotaLock, size: int, wall: float, protected: frozenset[Digest]
    ) -> bool:
        """Evict some blobs; gives whether any may be evicted."""
        with ExitStack() as locks:
            chosen = self._queue.choose(
                self._excess(quota, size),
                look_up=self._look_up,
                may_evict=lambda usage: (
                    usage.digest not in protected and self._lock(usage.digest, locks)
                ),
            )
            try:
                # Unlisted first: what index.json lists is complete at every moment.
                self.index.unlist({usage.digest for usage in chosen})
                self._remove(quota, chosen)
            except BaseException:
                self._queue.put_back(chosen)
                raise
        self.evicted.extend(
            BlobEvicted(usage.digest, usage.size, max(wall - usage.used / 1e9, 0.0))
            for usage in chosen
        )
        return bool(chosen)

    def _look_up(self, digest: Digest) -> BlobUsage | None:
        try:
            status = self.paths.blob(digest).stat(follow_symlinks=False)
        except OSError:
            return None
        used = self.metadata.last_used(digest) or status.st_mtime_ns
        return BlobUsage(used, digest, status.st_size)

    def _lock(self, digest: Digest, locks: ExitStack) -> bool:
        """Lock a file, so that no reader relies on its name until the locks are released."""
        path = self.paths.blob(digest)
        try:
            fd, _ = open_regular(path, follow=False)
        except SupplementedError:
            return True  # It is gone, or cannot be read, so no reader here has it open.
        with ExitStack() as ours:
            ours.callback(os.close, fd)
            with suppress(OSError):  # Without locks, readers keep the file by its descriptor.
                if not lock_file(fd) or not is_at(fd, path):
                    return False
            locks.push(ours.pop_all())
        return True

    def _remove(self, quota: QuotaLock, usages: list[BlobUsage]) -> None:
        for usage in usages:
            path = self.paths.blob(usage.digest)
            with map_write_errors(path), suppress(FileNotFoundError):
                path.unlink()
            self.metadata.remove(usage.digest)
            quota.add(-usage.size)  # The sum last; see `_publish`.


def _backdate(file: StagedFile) -> None:
    """Set the time of the last write back, so that every later write shows.

    Two writes within one tick of the clock of the file system have the same time. A file that is
    changed right after it was published would look unchanged.
    """
    with file.use() as fd:
        if fd is not None:
            status = os.fstat(fd)
            os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns - 10**9))


def _begin(tree: Tree) -> Tree:
    return {"manifests": [], **tree}
