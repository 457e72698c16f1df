"""The stock: what a cache holds, kept within its limit. Blocking, for worker threads.

Whatever changes the sum of sizes happens while the ledger is held: making room, linking in,
listing tops. So the limit holds at every moment, whichever process adds.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from asupplemented.aio.atomic import remove_leftovers
from asupplemented.aio.files import map_write_errors, open_regular
from asupplemented.aio.locks import LockBusy, is_at, lock_file
from asupplemented.cache.layout.graph import Links
from asupplemented.cache.layout.index_json import Tops
from asupplemented.cache.layout.paths import Item, Places, Records, read_labels
from asupplemented.cache.layout.quota import Account, EvictionQueue, Ledger
from asupplemented.errors import SourceError, SupplementedError
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Generator

    from asupplemented.aio.atomic import StagedFile
    from asupplemented.oci_layout import Tree

__all__ = ("Stock",)

COUNT_AGAIN: Final = 60.0
"""Seconds after which the files are counted again before any is evicted."""


class Stock:
    """The blobs and manifests of a cache.

    Args:
        places: The paths of the cache.
        max_bytes: The most that all files of blobs and manifests may have together.
    """

    __slots__ = (
        "_counted",
        "_ledger",
        "_links",
        "_queue",
        "max_bytes",
        "places",
        "records",
        "tops",
    )

    def __init__(self, places: Places, max_bytes: int) -> None:
        self.places = places
        self.max_bytes = max_bytes
        self.records = Records(places)
        self._links = Links(places, self.records)
        self.tops = Tops(places, self.records, self._links)
        self._ledger = Ledger(places.ledger)
        # Used while the ledger is held, and only then:
        self._queue = EvictionQueue(())
        self._counted: float | None = None

    def prepare(self, wall: float) -> None:
        """Make what is not there, drop what dead processes left, and hold to the limit.

        Args:
            wall: Seconds since the epoch.

        Raises:
            LockBusy: Somebody else holds a lock; to be called again.
            SupplementedError: The directory cannot be used.
        """
        self.places.make()
        if not self.places.layout.is_marked():
            self.places.layout.try_update(_begin)
        self.sweep()
        with self._hold() as account:
            self.records.forget_lost()
            self.tops.forget_lost()
            self._count(account, wall)
            self._make_room(account, 0, wall)

    def sweep(self) -> None:
        """Drop what dead processes left behind. It does what it can."""
        remove_leftovers(self.places.ingest)
        remove_leftovers(self.places.leads)

    def size_of(self, digest: Digest) -> int | None:
        """Bytes of a blob's file, None if it is not there."""
        try:
            return self.places.blob(digest).stat(follow_symlinks=False).st_size
        except OSError:
            return None

    def keep(
        self,
        file: StagedFile,
        digest: Digest,
        size: int,
        principal: str | None,
        wall: float,
        *,
        kind: str | None = None,
        top: bool = False,
    ) -> bool:
        """Put a whole, verified file in its place; may be called again after `LockBusy`.

        If the blob is there already, the file is left alone.

        Args:
            file: Holds all bytes, synced if need be.
            digest: Their digest.
            size: How many there are.
            principal: Who fetched them.
            wall: Seconds since the epoch.
            kind: The media type, if it is a manifest.
            top: Whether it is to be listed when all that it names is there.

        Returns:
            Whether the blob is there now; False if there is no room for it.

        Raises:
            LockBusy: Somebody else holds a lock.
            SupplementedError: The directory cannot be used.
        """
        with self._hold() as account:
            if self.size_of(digest) != size and not self._add(account, file, digest, size, wall):
                return False
            self.records.note(digest, principal, wall, kind)
            self.tops.arrived(digest)
            if top:
                self.tops.examine(digest)
        return True

    def remove(self, digest: Digest) -> None:
        """Remove a blob that is not what it should be, if nobody uses it just now.

        Raises:
            LockBusy: Somebody else holds a lock.
            SupplementedError: The directory cannot be used.
        """
        with self._hold() as account, ExitStack() as locks:
            size = self.size_of(digest)
            if size is not None and self._lock(digest, locks):
                self.tops.withdraw((digest,))
                self._remove(account, [Item(0, digest, size)])

    def set_pinned(self, digests: tuple[Digest, ...], *, pinned: bool) -> None:
        """Pin blobs, and whatever they reach if they are manifests; or pin them no longer.

        Raises:
            LockBusy: Somebody else holds a lock.
            SupplementedError: The directory cannot be used.
        """
        with self._hold():
            for digest in digests:
                path = self.places.pin(digest)
                if pinned:
                    path.touch()
                else:
                    path.unlink(missing_ok=True)

    # While the ledger is held

    @contextmanager
    def _hold(self) -> Generator[Account]:
        with map_write_errors(self.places.root), self._ledger.try_hold() as account:
            if account is None:
                raise LockBusy
            yield account

    def _add(
        self, account: Account, file: StagedFile, digest: Digest, size: int, wall: float
    ) -> bool:
        wrong = self.size_of(digest) or 0  # Another one's file of a wrong size is replaced.
        if not self._make_room(account, size - wrong, wall):
            return False
        account.add(size - wrong)
        try:
            # Not for other users to write, or it could not be trusted without being hashed.
            return file.publish(self.places.blob(digest), directory_mode=0o755)
        except SourceError:
            account.add(wrong - size)
            raise

    def _make_room(self, account: Account, size: int, wall: float) -> bool:
        """Evict until `size` bytes more fit; gives whether they do."""
        if size > self.max_bytes:
            return False
        if account.total is None:
            self._count(account, wall)
        if self._excess(account, size) <= 0:
            return True
        if self._counted is None or not 0 <= wall - self._counted < COUNT_AGAIN:
            self._count(account, wall)
        protected = self._protected()
        if size > self.max_bytes - sum(self.size_of(digest) or 0 for digest in protected):
            return False
        again = True
        while self._excess(account, size) > 0:
            if not self._evict(account, size, protected):
                if not again:
                    return False
                again = False
                self._count(account, wall)  # What others have added meanwhile may go.
        return True

    def _excess(self, account: Account, size: int) -> int:
        return (account.total or 0) + size - self.max_bytes

    def _count(self, account: Account, wall: float) -> None:
        items = list(self.records.scan())
        account.set(sum(item.size for item in items))
        self._queue = EvictionQueue(items)
        self._counted = wall

    def _protected(self) -> frozenset[Digest]:
        pinned = read_labels(self.places.pins)
        return frozenset[Digest]().union(*map(self._links.try_everything, pinned))

    def _evict(self, account: Account, size: int, protected: frozenset[Digest]) -> bool:
        """Evict some blobs; gives whether there were any that may go."""
        with ExitStack() as locks:
            chosen = self._queue.choose(
                self._excess(account, size),
                look=self._look,
                take=lambda item: item.digest not in protected and self._lock(item.digest, locks),
            )
            try:
                self.tops.withdraw({item.digest for item in chosen})
                self._remove(account, chosen)
            except BaseException:
                self._queue.put_back(chosen)
                raise
        return bool(chosen)

    def _look(self, digest: Digest) -> Item | None:
        try:
            status = self.places.blob(digest).stat(follow_symlinks=False)
        except OSError:
            return None
        return Item(self.records.used(digest) or status.st_mtime_ns, digest, status.st_size)

    def _lock(self, digest: Digest, locks: ExitStack) -> bool:
        """Make sure that nobody relies on the name of a file, until the locks are given back."""
        path = self.places.blob(digest)
        try:
            fd, _ = open_regular(path, follow=False)
        except SupplementedError:
            return True  # It is gone, or none that we may read: nobody here does.
        with ExitStack() as ours:
            ours.callback(os.close, fd)
            with suppress(OSError):  # Without locks, who reads it keeps it by its descriptor.
                if not lock_file(fd) or not is_at(fd, path):
                    return False
            locks.push(ours.pop_all())
        return True

    def _remove(self, account: Account, items: list[Item]) -> None:
        for item in items:
            path = self.places.blob(item.digest)
            with map_write_errors(path), suppress(FileNotFoundError):
                path.unlink()
            self.records.forget(item.digest)
            account.add(-item.size)


def _begin(tree: Tree) -> Tree:
    return {"manifests": [], **tree}
