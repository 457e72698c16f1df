"""What a manifest in a cache references, directly and transitively. Blocking.

Content never changes under its digest, so the references of a manifest are read once and kept in
memory. They depend on its bytes alone: its media type is the one that the bytes tell, whatever
sources and other manifests call it. So no image changes what is known of another one. Whether the
referenced blobs are there is looked up every time.
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
from asupplemented.model import media_type as types
from asupplemented.model.digest import Digest
from asupplemented.model.index import Index
from asupplemented.model.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asupplemented.cache.layout.paths import CachePaths
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.image_manifest import ImageManifest

__all__ = ("Closure", "ManifestGraph", "References")

MAX_REMEMBERED: Final = 500_000
"""Digests that are kept in memory: so many as references, and so many as closures."""


class References(NamedTuple):
    """What one manifest references."""

    media_type: str
    """The media type of the manifest itself, by its bytes."""
    manifests: tuple[Digest, ...] = ()
    blobs: tuple[Digest, ...] = ()
    """All other blobs that a complete image has."""
    optional: tuple[Digest, ...] = ()
    """Blobs that may be missing: layers that are fetched elsewhere, and must not be passed on."""

    @property
    def total(self) -> int:
        """How many digests these are, and the one of the manifest itself."""
        return 1 + len(self.manifests) + len(self.blobs) + len(self.optional)


class Closure(NamedTuple):
    """What a manifest references transitively."""

    manifests: tuple[Digest, ...]
    """The manifests that are there, beginning with the manifest itself."""
    blobs: frozenset[Digest]
    """All other references, there or not."""
    missing: frozenset[Digest]
    """References that a complete image has and that are not there."""
    final: bool
    """Whether all manifests are there, so that the closure will never grow."""

    @property
    def digests(self) -> frozenset[Digest]:
        """All digests of the closure, as far as they are known."""
        return self.blobs.union(self.manifests)


class ManifestGraph:
    """The references between the manifests of a cache. For any thread.

    Args:
        paths: The paths of the cache.
    """

    __slots__ = ("_closures", "_paths", "_references")

    def __init__(self, paths: CachePaths) -> None:
        self._paths = paths
        self._closures = LRU[Digest, frozenset[Digest]](MAX_REMEMBERED, len)
        self._references = LRU[Digest, "References | SupplementedError"](MAX_REMEMBERED, _weigh)

    def closure(self, top: Digest, *, strict: bool = True) -> Closure:
        """Everything that a manifest references transitively.

        Args:
            top: Its digest.
            strict: Whether to raise if a part of it cannot be found out. Otherwise that part is
                left out, and the closure is not final.

        Raises:
            LimitExceededError: It references too many manifests, or nests them too deeply.
            SupplementedError: A manifest of the closure is malformed, or cannot be read.
        """
        found: dict[Digest, None] = {}
        blobs: set[Digest] = set()
        missing: set[Digest] = set()
        final = True
        for digest, references in self._walk(top, strict=strict):
            if references is None:
                missing.add(digest)
                final = False
                continue
            found[digest] = None
            missing.update(blob for blob in references.blobs if not self._is_there(blob, blobs))
            blobs.update(references.blobs, references.optional)
        return Closure(tuple(found), frozenset(blobs), frozenset(missing), final)

    def _walk(self, top: Digest, *, strict: bool) -> Iterator[tuple[Digest, References | None]]:
        """Manifests, each once and level by level, with their references; None if unknown."""
        seen = {top}
        level = [top]
        for _ in range(MAX_NESTING + 1):
            below: list[Digest] = []
            for digest in level:
                references = self._references_of(digest, strict=strict)
                yield digest, references
                entries = references.manifests if references else ()
                fresh = [entry for entry in entries if entry not in seen]
                if len(seen) + len(fresh) > MAX_INSTANCES:
                    if not strict:
                        yield digest, None
                        return
                    message = f"{top} references more than {MAX_INSTANCES} manifests"
                    raise LimitExceededError(message, limit=MAX_INSTANCES, digest=top)
                below.extend(fresh)
                seen.update(fresh)
            if not below:
                return
            level = below
        if strict:
            message = f"{top} nests more than {MAX_NESTING} indexes"
            raise LimitExceededError(message, limit=MAX_NESTING, digest=top)
        yield from ((digest, None) for digest in level)

    def _references_of(self, digest: Digest, *, strict: bool) -> References | None:
        try:
            return self.references(digest)
        except SupplementedError:
            if strict:
                raise
            return None

    def references(self, digest: Digest) -> References | None:
        """What one manifest references; None if it is not there.

        Raises:
            SupplementedError: It is malformed, or cannot be read.
        """
        if not self._paths.has(digest):
            return None
        known = self._references.get(digest)
        if known is None:
            try:
                known = self._read(digest)
            except (ManifestError, LimitExceededError) as error:
                known = error  # Kept, too: the same bytes will be malformed next time.
            if known is None:
                return None
            self._references.put(digest, known)
        if isinstance(known, SupplementedError):
            raise type(known)(known.message, digest=digest) from known
        return known

    def _read(self, digest: Digest) -> References | None:
        try:
            raw = read_limited(self._paths.blob(digest), MAX_MANIFEST, follow=False)
        except NotFoundError:
            return None
        manifest = Manifest.verified(raw, None, digest)
        parsed = manifest.parse()
        if isinstance(parsed, Index):
            return _references_of_index(parsed, manifest.media_type)
        return _references_of_image(parsed, manifest.media_type)

    def _is_there(self, digest: Digest, known: set[Digest]) -> bool:
        return digest in known or self._paths.has(digest)

    def known_closure(self, digest: Digest) -> frozenset[Digest]:
        """The digests of a closure as far as they are known, itself included. Never raises."""
        known = self._closures.get(digest)
        if known is not None:
            return known
        closure = self.closure(digest, strict=False)
        digests = closure.digests | closure.missing | {digest}
        if closure.final:
            self._closures.put(digest, digests)
        return digests


def _weigh(known: References | SupplementedError) -> int:
    return 1 if isinstance(known, SupplementedError) else known.total


def _references_of_index(index: Index, media_type: str) -> References:
    manifests: list[Digest] = []
    blobs: list[Digest] = []
    for entry in index.manifests:
        if entry.media_type is not None and entry.media_type in types.KNOWN_MANIFESTS:
            manifests.append(Digest(entry.digest))
        else:
            blobs.append(Digest(entry.digest))
    return References(media_type, tuple(manifests), tuple(blobs))


def _references_of_image(manifest: ImageManifest, media_type: str) -> References:
    needed: list[Digest] = []
    optional: list[Digest] = []
    for blob in manifest.blobs:
        (optional if _is_elsewhere(blob) else needed).append(Digest(blob.digest))
    return References(media_type, blobs=tuple(needed), optional=tuple(optional))


def _is_elsewhere(blob: Descriptor) -> bool:
    return bool(blob.urls) and blob.media_type in types.NON_DISTRIBUTABLE
