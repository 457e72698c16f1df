"""A spool whose blob is kept on this host, and then where other hosts find it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from asupplemented.abc import Spool
from asupplemented.aio.closing import close_all
from asupplemented.cache.remote.uploads import UploadSource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asupplemented.abc import AsyncResource, BlobCandidate, BlobFile, Tenure
    from asupplemented.cache.remote.object_blob import StoredBlob
    from asupplemented.cache.remote.remote import RemoteTier, Visit

__all__ = ("TieredSpool",)


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
