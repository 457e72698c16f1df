"""An OCI layout as a store: its paths, its ``index.json``, and changing that file safely.

``index.json`` is replaced as a whole, under a lock between processes, so that it can be read at
any time and no change is lost. Blobs have no lock: they are content-addressed, and renamed into
place when they are whole (`asupplemented.aio.atomic`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import msgspec

from asupplemented.aio.atomic import sync_directory, write_file
from asupplemented.aio.beneath import Follow, read_beneath
from asupplemented.aio.locks import LOCK_FILE, LockBusy, retry_while_locked, try_lock
from asupplemented.errors import (
    LimitExceededError,
    MalformedManifestError,
    NotFoundError,
)
from asupplemented.limits import MAX_MANIFEST
from asupplemented.model import strict_json
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.strict_json import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.abc import Context
    from asupplemented.model.digest import Digest
    from asupplemented.model.manifest import Manifest
    from asupplemented.model.platform import Platform

__all__ = (
    "INDEX_FILE",
    "LAYOUT_FILE",
    "REF_NAME",
    "IndexChange",
    "LayoutIndex",
    "LayoutStore",
    "Tree",
    "add_beside",
    "add_entry",
    "describe",
    "list_entries",
    "name_of",
)

INDEX_FILE: Final = "index.json"
LAYOUT_FILE: Final = "oci-layout"
REF_NAME: Final = "org.opencontainers.image.ref.name"
"""The annotation that names an entry of ``index.json``."""

_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
Tree: TypeAlias = dict[str, Json]
IndexChange: TypeAlias = Callable[[Tree], Tree]
"""Makes the new document from the old one, which it leaves as it is."""


class LayoutIndex(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename="camel",
):
    """The content of ``index.json``. Entries are as written; their digests are unchecked text."""

    schema_version: int = 0
    media_type: str | None = None
    artifact_type: str | None = None
    manifests: tuple[Descriptor, ...] = ()
    annotations: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class LayoutStore:
    """The files of one layout. Methods block unless they are ``async``.

    Attributes:
        root: The directory that holds ``index.json``.
        blobs: The directory that holds ``<algorithm>/<hex>``: ``blobs`` within `root`, or one
            that several layouts share (rule OC-09).
        durable: Whether the bytes of a file are on the disk before it is named.
        follow: Whether a file may be a symbolic link (rules DI-07, OC-10).
    """

    root: Path
    blobs: Path
    durable: bool = True
    follow: bool = True

    @classmethod
    def at(
        cls,
        root: str | Path,
        *,
        shared: str | Path | None = None,
        durable: bool = True,
        follow: bool = True,
    ) -> LayoutStore:
        """The layout in a directory, which need not be there yet."""
        root = Path(root)
        return cls(root, root / "blobs" if shared is None else Path(shared), durable, follow)

    @property
    def blob_root(self) -> Path:
        """The directory below which links are not trusted: `root`, or the shared directory."""
        return self.root if self.blobs == self.root / "blobs" else self.blobs

    def blob_path(self, digest: Digest) -> str:
        """Where a blob or manifest is, or would be (rule OC-03)."""
        return f"{self.blobs}/{digest.algorithm}/{digest.encoded}"

    @property
    def blob_prefix(self) -> str:
        """What leads from `blob_root` to ``<algorithm>/<hex>``."""
        return "blobs/" if self.blobs == self.root / "blobs" else ""

    def is_marked(self) -> bool:
        """Whether there is a file ``oci-layout``; its content is not read."""
        path = self.root / LAYOUT_FILE
        return os.access(path, os.F_OK) and (self.follow or not path.is_symlink())

    def mark(self) -> None:
        """Write ``oci-layout`` if it is not there.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        if not self.is_marked():
            self._write(LAYOUT_FILE, _LAYOUT)

    def read_index(self) -> LayoutIndex | None:
        """Read ``index.json``; what follows the JSON object in it is ignored (rule J-08).

        Returns:
            None if there is no such file.

        Raises:
            LimitExceededError: It is larger than ``MAX_MANIFEST`` (rule L-03).
            MalformedManifestError: It is no index.
            SourceError: It cannot be read, or is no regular file.
        """
        path = self.root / INDEX_FILE
        raw = self._read_index_file()
        if raw is None:
            return None
        return strict_json.decode(raw, LayoutIndex, what=str(path), trailing=True)

    async def update_index(self, context: Context, change: IndexChange) -> None:
        """Change ``index.json`` under the lock, and write ``oci-layout`` if it is not there.

        No other change is lost, whichever process or thread makes it.

        Args:
            context: The session, whose threads write and whose clock waits.
            change: Called in a thread.

        Raises:
            SourceTimeoutError: Another process held the lock for a minute.
            LimitExceededError: The file is or would be larger than ``MAX_MANIFEST``.
            MalformedManifestError: What is there is no index; it is left alone.
            SourceError: Reading or writing failed; what was there is still there.
        """
        update = partial(self.try_update, change)
        await retry_while_locked(context, self.root / LOCK_FILE, update)

    def try_update(self, change: IndexChange) -> None:
        """Change ``index.json`` as `update_index` does, without waiting for the lock. Blocking.

        Raises:
            LockBusy: The lock is held elsewhere, and nothing was done.
            SupplementedError: See `update_index`.
        """
        with try_lock(self.root / LOCK_FILE) as held:
            if not held:
                raise LockBusy
            self._update(change)

    def _update(self, change: IndexChange) -> None:
        raw = self._read_index_file()
        data = self._changed(raw, change)
        self.mark()
        if data != raw:
            self._write(INDEX_FILE, data)
        if self.durable:
            sync_directory(self.root)

    def _read_index_file(self) -> bytes | None:
        follow = Follow.INSIDE if self.follow else Follow.NONE
        try:
            return read_beneath(str(self.root), INDEX_FILE, MAX_MANIFEST, follow=follow)
        except NotFoundError:
            return None

    def _changed(self, raw: bytes | None, change: IndexChange) -> bytes:
        what = str(self.root / INDEX_FILE)
        if raw is None:
            tree: Tree = {"schemaVersion": 2}
        else:
            tree = strict_json.load(raw, what=what, trailing=True)
            strict_json.convert(tree, LayoutIndex, what=what)
        data = _encode(change(tree), what)
        if len(data) > MAX_MANIFEST:
            message = f"{what} would exceed the maximum allowed size of {MAX_MANIFEST} bytes"
            raise LimitExceededError(message, limit=MAX_MANIFEST)
        return data

    def _write(self, name: str, data: bytes) -> None:
        root = self.root
        write_file(root / name, data, staging=root, root=root, durable=self.durable)


