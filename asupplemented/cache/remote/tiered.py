"""A cache in two tiers: what this host keeps, and what several hosts share in object storage.

A spool whose blob is kept on this host, and then where other hosts find it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Self

from asupplemented.abc import BlobCache, RawManifest, Spool
from asupplemented.aio.closing import close_all, closing_on_error
from asupplemented.cache.remote.leases import PAUSE, check_seconds
from asupplemented.cache.remote.remote import RemoteTier, Visit
from asupplemented.cache.remote.uploads import UploadSource
from asupplemented.cache.spool import make_spool
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asupplemented.abc import (
        AsyncResource,
        BlobCandidate,
        BlobFile,
        Context,
        Lease,
        Tenure,
    )
    from asupplemented.cache.remote.object_blob import StoredBlob
    from asupplemented.cache.remote.object_store import ObjectStore
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.manifest import Manifest

__all__ = ("PATIENCE", "TieredCache", "TieredSpool")

PATIENCE: Final = 15.0
"""Seconds to wait for what another host fetches; then both do."""

UPLOAD_PATIENCE: Final = 30.0

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
"""Seconds between two looks: they double, since what takes long may take longer."""


class TieredCache(BlobCache):
    """A cache over one of this host's, and object storage that several hosts share.

    A blob that this host does not have is read from object storage, if somebody brought it
    there, and from upstream otherwise; it is verified either way. What came from upstream is
    uploaded in the background. With a lease, one host fetches and the others wait for it, for a
    while. Whatever of that does not work is passed by, with a warning.

    What it is made of is not closed with it: close it first, and them afterwards.

    Args:
        local: The cache of this host.
        remote: The object storage.
        lease: Who fetches; None lets every host fetch what it does not find.
        patience: Seconds to wait for what another host fetches; 0 does not wait.
        upload_patience: Seconds to wait for uploads when it is closed.
        pause: Seconds for which object storage is left alone after it failed.
        spools: Makes a spool where `local` has none to give, from the session and the size of
            the blob, None if unknown.

    Raises:
        ConfigurationError: A time is none.
    """

    __slots__ = ("_lease", "_local", "_patience", "_remote", "_spools", "_tier")

    def __init__(
        self,
        local: BlobCache,
        remote: ObjectStore,
        *,
        lease: Lease | None = None,
        patience: float = PATIENCE,
        upload_patience: float = UPLOAD_PATIENCE,
        pause: float = PAUSE,
        spools: Callable[[Context, int | None], Spool] = make_spool,
    ) -> None:
        self._local = local
        self._remote = remote
        self._lease = lease
        self._patience = check_seconds("patience", patience, zero=True)
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
        self, context: Context, blob: Descriptor, *, shared: bool = False
    ) -> BlobFile | None:
        return await self._local.find(context, blob, shared=shared)

    async def claim(self, context: Context, blob: Descriptor) -> Spool | None:
        spool = await self._local.claim(context, blob)
        if spool is None:
            spool = self._spools(context, blob.size)
        if spool.candidates:
            return spool  # Who is nearer than object storage brings the blob there, too.
        visit = Visit.of(context, Digest(blob.digest))
        async with closing_on_error(lambda: (spool,), "a spool"):
            stored, tenure = await self._approach(context, visit)
        find = partial(self._local.find, context, blob)
        return TieredSpool(spool, visit, self._tier, find=find, stored=stored, tenure=tenure)

    async def find_manifest(
        self, context: Context, digest: Digest, *, shared: bool = False
    ) -> RawManifest | None:
        found = await self._local.find_manifest(context, digest, shared=shared)
        if found is not None:
            return found
        manifest = await self._tier.find_manifest(Visit.of(context, digest), shared=shared)
        if manifest is None:
            return None
        if not shared:  # What somebody else has brought is not this principal's own by that.
            await self._local.keep_manifest(context, manifest, top=False)
        return RawManifest(manifest.raw, manifest.media_type)

    async def keep_manifest(self, context: Context, manifest: Manifest, *, top: bool) -> None:
        await self._local.keep_manifest(context, manifest, top=top)
        self._tier.begin_manifest(Visit.of(context, manifest.digest), manifest)

    async def pin_digests(self, context: Context, *digests: Digest) -> None:
        await self._local.pin_digests(context, *digests)

    async def unpin(self, context: Context, *digests: Digest) -> None:
        await self._local.unpin(context, *digests)

    async def aclose(self) -> None:
        """Wait for uploads, and end those that take too long. Nothing else is closed."""
        await self._tier.aclose()

    def __str__(self) -> str:
        """The cache of this host: files come from there only."""
        return str(self._local)

    def __repr__(self) -> str:
        return f"<TieredCache of {self._local!r} and {self._remote!r}>"

    async def _approach(
        self, context: Context, visit: Visit
    ) -> tuple[StoredBlob | None, Tenure | None]:
        """Look for a blob; if it is not there, lead, or wait for who leads, or give up."""
        clock = visit.observer.clock
        deadline = clock.now() + self._patience
        pause = _FIRST_PAUSE
        while True:
            if await self._tier.has(visit):
                return self._tier.blob(visit), None
            if self._lease is None or not self._tier.serves(visit):
                return None, None
            tenure = await self._lease.take(context, visit.key)
            if tenure is not None:
                return await self._lead(visit, tenure)
            if clock.now() >= deadline:
                return None, None
            await clock.sleep(min(pause, deadline - clock.now()))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _lead(self, visit: Visit, tenure: Tenure) -> tuple[StoredBlob | None, Tenure | None]:
        """Look again: who had the lease before may have brought the blob meanwhile."""
        async with closing_on_error(lambda: (tenure,), "a lease"):
            if not await self._tier.has(visit):
                return None, tenure
            await tenure.aclose()
            return self._tier.blob(visit), None


class TieredSpool(Spool):
    """A spool over one of this host's.

    A lease is renewed while the blob grows. It is given back after the upload; or at once, if
    the fetch ends without one.

    Args:
        spool: Where the bytes go; it belongs to this one.
        visit: Who asks for what.
        tier: Object storage.
        find: Finds the file in which this host has kept the blob, None if it has not.
        stored: The blob in object storage, None if it is not there.
        tenure: The lease, None if this host does not lead; it belongs to the spool.
    """

    __slots__ = ("_closed", "_find", "_shared", "_spool", "_stored", "_tenure", "_tier", "_visit")

    def __init__(
        self,
        spool: Spool,
        visit: Visit,
        tier: RemoteTier,
        *,
        find: Callable[[], Awaitable[BlobFile | None]],
        stored: StoredBlob | None,
        tenure: Tenure | None,
    ) -> None:
        self._spool = spool
        self._shared = _SharedSpool(spool)
        self._visit = visit
        self._tier = tier
        self._find = find
        self._stored = stored
        self._tenure = tenure
        self._closed = False

    @property
    def candidates(self) -> Sequence[BlobCandidate]:
        nearer = self._spool.candidates
        return nearer if self._stored is None else (*nearer, self._stored)

    @property
    def length(self) -> int:
        return self._spool.length

    @property
    def wanted(self) -> bool:
        return self._spool.wanted

    async def append(self, chunk: bytes) -> None:
        if self._tenure is not None:
            await self._tenure.renew()
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
            # All of it came from there, and it was not what it should be.
            self._tier.distrust(self._visit)
        mine: list[AsyncResource] = [self._shared]
        if self._tenure is not None:
            mine.append(self._tenure)
        await close_all(mine, "a spool")

    async def _begin_upload(self) -> None:
        file = await self._find()
        source = self._shared.lend() if file is None else self._tier.reader(file)
        tenure, self._tenure = self._tenure, None
        if not self._tier.begin_blob(self._visit, self._spool.length, source, tenure):
            await close_all((source, *filter(None, (tenure,))), "an upload")


class _SharedSpool(UploadSource):
    """A spool that its readers and an upload hold; it is closed when both have closed it."""

    __slots__ = ("_holders", "_spool")

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._holders = 1

    def lend(self) -> Self:
        """Itself, once more."""
        self._holders += 1
        return self

    async def read(self, start: int, size: int) -> bytes:
        return await self._spool.read(start, size)

    async def aclose(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            await self._spool.aclose()
