"""How users type the face. Checked by mypy and pyright, never run: what matters is the types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, assert_never, assert_type

from obstore.store import MemoryStore
from redis.asyncio import Redis

import asupplemented as asup
from asupplemented import events

if TYPE_CHECKING:
    from aiohttp import web

    from asupplemented.abc import BlobCache, Hook, LeaseProvider


def group() -> asup.SupplementedReference:
    inner = asup.supplement("oci:/srv/airgap/app:1.4", missing="fallback")
    return asup.supplement(
        "docker://registry.example/team/app:1.4",
        inner,
        asup.parse_reference("dir:/srv/app"),
        selection=asup.SpecificImages(["sha256:" + 64 * "0"]),
        unavailable="skip",
        prefer="supplements",
    )


async def entered(session: asup.Session, digest: asup.Digest) -> None:
    opening = group().open(session)
    assert_type(opening, asup.Opening[asup.SupplementedSource])
    async with opening as image:
        assert_type(image, asup.SupplementedSource)
        assert_type(await image.get_manifest(), asup.Manifest)
        assert_type(await image.get_signatures(digest), tuple[asup.Signature, ...])
        assert_type(await image.layers_for_copy(), tuple[asup.Descriptor, ...] | None)
        assert_type(image.resolution.explain(digest), asup.Explanation)
        assert_type(image.explain(digest), asup.Explanation)
        assert_type(await asup.copy(image, "oci:/srv/out:1.4", session), asup.CopyReport)


async def awaited(session: asup.Session) -> asup.Source:
    image = await group().open(session)
    assert_type(image, asup.SupplementedSource)
    return image


async def streamed(image: asup.Source, blob: asup.Descriptor) -> bytes:
    async with image.open_blob(blob, start=1, end=2) as stream:
        assert_type(stream, asup.BlobStream)
        async for chunk in stream:
            assert_type(chunk, bytes)
    async with image.open_blob(str(blob.digest)) as stream:
        return await stream.read_all(limit=1024)


def explored(resolution: asup.Resolution) -> None:
    assert_type(resolution.sources, Mapping[asup.Digest, int])
    assert_type(resolution.blobs, Mapping[asup.Digest, asup.Digest])
    assert_type(resolution.defaults, tuple[asup.Digest | None, ...])
    assert_type(resolution.alternates, Mapping[asup.Digest, tuple[int, ...]])


def count(event: events.Event) -> str:  # noqa: PLR0911 - one for each kind
    """A hook; the match is exhaustive, so a new event shows up here."""
    match event:
        case events.ManifestFetched(digest=digest) | events.BlobStarted(digest=digest):
            return digest
        case (
            events.BlobJoined(digest=digest)
            | events.BlobServed(digest=digest)
            | events.AttemptFailed(digest=digest)
        ):
            return digest
        case events.BlobFinished(error=error) | events.ResolutionFinished(error=error):
            return error or ""
        case events.RateLimitTold(registry=registry, remaining=remaining):
            assert_type(remaining, int | None)
            return registry
        case events.RequestRetried(reason=reason):
            return reason
        case events.UpstreamResponded(registry=registry, status=status):
            assert_type(status, int | None)
            return registry
        case events.BlobEvicted(digest=digest):
            return digest
        case events.RequestServed(route=route, cache=cache):
            assert_type(cache, events.CacheUse)
            return route
        case events.Warned(message=message):
            return message
        case _:
            assert_never(event)


def told(event: events.Event) -> None:
    count(event)


def hooked() -> asup.Session:
    hook: Hook = told
    return asup.Session(lookahead=64, tls_verify=True, hooks=(hook,))


def logged_in() -> asup.Session:
    """As the user that podman, skopeo or docker logged in."""
    assert_type(asup.AuthFileCredentials(), asup.AuthFileCredentials)
    return asup.Session(credentials=asup.AuthFileCredentials(docker=True))


def whose(session: asup.Context) -> str | None:
    return session.principal


async def passed_on(session: asup.Session, user: str, password: str) -> None:
    """A view of a session goes wherever a session goes."""
    view = session.scoped(user, credentials={"registry.example": (user, password)})
    assert_type(view, asup.Session)
    assert_type(view.scoped("anonymous").principal, str | None)
    assert_type(whose(view), str | None)
    async with group().open(view) as image:
        assert_type(await asup.copy(image, "oci:/srv/out:1.4", view), asup.CopyReport)


def size_of(progress: asup.CopyProgress) -> int | None:
    """Progress; the match is exhaustive, too."""
    match progress:
        case asup.CopyPlanned(bytes=size):
            return size
        case asup.BlobAdvanced(received=received):
            return received
        case asup.BlobCopied(size=size) | asup.BlobReused(asup.Descriptor(size=size)):
            return size
        case _:
            assert_never(progress)


def watch(progress: asup.CopyProgress) -> None:
    size_of(progress)


async def prefetched(image: asup.Source) -> int:
    report = await image.prefetch(progress=watch)
    assert_type(report, asup.PrefetchReport)
    return report.reused_blobs


async def sent(image: asup.Source, blob: asup.Digest) -> Path | None:
    async with image.open_blob(blob) as stream:
        assert_type(stream.take_path(), Path | None)
        return stream.take_path()


def configured(environ: Mapping[str, str]) -> asup.Session:
    """What the face loads late is typed as well."""
    options = asup.RegistryOptions(
        configuration=asup.ConfigurationPaths.default(environ),
        proxies=asup.Proxies.from_environment(environ),
        retry=asup.RetryPolicy(attempts=3),
        limits=asup.RegistryLimits(),
    )
    assert_type(options.configuration, asup.ConfigurationPaths | None)
    session = asup.Session(settings=[options, asup.BreakerPolicy(pause=2.0)])
    assert_type(session.tls_verify, bool | None)
    return session


async def shared_by_hosts(local: BlobCache) -> None:
    """A cache of several hosts is put together from its parts."""
    storage = asup.ObjectStore.from_url("s3://bucket/cache", {"region": "eu-central-1"})
    assert_type(storage, asup.ObjectStore)
    leases: list[LeaseProvider] = [
        asup.LocalLease(),
        asup.RedisLease(Redis()),
        asup.RedisLease.from_url("redis://host"),
    ]
    for lease in leases:
        async with asup.TieredCache(local, storage, lease=lease, patience=5) as cache:
            assert_type(cache, asup.TieredCache)
    either: list[BlobCache] = [asup.TieredCache(local, asup.ObjectStore(MemoryStore()))]
    assert_type(await either[0].aclose(), None)


def caught(error: asup.SupplementedError) -> int | None:
    """Errors carry fields, typed without a cast."""
    if isinstance(error, asup.RegistryError):
        assert_type(error.retry_after, float | None)
        return error.status
    if isinstance(error, asup.InstanceNotFoundError):
        assert_type(error.digests, tuple[str, ...])
    return error.member


def mounted(catalog: asup.Catalog, session: asup.Session) -> web.Application:
    """A catalog is mounted as it is, in either kind of application."""

    async def check(user: str, password: str, access: asup.web.AccessRequest) -> asup.web.Identity:
        return asup.web.Identity(user, {"registry.example": (user, password)})

    served: asup.web.ServedCatalog = catalog
    authenticate = asup.web.basic(check, realm="team")
    asup.web.asgi_app(served, session, limits=asup.web.Limits(head=5), authenticate=authenticate)
    return asup.web.registry_app(served, session, authenticate=authenticate, hide_refused=True)
