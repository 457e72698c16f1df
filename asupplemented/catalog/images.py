"""Open images, shared by leases, the least recently used of which are closed.

A lease keeps an image open. An image that is replaced or evicted is *retired*: no lease of it
begins any more, and it is closed with its last lease, at once if it has none. So what is in use is
never closed, and `OpenImages` bounds what is open without being used.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.abc import AsyncResource, ManifestTrace
from asupplemented.aio.breaker import ReportOnce
from asupplemented.aio.closing import close_all
from asupplemented.aio.lru import LRU
from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    InstanceNotFoundError,
    NotFoundError,
    RangeError,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.supplemented.source import SupplementedSource

if TYPE_CHECKING:
    from collections.abc import Hashable

    from asupplemented.abc import BlobStream, Source
    from asupplemented.errors import SupplementedError
    from asupplemented.events import CacheUse
    from asupplemented.model.manifest import Manifest
    from asupplemented.supplemented.resolution import Resolution

__all__ = (
    "CatalogEntry",
    "CatalogImage",
    "HeldManifest",
    "ImageKey",
    "OpenImage",
    "OpenImages",
    "Scope",
    "describe_blob",
)

REOPEN_AFTER: Final = 60.0
"""Seconds after which a supplement that failed is tried again; doubled while it fails."""

MAX_BLOBS: Final = 1024
"""Blobs of one repository that are known to be there, though no open manifest names them."""


class Scope:
    """What shares open images: a name of the catalog, as one identity sees it.

    Its hash is computed once, because a request looks for it several times.

    Args:
        identity: The session, its principal and its credentials.
        group: What the name stands for.
    """

    __slots__ = ("_hash", "_parts", "identity")

    def __init__(self, identity: Hashable, group: Hashable) -> None:
        self.identity = identity
        self._parts = (identity, group)
        self._hash = hash(self._parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scope):
            return NotImplemented
        return self._hash == other._hash and self._parts == other._parts

    def __hash__(self) -> int:
        return self._hash


class ImageKey(NamedTuple):
    """Under which an image is open."""

    scope: Scope
    which: str
    """The tag or digest that was asked for."""


class CatalogEntry(NamedTuple):
    """An image that a catalog keeps open."""

    name: str
    """The name that it was opened by, with its registry if the client named one."""
    reference: str
    """The tag or digest that was asked for."""
    resolution: Resolution
    """Which member serves what."""
    leases: int
    """Requests that use it."""
    stale: bool
    """Whether it could not be confirmed when that was due."""
    age: float | None
    """Seconds since it was confirmed last; None for a digest, which never changes."""


class HeldManifest(NamedTuple):
    """A manifest in memory, with what `CatalogImage` says of it."""

    manifest: Manifest
    origin: ManifestTrace
    stale: bool
    age: float


class OpenImage(AsyncResource):
    """An open source, and what is known of it.

    Attributes:
        source: The source.
        digest: The digest of its default manifest; None for a repository without one.
        name: The name that it was opened by, with its registry if the client named one.
        owner: Stands for the session that opened it.
        confirmed: When it was known last to be what its reference names, by the clock.
        due: When it is confirmed again, by the clock.
        opened: When it was opened, by the clock.
        failed: Whether it could not be confirmed when it was due.
        trouble: Tells once that it cannot be confirmed.
        reopen_after: Seconds after which it is opened again to include supplements that failed.
        blobs: Blobs that the repository has, and no manifest that is known here names.
        held: Manifests that the source was asked for and has in memory, and where further requests
            are told that they come from.
        listed: Manifests that it lists and that were not read yet.
    """

    __slots__ = (
        "_retired",
        "_users",
        "blobs",
        "confirmed",
        "digest",
        "due",
        "failed",
        "held",
        "listed",
        "name",
        "opened",
        "owner",
        "reopen_after",
        "source",
        "trouble",
    )

    def __init__(
        self,
        source: Source,
        digest: Digest | None = None,
        *,
        listed: frozenset[str] = frozenset(),
    ) -> None:
        self.source = source
        self.listed = listed
        self.digest = digest
        self.name = ""
        self.owner: object = None
        self.confirmed = 0.0
        self.due = 0.0
        self.failed = False
        self.opened = 0.0
        self.reopen_after = REOPEN_AFTER
        self.trouble = ReportOnce()
        self.blobs = LRU[str, Descriptor](MAX_BLOBS)
        self.held: dict[str, tuple[Manifest, ManifestTrace]] = {}
        self._users = 0
        self._retired = False

    @property
    def users(self) -> int:
        """Leases that were not closed."""
        return self._users

    def age(self, now: float) -> float:
        """Seconds since it was known last to be what its reference names."""
        return max(now - self.confirmed, 0.0)

    def confirm(self, now: float, ttl: float) -> None:
        """Note that it is what its reference names."""
        self.confirmed = now
        self.due = now + ttl
        self.failed = False
        self.trouble.end()

    def list_failures(self) -> tuple[SupplementedError, ...]:
        """What the supplements failed with that were left out when it was opened."""
        source = self.source
        if not isinstance(source, SupplementedSource):
            return ()
        return tuple(source.resolution.unavailable.values())

    def has_manifest(self, digest: str) -> bool:
        """Whether it serves a manifest of that digest."""
        source = self.source
        return isinstance(source, SupplementedSource) and digest in source.resolution.sources

    def find_blob(self, digest: Digest) -> Descriptor | None:
        """What is known of a blob, None if it is not known to be here."""
        source = self.source
        if isinstance(source, SupplementedSource) and digest in source.resolution.blobs:
            return source.resolution.descriptor(digest)
        return self.blobs.get(digest)

    def peek(self, digest: str, *, stale: bool, age: float) -> HeldManifest | None:
        """A manifest that is in memory, None if the source has to be asked for it."""
        held = self.held.get(digest)
        if held is None or self._retired:
            return None
        manifest, origin = held
        if stale:
            origin = _tell_origin(origin, None, stale=True)
        return HeldManifest(manifest, origin, stale, age)

    def acquire(self) -> bool:
        """Begin a lease; False if the image was retired."""
        self._users += not self._retired
        return not self._retired

    def forget(self) -> None:
        """End a lease that was not closed. An image that was retired by then stays open."""
        self._users -= 1

    async def release(self) -> None:
        """End a lease."""
        self._users -= 1
        if self._retired and not self._users:
            await self.source.aclose()

    async def aclose(self) -> None:
        """Retire the image: close it, or let its last lease do so."""
        if self._retired:
            return
        self._retired = True
        if not self._users:
            await self.source.aclose()


class OpenImages(AsyncResource):
    """Images by scope and tag or digest.

    Args:
        limit: The most images that are kept open.
    """

    __slots__ = ("_by_scope", "_used")

    def __init__(self, limit: int) -> None:
        self._used = LRU[ImageKey, None](limit)
        self._by_scope: dict[Scope, dict[str, OpenImage]] = {}

    def find(self, key: ImageKey) -> OpenImage | None:
        """The image of a tag or digest; it counts as used now."""
        found = self._by_scope.get(key.scope, {}).get(key.which)
        if found is not None:
            self._used.get(key)
        return found

    def find_manifest(self, scope: Scope, digest: str) -> OpenImage | None:
        """An image of a scope that serves a manifest."""
        for which, image in self._by_scope.get(scope, {}).items():
            if image.has_manifest(digest):
                self._used.get(ImageKey(scope, which))
                return image
        return None

    def lists(self, scope: Scope, digest: Digest) -> bool:
        """Whether an image of a scope lists a manifest that was not read with it."""
        return any(digest in image.listed for image in self._by_scope.get(scope, {}).values())

    def find_blob(self, scope: Scope, digest: Digest) -> OpenImage | None:
        """An image of a scope that serves a blob."""
        for which, image in self._by_scope.get(scope, {}).items():
            if image.find_blob(digest) is not None:
                self._used.get(ImageKey(scope, which))
                return image
        return None

    async def put(self, key: ImageKey, image: OpenImage) -> None:
        """Add an image in the place of the one that is there, and retire the oldest ones.

        Raises:
            ExceptionGroup: An image failed to close; the new one is there.
        """
        images = self._by_scope.setdefault(key.scope, {})
        retired = [images[key.which]] if key.which in images else []
        images[key.which] = image
        retired += [self._take(evicted) for evicted in self._used.put(key, None)]
        await close_all(retired, "images that are not served any more")

    async def drop(self, key: ImageKey) -> None:
        """Retire an image, if it is there."""
        if key in self._used:
            self._used.pop(key)
            await self._take(key).aclose()

    def _take(self, key: ImageKey) -> OpenImage:
        images = self._by_scope[key.scope]
        image = images.pop(key.which)
        if not images:
            del self._by_scope[key.scope]
        return image

    def items(self) -> list[tuple[ImageKey, OpenImage]]:
        """All images with their keys."""
        return [
            (ImageKey(scope, which), image)
            for scope, images in self._by_scope.items()
            for which, image in images.items()
        ]

    def values(self) -> list[OpenImage]:
        """All images."""
        return [image for _, image in self.items()]

    @property
    def scopes(self) -> int:
        """Scopes with an open image."""
        return len(self._by_scope)

    async def aclose(self) -> None:
        """Retire all images; those that are leased are closed with their last lease."""
        images = self.values()
        self._by_scope.clear()
        self._used.clear()
        await close_all(images, "the images of a catalog")

    def __len__(self) -> int:
        return len(self._used)


class CatalogImage(AsyncResource):
    """An open image of a catalog, leased. Made by `Catalog.open`.

    Closing it ends the lease; the image stays open.

    Attributes:
        image: The source, which the catalog closes.
        digest: The digest that was asked for, or that the tag has.
        stale: Whether the upstream could not say that the tag still has this digest.
        age: Seconds since it was known last that the tag has this digest; 0 for a digest.
        origin: Where the manifest comes from, once it was asked for.
    """

    __slots__ = ("_opened", "_use", "age", "digest", "image", "origin", "stale")

    def __init__(
        self,
        opened: OpenImage,
        digest: Digest,
        *,
        stale: bool = False,
        age: float = 0.0,
        use: CacheUse = "hit",
    ) -> None:
        self._use: CacheUse = use
        """What it took to open the image."""
        self.origin: ManifestTrace | None = None
        self.image: Source = opened.source
        self.digest = digest
        self.stale = stale
        self.age = age
        self._opened: OpenImage | None = opened

    async def get_manifest(self) -> Manifest:
        """The manifest of `digest`, verified.

        Raises:
            InstanceNotFoundError: The digest is that of a blob.
            SourceError: The member that serves it failed.
            ClosedError: The lease has ended.
        """
        opened = self._leased()
        if not opened.has_manifest(self.digest):
            message = "this is the digest of a blob, not of a manifest"
            raise InstanceNotFoundError(message, digest=self.digest, digests=(self.digest,))
        before = self.image.trace_manifest(self.digest)
        manifest = await self.image.get_manifest(self.digest)
        origin = before if before.held else self.image.trace_manifest(self.digest)
        if origin.held:
            opened.held[self.digest] = manifest, _tell_origin(origin, "hit", stale=False)
        self.origin = _tell_origin(origin, self._use if before.held else None, stale=self.stale)
        return manifest

    def open_blob(
        self,
        blob: Digest | str | Descriptor,
        *,
        start: int = 0,
        end: int | None = None,
        shared: bool = True,
    ) -> BlobStream:
        """A stream over ``[start, end)`` of a blob, not yet opened; see `Source.open_blob`.

        Close the stream before the lease. ``shared=False`` keeps it to this reader.

        Raises:
            InvalidDigestError: `blob` is no digest.
            BlobNotFoundError: The image does not name the blob.
            RangeError: ``start < 0`` or ``end < start``.
            ClosedError: The lease has ended.
        """
        digest = Digest(blob.digest if isinstance(blob, Descriptor) else blob)
        known = self._leased().find_blob(digest)
        if known is None:
            message = "the image does not name this blob"
            raise BlobNotFoundError(message, reference=self.image.reference, digest=digest)
        return self.image.open_blob(known, start=start, end=end, shared=shared)

    async def describe_blob(self, digest: Digest | str) -> Descriptor | None:
        """What is known of a blob, None if the image does not name it. No body is read.

        Its size is that of the manifest that names it. If no manifest says it, the source is
        asked.

        Raises:
            InvalidDigestError: `digest` is no digest.
            SourceError: The source had to be asked, and failed.
            ClosedError: The lease has ended.
        """
        opened = self._leased()
        known = opened.find_blob(Digest(digest))
        if known is None or known.size is not None:
            return known
        return await describe_blob(opened.source, Digest(digest))

    def _leased(self) -> OpenImage:
        if self._opened is None:
            message = "the image was closed; open it again with the catalog"
            raise ClosedError(message, reference=self.image.reference)
        return self._opened

    async def aclose(self) -> None:
        """End the lease. The image is closed only if the catalog does not keep it any more."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.release()

    def __del__(self) -> None:
        opened: OpenImage | None = getattr(self, "_opened", None)
        if opened is not None:
            opened.forget()
            message = f"unclosed {self!r}; use it with 'async with', or await its aclose()"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        state = "closed" if self._opened is None else "stale" if self.stale else "open"
        return f"<CatalogImage {self.digest}, {state}>"


