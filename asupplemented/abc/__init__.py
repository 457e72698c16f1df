"""The contracts between the parts of the library, and for authors of adapters.

A transport writes a `SourceAdapter`: raw bytes, unverified. Everything above sees a `Source`,
which verifies. What an adapter can do beyond the minimum it shows by implementing one of the
small ability protocols (`Batched`, `LocalFile`, `Signed`, ...), which are asked for with
``isinstance``.
"""

from __future__ import annotations

from asupplemented.abc.adapter import (
    Batched,
    BlobConcurrency,
    BlobFile,
    BlobPlace,
    Hasty,
    LayersForCopy,
    LocalFile,
    Named,
    Placed,
    Ranged,
    RawBlob,
    RawManifest,
    RawPart,
    RawParts,
    Referring,
    Resumable,
    SelfTimed,
    Signed,
    SourceAdapter,
    StreamsBlobs,
)
from asupplemented.abc.blob import BlobCandidate, BlobStream, Served
from asupplemented.abc.cache import BlobCache, Lease, LeaseProvider, Spool
from asupplemented.abc.context import Context, CredentialProvider, Hook, Share
from asupplemented.abc.resource import AsyncResource, Opening, ResourceKey, Setting, Timeouts
from asupplemented.abc.source import (
    Destination,
    GroupReference,
    GroupSource,
    Listing,
    Reference,
    RemoteReference,
    RepositoryReference,
    Source,
    WritableReference,
)

__all__ = (
    "AsyncResource",
    "Batched",
    "BlobCache",
    "BlobCandidate",
    "BlobConcurrency",
    "BlobFile",
    "BlobPlace",
    "BlobStream",
    "Context",
    "CredentialProvider",
    "Destination",
    "GroupReference",
    "GroupSource",
    "Hasty",
    "Hook",
    "LayersForCopy",
    "Lease",
    "LeaseProvider",
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
    "RepositoryReference",
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
    "StreamsBlobs",
    "Timeouts",
    "WritableReference",
)
