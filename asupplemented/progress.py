"""What is told of a copy, or of a prefetch, while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest

__all__ = (
    "BlobAdvanced",
    "BlobCopied",
    "BlobReused",
    "CopyPlanned",
    "CopyProgress",
    "PrefetchReport",
)


class CopyPlanned(NamedTuple):
    """All manifests were read: this is what the copy consists of."""

    manifests: int
    blobs: int
    bytes: int | None
    """Of all blobs; None if a manifest does not tell the size of one."""


class BlobAdvanced(NamedTuple):
    """A blob is on its way."""

    blob: Descriptor
    received: int
    """Bytes so far; 0 when a source has answered."""


class BlobCopied(NamedTuple):
    """A blob is in the destination, verified."""

    blob: Descriptor
    size: int
    member: int | None
    """The member of a group that served its end, None outside of a group."""


class BlobReused(NamedTuple):
    """A blob was in the destination before."""

    blob: Descriptor


CopyProgress: TypeAlias = CopyPlanned | BlobAdvanced | BlobCopied | BlobReused


class PrefetchReport(NamedTuple):
    """What a prefetch did."""

    digest: Digest
    """Of the top manifest."""
    manifests: int
    """Manifests that are in the cache now, or will be in a moment."""
    blobs: int
    """Blobs that were fetched."""
    bytes: int
    """Of these blobs."""
    reused_blobs: int
    """Blobs that were there before: in the cache, or in files of this machine."""
    missing: tuple[Digest, ...]
    """Manifests and blobs that nobody supplied."""
    seconds: float
