"""A cache of two tiers: a cache on this host, and object storage that several hosts share.

A blob that neither tier has is fetched from upstream into a `TieredSpool`. When it is committed, it
is added to the cache on this host, and then uploaded for the other hosts.

Theory of operation with leases
-------------------------------

The host that gets the lease of a blob fetches and uploads it, and renews the lease by time until
the upload ends. So while a lease is held its holder is alive, and the others wait: they look into
storage, then try to get the lease, in turn. Three things end a wait:

- The blob is in storage: it is read from there.
- The lease is free, because its holder gave up, or died and its time to live is over: the first
  host that asks gets it and fetches, and the others wait for that one.
- `patience` is over: the host fetches without a lease.

If `patience` were shorter than the time to live, all waiting hosts would fetch whenever a holder
dies; such settings are refused. A lease saves work and protects nothing: a holder that loses it
warns, and goes on.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Self

from asupplemented.abc import BlobCache, Spool
from asupplemented.aio.breaker import ReportOnce
from asupplemented.aio.closing import close_all, closing_on_error
from asupplemented.cache.remote.leases import PAUSE, RenewedLease, check_seconds
from asupplemented.cache.remote.remote import RemoteTier, ScopedDigest
from asupplemented.cache.remote.uploads import UploadSource
from asupplemented.cache.spool import make_spool
from asupplemented.errors import ConfigurationError
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asupplemented.abc import (
        AsyncResource,
        BlobCandidate,
        BlobFile,
        Context,
        LeaseProvider,
    )
    from asupplemented.cache.remote.object_blob import StoredBlob
    from asupplemented.cache.remote.object_store import ObjectStore
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.manifest import Manifest

__all__ = ("PATIENCE", "TieredCache", "TieredSpool")

PATIENCE: Final = 60.0
"""Seconds to wait for another host that fetches the same blob; after that, both fetch it.

