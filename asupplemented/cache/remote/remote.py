"""Object storage as a cache may use it: it fails nobody, and delays nobody for long."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVar

from asupplemented.abc import AsyncResource
from asupplemented.aio.breaker import Breaker, BreakerPolicy, BreakerState, ReportOnce
from asupplemented.aio.closing import close_all
from asupplemented.aio.lru import LRU
from asupplemented.aio.threads import Workers
from asupplemented.cache.remote.leases import Observer
from asupplemented.cache.remote.object_store import namespace_of
from asupplemented.cache.remote.uploads import FileReader, Uploads, UploadSource
from asupplemented.errors import (
    ManifestError,
    NotFoundError,
    SourceError,
    SupplementedError,
    VerificationError,
)
from asupplemented.limits import BLOCK, KIB, OFFLOAD_BYTES
from asupplemented.model.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from asupplemented.abc import BlobFile, Context, Tenure
    from asupplemented.cache.remote.object_blob import StoredBlob
    from asupplemented.cache.remote.object_store import ObjectStore
    from asupplemented.cache.remote.uploads import Read
    from asupplemented.model.digest import Digest

__all__ = ("RemoteTier", "Visit")

T = TypeVar("T")

_DROPPED: Final = "was not uploaded before the cache was closed"

_TASK: Final = 64 * KIB
"""What a small upload weighs besides its bytes."""

MAX_DISTRUSTED: Final = 4096
"""Objects known to be wrong that are kept in mind; the oldest are tried again."""

GRACE: Final = 0.1
"""Seconds that obstore has when all is done. Its threads touch Python a moment longer than a
request lasts, and abort the process if the interpreter ends in that moment."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Who asks for what; it may outlast the session."""

    observer: Observer
    namespace: str
    digest: Digest

    @classmethod
    def of(cls, context: Context, digest: Digest) -> Self:
        """A visit in the name of a session's principal."""
        return cls(Observer.of(context), namespace_of(context.principal), digest)

    @property
    def key(self) -> str:
        """What a lease is for. Principals neither wait for each other, nor see each other wait."""
        return f"{self.namespace}/{self.digest}"


