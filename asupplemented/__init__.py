"""Group container image references into one verified, asynchronous image source.

One **top** reference and any number of **supplemental** ones become one image: the top's
manifest or index, with every instance and blob that any member holds::

    import asupplemented as asup

    async with asup.Session() as session:
        group = asup.supplement("docker://registry.example/app:1.4", "oci:/srv/app:1.4")
        async with group.open(session) as image:
            print(image.resolution.explain(digest))
            async with image.open_blob(digest) as blob:
                async for chunk in blob:
                    ...

Importing this package does not import aiohttp; a transport is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from asupplemented.abc import BlobStream, Context, Opening, Reference, Served, Source, Timeouts
from asupplemented.aio.breaker import BreakerPolicy
from asupplemented.aio.retry import RetryPolicy
from asupplemented.errors import (
    AmbiguousManifestError,
    BlobNotFoundError,
    ClosedError,
    ConfigurationError,
    DigestMismatchError,
    FailoverError,
    ForbiddenError,
    ImageNotFoundError,
    InstanceNotFoundError,
    InvalidDigestError,
    InvalidPlatformError,
    InvalidReferenceError,
    LayoutError,
    LimitExceededError,
    MalformedManifestError,
    MalformedResponseError,
    ManifestError,
    ManifestNotFoundError,
    NameUnknownError,
    NetworkError,
    NonImageArtifactError,
    NotFoundError,
    PermissionDeniedError,
    PlatformNotFoundError,
    RangeError,
    RegistryError,
    ServerError,
    SizeMismatchError,
    SlotTimeoutError,
    SourceError,
    SourceTimeoutError,
    SupplementedError,
    TooManyRequestsError,
    TruncatedError,
    UnauthorizedError,
    UnexpectedStatusError,
    UnknownTransportError,
    UnsupportedDigestError,
    UnsupportedManifestError,
    UnsupportedOperationError,
    UsageError,
    VerificationError,
    WrongLoopError,
)
from asupplemented.events import (
    AttemptFailed,
    BlobAdvanced,
    BlobCopied,
    BlobEvicted,
    BlobFinished,
    BlobJoined,
    BlobReused,
    BlobServed,
    BlobStarted,
    CacheUse,
    CopyPlanned,
    CopyProgress,
    Event,
    ManifestFetched,
    PrefetchReport,
    RateLimitTold,
    RequestRetried,
    RequestServed,
    ResolutionFinished,
    Route,
    UpstreamResponded,
    Warned,
)
from asupplemented.image import Image, open_image
from asupplemented.model.credential import Credential
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.index import AllImages, Selection, SpecificImages, SystemImage
from asupplemented.model.manifest import ImageManifest, Index, Manifest
from asupplemented.model.platform import Platform
from asupplemented.model.signature import Signature
from asupplemented.session import CredentialLike, Session
from asupplemented.source import open_verified
from asupplemented.supplemented import SupplementedReference, SupplementedSource, supplement
from asupplemented.supplemented.resolution import Explanation, Instance, Resolution
from asupplemented.transports import parse_reference, register_transport

if TYPE_CHECKING:
    from asupplemented import telemetry as telemetry
    from asupplemented import web as web
    from asupplemented.blobs.history import ResumptionPolicy
    from asupplemented.cache.layout.layout_cache import CacheStats, LayoutCache
    from asupplemented.cache.remote.leases import LocalLease, RedisLease
    from asupplemented.cache.remote.object_store import ObjectStore
    from asupplemented.cache.remote.tiered import TieredCache
    from asupplemented.cache.remote.values import RedisValues
    from asupplemented.catalog import (
        Catalog,
        CatalogEntry,
        CatalogImage,
        CatalogStats,
        FailingUpstream,
        LocalValues,
        RequestBudget,
        SharedValues,
    )
    from asupplemented.credentials import AuthFileCredentials
    from asupplemented.transfer.copy import CopyReport, copy
    from asupplemented.transports.registry import (
        ConfigurationPaths,
        Proxies,
        RegistryLimits,
        RegistryOptions,
        SignaturePlaces,
        reload_configuration,
    )

__all__ = (
    "AllImages",
    "AmbiguousManifestError",
    "AttemptFailed",
    "AuthFileCredentials",
    "BlobAdvanced",
    "BlobCopied",
    "BlobEvicted",
    "BlobFinished",
    "BlobJoined",
    "BlobNotFoundError",
    "BlobReused",
    "BlobServed",
    "BlobStarted",
    "BlobStream",
    "BreakerPolicy",
    "CacheStats",
    "CacheUse",
    "Catalog",
    "CatalogEntry",
    "CatalogImage",
    "CatalogStats",
    "ClosedError",
    "ConfigurationError",
    "ConfigurationPaths",
    "Context",
    "CopyPlanned",
    "CopyProgress",
    "CopyReport",
    "Credential",
    "CredentialLike",
    "Descriptor",
    "Digest",
    "DigestMismatchError",
    "Event",
    "Explanation",
    "FailingUpstream",
    "FailoverError",
    "ForbiddenError",
    "Image",
    "ImageManifest",
    "ImageNotFoundError",
    "Index",
    "Instance",
    "InstanceNotFoundError",
    "InvalidDigestError",
    "InvalidPlatformError",
    "InvalidReferenceError",
    "LayoutCache",
    "LayoutError",
    "LimitExceededError",
    "LocalLease",
    "LocalValues",
    "MalformedManifestError",
    "MalformedResponseError",
    "Manifest",
    "ManifestError",
    "ManifestFetched",
    "ManifestNotFoundError",
    "NameUnknownError",
    "NetworkError",
    "NonImageArtifactError",
    "NotFoundError",
    "ObjectStore",
    "Opening",
    "PermissionDeniedError",
    "Platform",
    "PlatformNotFoundError",
    "PrefetchReport",
    "Proxies",
    "RangeError",
    "RateLimitTold",
    "RedisLease",
    "RedisValues",
    "Reference",
    "RegistryError",
    "RegistryLimits",
    "RegistryOptions",
    "RequestBudget",
    "RequestRetried",
    "RequestServed",
    "Resolution",
    "ResolutionFinished",
    "ResumptionPolicy",
    "RetryPolicy",
    "Route",
    "Selection",
    "Served",
    "ServerError",
    "Session",
    "SharedValues",
    "Signature",
    "SignaturePlaces",
    "SizeMismatchError",
    "SlotTimeoutError",
    "Source",
    "SourceError",
    "SourceTimeoutError",
    "SpecificImages",
    "SupplementedError",
    "SupplementedReference",
    "SupplementedSource",
    "SystemImage",
    "TieredCache",
    "Timeouts",
    "TooManyRequestsError",
    "TruncatedError",
    "UnauthorizedError",
    "UnexpectedStatusError",
    "UnknownTransportError",
    "UnsupportedDigestError",
    "UnsupportedManifestError",
    "UnsupportedOperationError",
    "UpstreamResponded",
    "UsageError",
    "VerificationError",
    "Warned",
    "WrongLoopError",
    "copy",
    "open_image",
    "open_verified",
    "parse_reference",
    "register_transport",
    "reload_configuration",
    "supplement",
    "telemetry",
)

_LAZY = {
    "AuthFileCredentials": "asupplemented.credentials:AuthFileCredentials",
    "CacheStats": "asupplemented.cache.layout.layout_cache:CacheStats",
    "Catalog": "asupplemented.catalog:Catalog",
    "CatalogEntry": "asupplemented.catalog:CatalogEntry",
    "CatalogImage": "asupplemented.catalog:CatalogImage",
    "CatalogStats": "asupplemented.catalog:CatalogStats",
    "ConfigurationPaths": "asupplemented.transports.registry:ConfigurationPaths",
    "CopyReport": "asupplemented.transfer.copy:CopyReport",
    "FailingUpstream": "asupplemented.catalog:FailingUpstream",
    "LayoutCache": "asupplemented.cache.layout.layout_cache:LayoutCache",
    "LocalLease": "asupplemented.cache.remote.leases:LocalLease",
    "LocalValues": "asupplemented.catalog:LocalValues",
    "ObjectStore": "asupplemented.cache.remote.object_store:ObjectStore",
    "Proxies": "asupplemented.transports.registry:Proxies",
    "RedisLease": "asupplemented.cache.remote.leases:RedisLease",
    "RedisValues": "asupplemented.cache.remote.values:RedisValues",
    "RegistryLimits": "asupplemented.transports.registry:RegistryLimits",
    "RegistryOptions": "asupplemented.transports.registry:RegistryOptions",
    "ResumptionPolicy": "asupplemented.blobs.history:ResumptionPolicy",
    "RequestBudget": "asupplemented.catalog:RequestBudget",
    "SharedValues": "asupplemented.catalog:SharedValues",
    "SignaturePlaces": "asupplemented.transports.registry:SignaturePlaces",
    "TieredCache": "asupplemented.cache.remote.tiered:TieredCache",
    "copy": "asupplemented.transfer.copy:copy",
    "reload_configuration": "asupplemented.transports.registry:reload_configuration",
    "telemetry": "asupplemented.telemetry",
    "testing": "asupplemented.testing",
    "web": "asupplemented.web",
}
"""Loaded when first used: what needs aiohttp or an extra, copying, caches and catalogs."""


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        message = f"module 'asupplemented' has no attribute {name!r}"
        raise AttributeError(message)
    module, _, attribute = _LAZY[name].partition(":")
    found = import_module(module)
    globals()[name] = found = getattr(found, attribute) if attribute else found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
