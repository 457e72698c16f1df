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

TYPE_CHECKING = False  # typing has it, too, and takes as long to import as Python to start
if TYPE_CHECKING:
    from asupplemented import telemetry as telemetry
    from asupplemented import web as web
    from asupplemented.abc import BlobStream, Context, Opening, Reference, Served, Source, Timeouts
    from asupplemented.aio.breaker import BreakerPolicy
    from asupplemented.aio.retry import RetryPolicy
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
    from asupplemented.transfer.copy import CopyReport, copy
    from asupplemented.transports import parse_reference, register_transport
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

_COMMON = (
    *("errors", "abc", "events", "model.credential", "model.descriptor", "model.digest"),
    *("model.index", "model.manifest", "model.platform", "model.signature", "aio.breaker"),
    *("aio.retry", "transports", "session", "source", "image", "supplemented"),
    "supplemented.resolution",
)
"""Modules that most programs use, in the order in which a name is looked for in them."""

_SPECIAL = {
    "blobs.history": ("ResumptionPolicy",),
    "cache.layout.layout_cache": ("CacheStats", "LayoutCache"),
    "cache.remote.leases": ("LocalLease", "RedisLease"),
    "cache.remote.object_store": ("ObjectStore",),
    "cache.remote.tiered": ("TieredCache",),
    "cache.remote.values": ("RedisValues",),
    "catalog": (
        *("Catalog", "CatalogEntry", "CatalogImage", "CatalogStats", "FailingUpstream"),
        *("LocalValues", "RequestBudget", "SharedValues"),
    ),
    "credentials": ("AuthFileCredentials",),
    "transfer.copy": ("CopyReport", "copy"),
    "transports.registry": (
        *("ConfigurationPaths", "Proxies", "RegistryLimits", "RegistryOptions"),
        *("SignaturePlaces", "reload_configuration"),
    ),
}
"""Modules that need aiohttp or an extra, copy, or cache, and the names that they define."""

_MODULES = ("abc", "errors", "events", "limits", "telemetry", "testing", "web")


def __getattr__(name: str) -> object:
    """Import what a program uses of this package when it first does."""
    if name in _MODULES:
        return import_module(f"asupplemented.{name}")
    if name in __all__:
        special = (module for module, names in _SPECIAL.items() if name in names)
        for each in (*special, *_COMMON):
            module = import_module(f"asupplemented.{each}")
            if name in module.__all__:
                globals()[name] = found = getattr(module, name)
                return found
    message = f"module 'asupplemented' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