class RemoteTier(AsyncResource):
    """Object storage behind a guard: what it cannot do is a warning, and is not tried for a while.

    It uploads in the background. Closing it waits for that; the storage itself stays as it is.

    Args:
        store: The object storage.
        pause: Seconds for which it is left alone after it failed.
        patience: Seconds to wait for uploads when closing.
    """

    __slots__ = (
        "_distrusted",
        "_pause",
        "_reading",
        "_store",
        "_trouble",
        "_uploads",
        "_used",
        "_workers",
        "_writing",
    )

    def __init__(self, store: ObjectStore, *, pause: float, patience: float) -> None:
        self._store = store
        policy = BreakerPolicy(pause=pause, longest=pause)
        self._pause = pause
        self._reading = Breaker(policy)
        self._writing = Breaker(policy)
        self._trouble = ReportOnce()
        self._distrusted = LRU["Digest", None](MAX_DISTRUSTED)
        self._uploads = Uploads(patience)
        self._workers = Workers()
        self._used = False
        """Whether the storage was ever asked."""

    def answers(self, visit: Visit) -> bool:
        """Whether it may be asked, and what it has under that name may be used."""
        return visit.digest not in self._distrusted and not _is_open(visit, self._reading)

    def takes(self, visit: Visit) -> bool:
        """Whether it may be given anything; what cannot be read cannot be written, either."""
        return not _is_open(visit, self._reading, self._writing)

    def serves(self, visit: Visit) -> bool:
        """Whether it can bring a blob from one host to another at present."""
        return self.answers(visit) and self.takes(visit)

    def blob(self, visit: Visit) -> StoredBlob:
        """The blob as a candidate."""
        return self._store.blob(visit.digest)

    async def has(self, visit: Visit) -> bool:
        """Whether the blob is there for this principal."""
        if not self.answers(visit):
            return False
        found = await self._guard(
            visit, self._reading, self._store.has(visit.namespace, visit.digest)
        )
        return found is True

    def distrust(self, visit: Visit) -> None:
        """What is there has turned out to be wrong: use it no more, and replace it."""
        self._distrusted.put(visit.digest, None)

    async def find_manifest(self, visit: Visit, *, shared: bool) -> Manifest | None:
        """A manifest, verified, if it is there for this principal, or for anybody if `shared`."""
        if not self.answers(visit):
            return None
        namespace = None if shared else visit.namespace
        found = await self._guard(
            visit, self._reading, self._store.get_manifest(namespace, visit.digest)
        )
        if found is None:
            return None
        verify = partial(Manifest.verified, found.raw, found.media_type, visit.digest)
        try:
            if len(found.raw) <= OFFLOAD_BYTES:
                return verify()
            return await asyncio.wrap_future(self._workers.submit(verify))
        except (ManifestError, VerificationError) as error:
            self.distrust(visit)
            self._warn(visit, f"what is kept there is not used: {error}")
            return None

    def reader(self, file: BlobFile) -> FileReader:
        """What uploads a file, which it closes; sessions may end meanwhile."""
        return FileReader(self._workers, file)

    def begin_blob(
        self, visit: Visit, size: int, source: UploadSource, tenure: Tenure | None
    ) -> bool:
        """Begin to upload a blob, unless it is there.

        Args:
            visit: Who brought it.
            size: Bytes that it has.
            source: Gives them; closed in the end.
            tenure: Renewed meanwhile, and given back in the end; None if there is none.

        Returns:
            False if it cannot be; then what was given is the caller's still.
        """

        async def read(start: int, length: int) -> bytes:
            if tenure is not None:
                await tenure.renew()
            return await source.read(start, length)

        resources = (source,) if tenure is None else (source, tenure)
        return self._begin(visit, partial(self._put_blob, visit, size, read), resources, BLOCK)

    def begin_manifest(self, visit: Visit, manifest: Manifest) -> None:
        """Begin to upload a manifest, unless it is there."""
        work = partial(self._put_manifest, visit, manifest)
        self._begin(visit, work, (), manifest.size + _TASK)

    async def aclose(self) -> None:
        try:
            await self._uploads.aclose()
        finally:
            await close_all((self._workers,), "the threads of uploads")
            if self._used:
                self._used = False
                await asyncio.sleep(GRACE)

    def _begin(
        self,
        visit: Visit,
        work: Callable[[], Coroutine[object, object, None]],
        resources: tuple[AsyncResource, ...],
        weight: int,
    ) -> bool:
        if not self.takes(visit):
            return False
        dropped = partial(self._warn, visit, f"{visit.digest} {_DROPPED}")
        begun = self._uploads.start(work, resources, weight=weight, dropped=dropped)
        if not begun and not self._uploads.closed:
            self._fail(visit, self._writing, "more is to be uploaded than it takes")
        return begun

    async def _put_blob(self, visit: Visit, size: int, read: Read) -> None:
        replace = visit.digest in self._distrusted
        request = self._store.put_blob(visit.namespace, visit.digest, size, read, replace=replace)
        await self._put(visit, request)

    async def _put_manifest(self, visit: Visit, manifest: Manifest) -> None:
        replace = visit.digest in self._distrusted
        request = self._store.put_manifest(visit.namespace, manifest, replace=replace)
        await self._put(visit, request)

    async def _put(self, visit: Visit, request: Awaitable[None]) -> None:
        if await self._guard(visit, self._writing, _done(request)):
            self._distrusted.pop(visit.digest)

    async def _guard(self, visit: Visit, breaker: Breaker, request: Awaitable[T]) -> T | None:
        """The answer to a request; None, and a warning, if it fails."""
        self._used = True
        try:
            answer = await request
        except (SourceError, NotFoundError) as error:  # Nothing else is missed but a bucket.
            self._fail(visit, breaker, error.message)
            return None
        except SupplementedError as error:
            self._warn(visit, str(error.locate(digest=visit.digest)))
            return None
        breaker.record_success()
        now = visit.observer.clock.now()
        # Reads may succeed while every upload fails, which is one trouble all the same.
        if self._reading.state(now) is self._writing.state(now) is BreakerState.CLOSED:
            self._trouble.end()
        return answer

    def _fail(self, visit: Visit, breaker: Breaker, reason: str) -> None:
        breaker.record_failure(visit.observer.clock.now())
        message = f"{reason}; it is not asked for {self._pause:g} s"
        self._trouble.report(partial(self._warn, visit), message)

    def _warn(self, visit: Visit, message: str) -> None:
        visit.observer.warn(self._store.name, message)


def _is_open(visit: Visit, *breakers: Breaker) -> bool:
    now = visit.observer.clock.now()
    return any(breaker.state(now) is BreakerState.OPEN for breaker in breakers)


async def _done(request: Awaitable[None]) -> bool:
    await request
    return True
