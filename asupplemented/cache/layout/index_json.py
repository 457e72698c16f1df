"""The complete images of a cache, listed in ``index.json`` for all tools to read.

A *top* is a manifest that a reference was opened with. It is listed once it is complete: once all
that it references is there. A top that is not complete waits for one missing blob, the one with the
greatest digest; any fixed choice works. When that blob is added, by whatever process, the top is
examined again. So adding a blob costs one look into one directory, and a top is examined a few
times, however large it is.

Before a blob is evicted, every top that references it is taken from the list.

Everything here runs while the quota lock is held, and blocks.
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

    from asupplemented.cache.layout.graph import Closure, ManifestGraph
    from asupplemented.cache.layout.paths import CachePaths
    from asupplemented.model.strict_json import Json
    from asupplemented.oci_layout import LayoutIndex

__all__ = ("IndexMaintainer",)

MAX_LISTED: Final = 2048
"""Tops in ``index.json``: half a MiB of the 4 MiB that readers accept. The oldest are removed."""


class IndexMaintainer:
    """Lists tops when they are complete, and takes them from the list before they are not.

    Args:
        paths: The paths of the cache.
        graph: Tells what manifests reference.
    """

    __slots__ = ("_graph", "_paths")

    def __init__(self, paths: CachePaths, graph: ManifestGraph) -> None:
        self._paths = paths
        self._graph = graph

    def list_if_complete(self, top: Digest) -> None:
        """List a top if it is complete; otherwise it waits for a blob that is missing.

        A top with a malformed manifest is never complete.

        Raises:
            LockBusy: ``index.json`` is being changed; call it again.
            SupplementedError: ``index.json`` cannot be read or written.
        """
        try:
            references = self._graph.references(top)
            if references is None:
                return
            closure = self._graph.closure(top)
        except SupplementedError:
            return
        if closure.missing:
            self._wait(top, max(closure.missing))
        elif not self._is_listed(top):
            self._list(top, references.media_type, closure)

    def blob_added(self, digest: Digest) -> None:
        """Examine the tops again that wait for a blob, now that it is there.

        Raises:
            LockBusy: See `list_if_complete`; tops that were not examined still wait.
            SupplementedError: See `list_if_complete`.
        """
        directory = self._paths.waiting_for(digest)
        for top in read_labels(directory):
            # In this order: a process that dies in between leaves a top that waits once more.
            self.list_if_complete(top)
            _stop_waiting(directory, top)
        with suppress(OSError):
            directory.rmdir()

    def unlist(self, victims: Collection[Digest]) -> None:
        """Take every top from the list that references one of some blobs, which will be evicted.

        The tops wait for the blobs to come back, unless they are evicted themselves.

        Raises:
            LockBusy: See `list_if_complete`.
            SupplementedError: The list cannot be read or written.
        """
        index = self._paths.layout.read_index()
        affected = {} if index is None else self._affected(index, victims)
        if not affected:
            return
        self._change(partial(_without, digests=affected.keys()))
        for top, lost in affected.items():
            if top not in victims and self._paths.has(top):
                with suppress(SupplementedError):  # A full disk: then the top is not listed again.
                    self._wait(top, lost)

    def _affected(self, index: LayoutIndex, victims: Collection[Digest]) -> dict[Digest, Digest]:
        """The listed tops that reference a victim, each with one of its victims."""
        affected: dict[Digest, Digest] = {}
        evicted = frozenset(victims)
        for entry in index.manifests:
            with suppress(InvalidDigestError):
                top = Digest(entry.digest)
                lost = evicted & self._graph.known_closure(top)
                if lost:
                    affected[top] = max(lost)
        return affected

    def _is_listed(self, top: Digest) -> bool:
        index = self._paths.layout.read_index()
        return index is not None and any(
            entry.digest == top and entry.annotations.get(REF_NAME) == top
            for entry in index.manifests
        )

    def _list(self, top: Digest, media_type: str, closure: Closure) -> None:
        if self._paths.durable:
            self._sync(closure)
        size = self._paths.blob(top).stat().st_size
        name = {REF_NAME: str(top)}
        entry = Descriptor(media_type=media_type, digest=top, size=size, annotations=name)
        self._change(partial(_with_top, entry=entry))

    def _sync(self, closure: Closure) -> None:
        """Sync the manifests that the top references; blobs were synced when they were added."""
        for digest in closure.manifests:
            path = self._paths.blob(digest)
            with map_write_errors(path):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        for algorithm in {digest.algorithm for digest in closure.digests}:
            sync_directory(self._paths.root / "blobs" / algorithm)

    def _wait(self, top: Digest, missing: Digest) -> None:
        directory = self._paths.waiting_for(missing)
        with map_write_errors(directory):
            directory.mkdir(exist_ok=True)
            (directory / label(top)).touch()

    def _change(self, change: partial[Tree]) -> None:
        self._paths.layout.try_update(change)

    def remove_lost(self) -> None:
        """Remove tops that wait and are not there any more. Errors are ignored."""
        with suppress(OSError):
            for directory in self._paths.waiting.iterdir():
                for top in read_labels(directory):
                    if not self._paths.has(top):
                        _stop_waiting(directory, top)
                with suppress(OSError):
                    directory.rmdir()


def _stop_waiting(directory: Path, top: Digest) -> None:
    with suppress(OSError):
        (directory / label(top)).unlink()


def _with_top(tree: Tree, *, entry: Descriptor) -> Tree:
    """An ``index.json`` that lists one top more, and at most `MAX_LISTED` of them."""
    changed = add_entry(tree, entry)
    entries = list_entries(changed)
    tops = [other for other in entries if _is_top(other)]
    dropped = {id(other) for other in tops[: max(0, len(tops) - MAX_LISTED)]}
    kept: list[Json] = [other for other in entries if id(other) not in dropped]
    return {**changed, "manifests": kept}


def _is_top(entry: Tree) -> bool:
    """Whether this module added an entry: its name is its digest."""
    return entry.get("mediaType") in KNOWN_MANIFESTS and name_of(entry) == entry.get("digest")


def _without(tree: Tree, *, digests: Collection[str]) -> Tree:
    """An ``index.json`` without the entries of some digests."""
    kept: list[Json] = [
        entry for entry in list_entries(tree) if str(entry.get("digest")) not in digests
    ]
    return {**tree, "manifests": kept}