def add_entry(tree: Tree, entry: Descriptor) -> Tree:
    """An ``index.json`` with one more entry (rule OC-12).

    An older entry of the same name loses its name and stays. The new entry takes the place of a
    nameless entry of the same digest, which the older entry may just have become.

    Args:
        tree: The document, which is not changed.
        entry: What to add; its name is the annotation `REF_NAME`.
    """
    name = entry.annotations.get(REF_NAME)
    entries = [
        _without_name(old) if name and name_of(old) == name else old for old in list_entries(tree)
    ]
    fresh = entry.to_dict()
    for position, old in enumerate(entries):
        if old.get("digest") == entry.digest and not name_of(old):
            entries[position] = fresh
            break
    else:
        entries.append(fresh)
    return {**tree, "manifests": list[Json](entries)}


def add_beside(tree: Tree, images: Sequence[Descriptor]) -> Tree:
    """An ``index.json`` that also lists images without a name, unless it lists them already.

    Args:
        tree: The document, which is not changed.
        images: What to list, in order.
    """
    entries = list_entries(tree)
    known = {str(entry.get("digest")) for entry in entries}
    fresh = {image.digest: image.to_dict() for image in images}
    entries += [entry for digest, entry in fresh.items() if digest not in known]
    return {**tree, "manifests": list[Json](entries)}


def describe(
    manifest: Manifest, platform: Platform | None = None, image: str | None = None
) -> Descriptor:
    """The entry of a manifest, its media type kept as it is.

    Args:
        manifest: What is listed.
        platform: What it runs on, None if not known.
        image: The name of the entry, None for none.
    """
    return Descriptor(
        media_type=manifest.media_type,
        digest=manifest.digest,
        size=manifest.size,
        platform=platform,
        annotations={} if image is None else {REF_NAME: image},
    )


def _encode(tree: Tree, what: str) -> bytes:
    try:
        return json.dumps(tree, separators=(",", ":"), allow_nan=False).encode("ascii")
    except ValueError as error:
        message = f"{what} holds a number that is too large to be written again; repair the file"
        raise MalformedManifestError(message) from error


def list_entries(tree: Tree) -> list[Tree]:
    """The entries of an ``index.json`` in order, without those that are no objects."""
    manifests = tree.get("manifests")
    if not isinstance(manifests, list):
        return []
    return [entry for entry in manifests if isinstance(entry, dict)]


def name_of(entry: Tree) -> str | None:
    """The name of an entry, None if it has none."""
    annotations = entry.get("annotations")
    name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) and name else None


def _without_name(entry: Tree) -> Tree:
    annotations = cast("Tree", entry["annotations"])
    others = {key: value for key, value in annotations.items() if key != REF_NAME}
    bare = {key: value for key, value in entry.items() if key != "annotations"}
    return {**bare, "annotations": others} if others else bare
