"""What the registry asks of a catalog. `asupplemented.Catalog` is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from asupplemented.abc import BlobStream, ManifestTrace
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.model.manifest import Manifest
    from asupplemented.session import Session

__all__ = ("PeeksManifests", "ServedCatalog", "ServedImage", "ServedManifest")


class ServedManifest(Protocol):
    """A manifest, and what an image says of it; see `ServedImage`."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def origin(self) -> ManifestTrace | None: ...

    @property
    def stale(self) -> bool: ...

    @property
    def age(self) -> float: ...


class ServedImage(Protocol):
    """An open image of a catalog. Closing it ends the use of it, not the image."""

    @property
    def stale(self) -> bool:
        """Whether upstream could not be asked for the tag, so that it may have moved."""
        ...

    @property
    def age(self) -> float:
        """Seconds since upstream was asked for the tag; 0 for a digest."""
        ...

    @property
    def origin(self) -> ManifestTrace | None:
        """Where the manifest comes from, once it was asked for; None if that is unknown."""
        ...

    async def get_manifest(self) -> Manifest:
        """The manifest that was asked for."""
        ...

    def open_blob(
        self, digest: Digest | str, /, *, start: int = 0, end: int | None = None
    ) -> BlobStream:
        """A stream over ``[start, end)`` of a blob; see `Source.open_blob`."""
        ...

    async def describe_blob(self, digest: Digest | str, /) -> Descriptor | None:
        """What the manifests say about the blob of a digest; None if this name does not have it."""
        ...


class ServedCatalog(Protocol):
    """Names, and the images that they stand for."""

    def open(
        self,
        session: Session,
        name: str,
        reference: str | None = None,
        *,
        registry: str | None = None,
        blob: bool = False,
    ) -> AbstractAsyncContextManager[ServedImage]:
        """The image of a tag or digest; see `Catalog.open`."""
        ...

    async def list_tags(
        self, session: Session, name: str, *, registry: str | None = None
    ) -> Sequence[str]:
        """All tags of a name; see `Catalog.list_tags`."""
        ...

    async def list_referrers(
        self,
        session: Session,
        name: str,
        digest: Digest | str,
        *,
        registry: str | None = None,
        artifact_type: str | None = None,
    ) -> Sequence[Descriptor]:
        """What refers to a manifest; see `Catalog.list_referrers`."""
        ...


@runtime_checkable
class PeeksManifests(Protocol):
    """A catalog that has manifests in memory."""

    def peek(
        self, session: Session, name: str, reference: str, *, registry: str | None = None
    ) -> ServedManifest | None:
        """What `ServedCatalog.open` gives, if nothing has to be waited for; else None."""
        ...
