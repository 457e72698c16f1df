"""A cache in two tiers: what this host keeps, and what several hosts share in object storage."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from asupplemented.abc import BlobCache, RawManifest
from asupplemented.aio.closing import closing_on_error
from asupplemented.cache.remote.leases import PAUSE, check_seconds
from asupplemented.cache.remote.remote import RemoteTier, Visit
from asupplemented.cache.remote.tiered_spool import TieredSpool
from asupplemented.cache.spool import make_spool
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from asupplemented.abc import BlobFile, Context, Lease, Spool, Tenure
    from asupplemented.cache.remote.object_blob import StoredBlob
    from asupplemented.cache.remote.object_store import ObjectStore
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.manifest import Manifest

__all__ = ("PATIENCE", "TieredCache")

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