Several times the time to live of a lease: so long waits another host that takes over.
"""

UPLOAD_PATIENCE: Final = 30.0

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
"""Seconds between two looks; each pause is twice as long as the one before."""


class TieredCache(BlobCache):
    """A cache over a cache on this host, and object storage that several hosts share.

    A blob that this host does not have is read from object storage if it is there, and from
    upstream otherwise; it is verified either way. Blobs from upstream are uploaded in the
    background. With leases, one host fetches a blob while the others wait for it, for a while.
    If object storage or leases fail, the fetch goes on without them, with a warning.

    It does not close its parts: close it first, and them afterwards.

    Args:
        local: The cache of this host.
        remote: The object storage.
        lease: Gives leases; with None, every host fetches the blobs that it does not find.
        patience: Seconds to wait for a blob that another host fetches; 0 does not wait. It is not
            shorter than the time to live of a lease.
        upload_patience: Seconds to wait for uploads when it is closed.
        pause: Seconds for which object storage is not asked after it failed.
        spools: Makes a spool if `local` gives none, from the session and the size of the blob,
            None if unknown.

    Raises:
        ConfigurationError: An argument is not a number of seconds, or `patience` is above 0 and
            shorter than the time to live of a lease.
    """

    __slots__ = ("_leases", "_local", "_lost", "_patience", "_remote", "_spools", "_tier")

    def __init__(
        self,
        local: BlobCache,
        remote: ObjectStore,
        *,
        lease: LeaseProvider | None = None,
        patience: float = PATIENCE,
        upload_patience: float = UPLOAD_PATIENCE,
        pause: float = PAUSE,
        spools: Callable[[Context, int | None], Spool] = make_spool,
    ) -> None:
        self._local = local
        self._remote = remote
        self._leases = lease
        self._lost = ReportOnce()
        self._patience = check_seconds("patience", patience, zero=True)
        if lease is not None and 0 < self._patience < lease.ttl:
            message = (
                f"with patience={patience:g} all waiting hosts would fetch when the holder of a "
                f"lease dies, because its lease lasts {lease.ttl:g} s (ttl); give a patience of at "
                "least that, 0 to wait for no other host, or leases with a shorter ttl"
            )
            raise ConfigurationError(message)
        self._spools = spools
        self._tier = RemoteTier(
            remote,
            pause=check_seconds("pause", pause),
            patience=check_seconds("upload_patience", upload_patience, zero=True),
        )

    @property
    def fills(self) -> bool:
        return self._local.fills

    async def find(
        self, session: Context, blob: Descriptor, *, shared: bool = False
    ) -> BlobFile | None:
        return await self._local.find(session, blob, shared=shared)

    async def holds(self, session: Context, blob: Descriptor) -> bool:
        return await self._local.holds(session, blob)

    async def claim(self, session: Context, blob: Descriptor) -> Spool | None:
        spool = await self._local.claim(session, blob)
        if spool is None:
            spool = self._spools(session, blob.size)
        if spool.candidates:
            return spool  # A process on this host is fetching the blob, and will upload it.
        scoped = ScopedDigest.of(session, Digest(blob.digest))
        async with closing_on_error(lambda: (spool,), "a spool"):
            stored, lease = await self._look(session, scoped)
        find = partial(self._local.find, session, blob)
        return TieredSpool(spool, scoped, self._tier, find=find, stored=stored, lease=lease)

    async def find_manifest(
        self, session: Context, digest: Digest, *, source: str | None = None
    ) -> Manifest | None:
        found = await self._local.find_manifest(session, digest, source=source)
        if found is not None:
            return found
        manifest = await self._tier.find_manifest(ScopedDigest.of(session, digest), source)
        if manifest is not None:
            await self._local.keep_manifest(session, manifest, top=False, source=source)
        return manifest

    async def keep_manifest(
        self, session: Context, manifest: Manifest, *, top: bool, source: str | None = None
    ) -> None:
        await self._local.keep_manifest(session, manifest, top=top, source=source)
        self._tier.begin_manifest(ScopedDigest.of(session, manifest.digest), manifest, source)

    async def pin_digests(self, session: Context, *digests: Digest) -> None:
        await self._local.pin_digests(session, *digests)

    async def unpin(self, session: Context, *digests: Digest) -> None:
        await self._local.unpin(session, *digests)

    async def aclose(self) -> None:
        """Wait for uploads, and cancel those that take too long. Nothing else is closed."""
        await self._tier.aclose()

    def __str__(self) -> str:
        """The cache of this host, from which all files come."""
        return str(self._local)

    def __repr__(self) -> str:
        return f"<TieredCache of {self._local!r} and {self._remote!r}>"

    async def _look(
        self, session: Context, scoped: ScopedDigest
    ) -> tuple[StoredBlob | None, RenewedLease | None]:
        """Look for a blob in storage. If it is not there, get its lease, or wait for the holder."""
        clock = scoped.observer.clock
        deadline = clock.now() + self._patience
        pause = _FIRST_PAUSE
        while True:
            if await self._tier.has(scoped):
                return self._tier.blob(scoped), None
            if self._leases is None or not self._tier.is_usable(scoped):
                return None, None
            lease = await self._leases.acquire(session, scoped.key)
            if lease is not None:
                renewed = partial(self._note_renewal, scoped)
                return await self._look_again(
                    scoped, RenewedLease(lease, self._leases.ttl, renewed)
                )
            if clock.now() >= deadline:
                return None, None
            await clock.sleep(min(pause, deadline - clock.now()))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _look_again(
        self, scoped: ScopedDigest, lease: RenewedLease
    ) -> tuple[StoredBlob | None, RenewedLease | None]:
        """Look again: the host that held the lease before may have uploaded the blob meanwhile."""
        async with closing_on_error(lambda: (lease,), "a lease"):
            if not await self._tier.has(scoped):
                return None, lease
            await lease.aclose()
            return self._tier.blob(scoped), None

    def _note_renewal(self, scoped: ScopedDigest, held: bool) -> None:  # noqa: FBT001 - a callback
        if held:
            self._lost.end()
            return
        message = (
            f"the lease of {scoped.digest} was lost: it was not renewed in time, or its server "
            "forgot it; other hosts may fetch the blob as well"
        )
        self._lost.report(partial(scoped.observer.warn, "leases"), message)


class TieredSpool(Spool):
    """A spool over one of this host, whose blob is uploaded when it is committed.

    The lease is released after the upload, or when the fetch ends without one.

    Args:
        spool: Takes the bytes; closed with this one.
        scoped: The blob, and the principal that asks for it.
        tier: Object storage.
        find: Finds the file of the blob in the cache of this host, None if it is not there.
        stored: The blob in object storage, None if it is not there.
        lease: The lease, None if this host holds none; closed with this spool.
    """

    __slots__ = ("_closed", "_find", "_lease", "_scoped", "_shared", "_spool", "_stored", "_tier")

    def __init__(
        self,
        spool: Spool,
        scoped: ScopedDigest,
        tier: RemoteTier,
        *,
        find: Callable[[], Awaitable[BlobFile | None]],
        stored: StoredBlob | None,
        lease: AsyncResource | None,
    ) -> None:
        self._spool = spool
        self._shared = _SharedSpool(spool)
        self._scoped = scoped
        self._tier = tier
        self._find = find
        self._stored = stored
        self._lease = lease
        self._closed = False

    @property
    def candidates(self) -> Sequence[BlobCandidate]:
        nearer = self._spool.candidates
        return nearer if self._stored is None else (*nearer, self._stored)

    @property
    def length(self) -> int:
        return self._spool.length

    def expect(self, size: int) -> None:
        self._spool.expect(size)

    @property
    def wanted(self) -> bool:
        return self._spool.wanted

    async def append(self, chunk: bytes) -> None:
        await self._spool.append(chunk)

    async def read(self, start: int, size: int) -> bytes:
        return await self._spool.read(start, size)

    async def commit(self) -> None:
        await self._spool.commit()
        stored, self._stored = self._stored, None
        if stored is None or not stored.ended:
            await self._begin_upload()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._stored is not None and self._stored.ended:
            # All of it came from there, and the spool was not committed: it was corrupt.
            self._tier.mark_corrupt(self._scoped)
        mine: list[AsyncResource] = [self._shared]
        if self._lease is not None:
            mine.append(self._lease)
        await close_all(mine, "a spool")

    async def _begin_upload(self) -> None:
        file = await self._find()
        source = self._shared.share() if file is None else self._tier.reader(file)
        lease, self._lease = self._lease, None
        if not self._tier.begin_blob(self._scoped, self._spool.length, source, lease):
            await close_all((source, *filter(None, (lease,))), "an upload")


class _SharedSpool(UploadSource):
    """A spool that its readers and an upload share; closed by the last of them."""

    __slots__ = ("_holders", "_spool")

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._holders = 1

    def share(self) -> Self:
        """Count one holder more; gives itself."""
        self._holders += 1
        return self

    async def read(self, start: int, size: int) -> bytes:
        return await self._spool.read(start, size)

    async def aclose(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            await self._spool.aclose()
