"""The contracts between the rooms of the house, and for those who write adapters.

A transport writes a `SourceAdapter`: raw bytes, unverified. Everything above sees a `Source`,
which verifies. What an adapter can do beyond the minimum it shows by implementing one of the
small ability protocols (`Batched`, `LocalFile`, `Signed`, ...), which are asked for with
``isinstance``.
"""

from __future__ import annotations

from asupplemented.abc.abilities import (
    Batched,
    BlobPlace,
    Hasty,
    LayersForCopy,
    LocalFile,
    Named,
    Placed,
    Ranged,
    RawPart,
    RawParts,
    Referring,
    Resumable,
    SelfTimed,
    Signed,
)
from asupplemented.abc.adapter import BlobFile, RawBlob, RawManifest, SourceAdapter
from asupplemented.abc.blob import BlobCandidate, BlobStream, Served
from asupplemented.abc.caching import BlobCache, Lease, Spool, Tenure
from asupplemented.abc.context import Context, CredentialProvider, Hook, Share
from asupplemented.abc.destination import Destination, Listing
from asupplemented.abc.reference import Reference, RemoteReference, WritableReference
from asupplemented.abc.resources import AsyncResource, Opening, ResourceKey, Setting, Timeouts
from asupplemented.abc.source import Source

__all__ = (
    "AsyncResource",
    "Batched",
    "BlobCache",
    "BlobCandidate",
    "BlobFile",
    "BlobPlace",
    "BlobStream",
    "Context",
    "CredentialProvider",
    "Destination",
    "Hasty",
    "Hook",
    "LayersForCopy",
    "Lease",
    "Listing",
    "LocalFile",
    "Named",
    "Opening",
    "Placed",
    "Ranged",
    "RawBlob",
    "RawManifest",
    "RawPart",
    "RawParts",
    "Reference",
    "Referring",
    "RemoteReference",
    "ResourceKey",
    "Resumable",
    "SelfTimed",
    "Served",
    "Setting",
    "Share",
    "Signed",
    "Source",
    "SourceAdapter",
    "Spool",
    "Tenure",
    "Timeouts",
    "WritableReference",
)