def _tell_origin(origin: ManifestTrace, use: CacheUse | None, *, stale: bool) -> ManifestTrace:
    """Where a manifest comes from, for one request.

    Args:
        origin: What the source says.
        use: What it took to open the image, if the manifest was in memory then.
        stale: Whether the image is stale.
    """
    if stale:
        return ManifestTrace(origin.reference, "stale", origin.held)
    if use is not None and origin.cache_use == "miss":
        return ManifestTrace(origin.reference, use, origin.held)
    return origin


async def describe_blob(source: Source, digest: Digest) -> Descriptor:
    """Ask a source whether it has a blob, and for its size, by reading one byte of it.

    Some caches answer HEAD of a blob with 404 and yet serve it, so GET is what counts.

    Raises:
        BlobNotFoundError: The source does not have it.
        UnsupportedOperationError: The source cannot say.
        SourceError: The source failed.
    """
    missing: NotFoundError = BlobNotFoundError("the source does not hold this blob", digest=digest)
    for candidate in source.blob_candidates(Descriptor(digest=digest)):
        body = candidate.open(0, 1)
        try:
            async with body:
                async for _ in body:
                    break
        except RangeError:
            return Descriptor(digest=digest, size=0)  # there is no first byte
        except NotFoundError as error:
            missing = error
        else:
            return Descriptor(digest=digest, size=body.size)
    raise missing
