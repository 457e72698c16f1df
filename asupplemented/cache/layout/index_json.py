"""Tops: the images of a cache that are whole, listed in ``index.json`` for all to read.

A top that is not whole yet waits for one of the blobs that it lacks, whichever comes last by
digest: when that one arrives, from whatever process, the top is looked at again. So a blob that
arrives costs a look into one directory, and a top is looked at a few times, however large it is.

Everything here runs while the ledger is held, and blocks.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from asupplemented.aio.atomic import sync_directory
from asupplemented.aio.files import map_write_errors
from asupplemented.cache.layout.paths import label, read_labels
from asupplemented.errors import InvalidDigestError, SupplementedError
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import KNOWN_MANIFESTS
from asupplemented.oci_layout import REF_NAME, Tree, add_entry, list_entries, name_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from asupplemented.cache.layout.graph import Links, Reach
    from asupplemented.cache.layout.paths import Places, Records
    from asupplemented.model.strict_json import Json
    from asupplemented.oci_layout import LayoutIndex

__all__ = ("Tops",)

MAX_LISTED: Final = 2048
"""Tops in ``index.json``: half a MiB of the 4 MiB that readers accept; the oldest go first."""


class Tops:
    """Lists tops when they are whole, and takes them from the list before they are not.

    Args:
        places: The paths of the cache.
        records: Which manifest is of which kind.
        links: What manifests name.
    """

    __slots__ = ("_links", "_places", "_records")

    def __init__(self, places: Places, records: Records, links: Links) -> None:
        self._places = places
        self._records = records
        self._links = links

    def examine(self, top: Digest) -> None:
        """List a top if it is whole, else have it wait for something that it lacks.

        One that cannot be read to its leaves is never whole.

        Raises:
            LockBusy: ``index.json`` is being changed; all can be called again.
            SupplementedError: The list cannot be read or written.
        """
        kind = self._records.kind(top)
        if kind is None:
            return
        try:
            reach = self._links.reach(top, kind)
        except SupplementedError:
            return
        if reach.missing:
            self._wait(top, max(reach.missing))
        elif not self._is_listed(top):
            self._list(top, kind, reach)

    def arrived(self, digest: Digest) -> None:
        """Look again at the tops that wait for a blob, now that it is there.

        Raises:
            LockBusy: See `examine`; who was not looked at still waits.
            SupplementedError: See `examine`.
        """
        directory = self._places.waiting_for(digest)
        for top in read_labels(directory):
            self.examine(top)
            _forget(directory, top)
        with suppress(OSError):
            directory.rmdir()

    def withdraw(self, victims: Collection[Digest]) -> None:
        """Take every top from the list that reaches one of some blobs; they are to go.

        What we listed waits for its return, unless it goes itself.

        Raises:
            LockBusy: See `examine`.
            SupplementedError: The list cannot be read or written.
        """
        index = self._places.layout.read_index()
        affected = {} if index is None else self._affected(index, victims)
        if not affected:
            return
        self._change(partial(_without, digests=affected.keys()))
        for top, lost in affected.items():
            if top not in victims and self._records.kind(top) is not None:
                with suppress(SupplementedError):  # No room to wait on a full disk: it goes.
                    self._wait(top, lost)

    def _affected(self, index: LayoutIndex, victims: Collection[Digest]) -> dict[Digest, Digest]:
        """Who reaches a victim, and which."""
        affected: dict[Digest, Digest] = {}
        going = frozenset(victims)
        for entry in index.manifests:
            with suppress(InvalidDigestError):
                top = Digest(entry.digest)
                lost = going & self._links.try_everything(top)
                if lost:
                    affected[top] = max(lost)
        return affected

    def _is_listed(self, top: Digest) -> bool:
        index = self._places.layout.read_index()
        return index is not None and any(
            entry.digest == top and entry.annotations.get(REF_NAME) == top
            for entry in index.manifests
        )

    def _list(self, top: Digest, kind: str, reach: Reach) -> None:
        if self._places.durable:
            self._sync(reach)
        size = self._places.blob(top).stat().st_size
        entry = Descriptor(media_type=kind, digest=top, size=size, annotations={REF_NAME: str(top)})
        self._change(partial(_with_top, entry=entry))

    def _sync(self, reach: Reach) -> None:
        """Have the disk know all that the list will name; blobs were synced when they came."""
        for digest in reach.manifests:
            path = self._places.blob(digest)
            with map_write_errors(path):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        for algorithm in {digest.algorithm for digest in reach.everything}:
            sync_directory(self._places.root / "blobs" / algorithm)

    def _wait(self, top: Digest, lacks: Digest) -> None:
        directory = self._places.waiting_for(lacks)
        with map_write_errors(directory):
            directory.mkdir(exist_ok=True)
            (directory / label(top)).touch()

    def _change(self, change: partial[Tree]) -> None:
        self._places.layout.try_update(change)

    def forget_lost(self) -> None:
        """Drop who waits and is not there any more. It does what it can."""
        with suppress(OSError):
            for directory in self._places.waiting.iterdir():
                for top in read_labels(directory):
                    if self._records.kind(top) is None:
                        _forget(directory, top)
                with suppress(OSError):
                    directory.rmdir()


def _forget(directory: Path, top: Digest) -> None:
    with suppress(OSError):
        (directory / label(top)).unlink()


def _with_top(tree: Tree, *, entry: Descriptor) -> Tree:
    """An ``index.json`` that lists a top, and no more tops than fit."""
    changed = add_entry(tree, entry)
    entries = list_entries(changed)
    ours = [other for other in entries if _is_ours(other)]
    dropped = {id(other) for other in ours[: max(0, len(ours) - MAX_LISTED)]}
    kept: list[Json] = [other for other in entries if id(other) not in dropped]
    return {**changed, "manifests": kept}


def _is_ours(entry: Tree) -> bool:
    return entry.get("mediaType") in KNOWN_MANIFESTS and name_of(entry) == entry.get("digest")


def _without(tree: Tree, *, digests: Collection[str]) -> Tree:
    """An ``index.json`` without the entries of some digests."""
    kept: list[Json] = [
        entry for entry in list_entries(tree) if str(entry.get("digest")) not in digests
    ]
    return {**tree, "manifests": kept}
