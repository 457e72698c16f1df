"""What a manifest in a cache reaches: everything it names, and everything that this names.

Content never changes under its digest, so that what a manifest names is read once and
remembered; only whether it is there is looked up again and again. Blocking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.aio.files import read_limited
from asupplemented.aio.lru import LRU
from asupplemented.errors import (
    LimitExceededError,
    ManifestError,
    NotFoundError,
    SupplementedError,
)
from asupplemented.limits import MAX_INSTANCES, MAX_MANIFEST, MAX_NESTING
from asupplemented.model import media_type as kinds
from asupplemented.model.digest import Digest
from asupplemented.model.index import Index
from asupplemented.model.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asupplemented.cache.layout.paths import Places, Records
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.image_manifest import ImageManifest

__all__ = ("Links", "Names", "Reach")

MAX_REMEMBERED: Final = 500_000
"""Digests that are remembered as the names in manifests, and as many as what tops reach."""

_NOT_DISTRIBUTED: Final = frozenset(
    (
        kinds.DOCKER_FOREIGN_LAYER,
        kinds.DOCKER_FOREIGN_LAYER_GZIP,
        kinds.OCI_NONDISTRIBUTABLE_LAYER,
        kinds.OCI_NONDISTRIBUTABLE_LAYER_GZIP,
        kinds.OCI_NONDISTRIBUTABLE_LAYER_ZSTD,
    )
)


class Names(NamedTuple):
    """What one manifest names."""

    manifests: tuple[tuple[Digest, str], ...] = ()
    """Manifests with their media types."""
    blobs: tuple[Digest, ...] = ()
    """All else that has to be there."""
    optional: tuple[Digest, ...] = ()
    """What need not be: layers that are fetched elsewhere, and must not be passed on."""

    @property
    def total(self) -> int:
        """How many digests these are, and the one of the manifest itself."""
        return 1 + len(self.manifests) + len(self.blobs) + len(self.optional)


class Reach(NamedTuple):
    """What a top needs."""

    manifests: tuple[Digest, ...]
    """Those that are there, the top first."""
    blobs: frozenset[Digest]
    """Whatever else it names, there or not."""
    missing: frozenset[Digest]
    """What is not there; what those would name is unknown."""
    known: bool
    """Whether all manifests are there, so that nothing else can ever belong to it."""

    @property
    def everything(self) -> frozenset[Digest]:
        """All that is to be there, as far as it is known."""
        return self.blobs.union(self.manifests)


class Links:
    """Reads what manifests name.

    Args:
        places: The paths of the cache.
        records: Which manifest is of which kind.
    """

    __slots__ = ("_known", "_places", "_records", "_whole")

    def __init__(self, places: Places, records: Records) -> None:
        self._places = places
        self._records = records
        self._whole = LRU[Digest, frozenset[Digest]](MAX_REMEMBERED, len)
        self._known = LRU[Digest, "Names | SupplementedError"](MAX_REMEMBERED, _weigh)

    def reach(self, top: Digest, kind: str | None) -> Reach:
        """Everything that a manifest needs.

        Args:
            top: Its digest.
            kind: Its media type, None to take that of its record.

        Raises:
            LimitExceededError: It names too much.
            SupplementedError: A manifest below it is none, or cannot be read.
        """
        found: dict[Digest, None] = {}
        blobs: set[Digest] = set()
        missing: set[Digest] = set()
        known = True
        for digest, names in self._walk(top, kind):
            if names is None:
                missing.add(digest)
                known = False
                continue
            found[digest] = None
            missing.update(blob for blob in names.blobs if not self._is_there(blob, blobs))
            blobs.update(names.blobs, names.optional)
        return Reach(tuple(found), frozenset(blobs), frozenset(missing), known)

    def _walk(self, top: Digest, kind: str | None) -> Iterator[tuple[Digest, Names | None]]:
        """Manifests, each once, with what they name; None for what is not there."""
        seen = {top}
        level = [(top, kind)]
        for _ in range(MAX_NESTING + 1):
            below: list[tuple[Digest, str | None]] = []
            for digest, its_kind in level:
                names = self.names(digest, its_kind)
                yield digest, names
                fresh = (
                    [entry for entry in names.manifests if entry[0] not in seen] if names else ()
                )
                below.extend(fresh)
                seen.update(digest for digest, _ in fresh)
                if len(seen) > MAX_INSTANCES:
                    message = f"{top} reaches more than {MAX_INSTANCES} manifests"
                    raise LimitExceededError(message, limit=MAX_INSTANCES, digest=top)
            if not below:
                return
            level = below
        message = f"{top} nests more than {MAX_NESTING} lists"
        raise LimitExceededError(message, limit=MAX_NESTING, digest=top)

    def names(self, digest: Digest, kind: str | None = None) -> Names | None:
        """What a manifest names; None if it is not there.

        Raises:
            SupplementedError: It is no manifest, or cannot be read.
        """
        if not self._places.has(digest):
            return None
        known = self._known.get(digest)
        if known is None:
            try:
                known = self._read(digest, kind or self._records.kind(digest))
            except (ManifestError, LimitExceededError) as error:
                known = error
            if known is None:
                return None
            self._known.put(digest, known)
        if isinstance(known, SupplementedError):
            raise type(known)(known.message, digest=digest) from known
        return known

    def _read(self, digest: Digest, kind: str | None) -> Names | None:
        try:
            raw = read_limited(self._places.blob(digest), MAX_MANIFEST, follow=False)
        except NotFoundError:
            return None
        parsed = Manifest.verified(raw, kind, digest).parse()
        return _names_of_index(parsed) if isinstance(parsed, Index) else _names_of_image(parsed)

    def _is_there(self, digest: Digest, known: set[Digest]) -> bool:
        return digest in known or self._places.has(digest)

    def try_everything(self, digest: Digest) -> frozenset[Digest]:
        """What a digest needs as far as it can be told, itself included. Never raises."""
        whole = self._whole.get(digest)
        if whole is not None:
            return whole
        try:
            reach = self.reach(digest, None)
        except SupplementedError:
            return frozenset((digest,))
        everything = reach.everything | {digest}
        if reach.known:
            self._whole.put(digest, everything)
        return everything


def _weigh(known: Names | SupplementedError) -> int:
    return 1 if isinstance(known, SupplementedError) else known.total


def _names_of_index(index: Index) -> Names:
    manifests: list[tuple[Digest, str]] = []
    blobs: list[Digest] = []
    for entry in index.manifests:
        if entry.media_type is not None and entry.media_type in kinds.KNOWN_MANIFESTS:
            manifests.append((Digest(entry.digest), entry.media_type))
        else:
            blobs.append(Digest(entry.digest))
    return Names(tuple(manifests), tuple(blobs))


def _names_of_image(manifest: ImageManifest) -> Names:
    needed: list[Digest] = []
    optional: list[Digest] = []
    for blob in manifest.blobs:
        (optional if _is_elsewhere(blob) else needed).append(Digest(blob.digest))
    return Names(blobs=tuple(needed), optional=tuple(optional))


def _is_elsewhere(blob: Descriptor) -> bool:
    return bool(blob.urls) and blob.media_type in _NOT_DISTRIBUTED
