"""Object storage behind breakers, so that it fails no pull and delays none for long."""

from __future__ import annotations

import asyncio
from contextlib import suppress
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

    from asupplemented.abc import BlobFile, Context, RawManifest
    from asupplemented.cache.remote.object_blob import StoredBlob
    from asupplemented.cache.remote.object_store import ObjectStore
    from asupplemented.cache.remote.uploads import Read
    from asupplemented.model.digest import Digest

__all__ = ("RemoteTier", "ScopedDigest")

T = TypeVar("T")

_DROPPED: Final = "was not uploaded before the cache was closed"

_TASK: Final = 64 * KIB
"""What a small upload weighs besides its bytes."""

MAX_CORRUPT: Final = 4096
"""Corrupt objects that are remembered; the oldest are tried again."""

GRACE: Final = 0.1
"""Seconds that obstore has when all is done. Its threads touch Python a moment longer than a
request lasts, and abort the process if the interpreter ends in that moment."""


@dataclass(frozen=True, slots=True)
class ScopedDigest:
    """A digest, the namespace of the principal that asks for it, and the observer of its session.

    It may outlast the session.
    """

    observer: Observer
    namespace: str
    digest: Digest

    @classmethod
    def of(cls, context: Context, digest: Digest) -> Self:
        """A digest that the principal of a session asks for."""
        return cls(Observer.of(context), namespace_of(context.principal), digest)

    @property
    def key(self) -> str:
        """The key of its lease. Principals neither wait for each other, nor see each other wait."""
        return f"{self.namespace}/{self.digest}"


class RemoteTier(AsyncResource):
    """Object storage behind breakers: a failure is a warning, and opens a breaker for a while.

    Uploads run in the background. Closing waits for them; the storage itself is not closed.

    Args:
        store: The object storage.
        pause: Seconds for which it is not asked after it failed.
        patience: Seconds to wait for uploads when closing.
    """

    __slots__ = (
        "_corrupt",
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
        self._corrupt = LRU["Digest", None](MAX_CORRUPT)
        self._uploads = Uploads(patience)
        self._workers = Workers()
        self._used = False
        """Whether the storage was asked at all."""

    def is_readable(self, scoped: ScopedDigest) -> bool:
        """Whether it may be read, and its object of that digest is not known to be corrupt."""
        return scoped.digest not in self._corrupt and not _is_open(scoped, self._reading)

    def is_writable(self, scoped: ScopedDigest) -> bool:
        """Whether it may be written; storage that cannot be read cannot be written, either."""
        return not _is_open(scoped, self._reading, self._writing)

    def is_usable(self, scoped: ScopedDigest) -> bool:
        """Whether one host can hand a blob to another through it now."""
        return self.is_readable(scoped) and self.is_writable(scoped)

    def blob(self, scoped: ScopedDigest) -> StoredBlob:
        """The blob as a candidate."""
        return self._store.blob(scoped.digest)

    async def has(self, scoped: ScopedDigest) -> bool:
        """Whether the blob is there for this principal."""
        if not self.is_readable(scoped):
            return False
        found = await self._guard(
            scoped, self._reading, self._store.has(scoped.namespace, scoped.digest)
        )
        return found is True

    def mark_corrupt(self, scoped: ScopedDigest) -> None:
        """Remember that an object is corrupt: the next upload replaces it, and no read uses it."""
        self._corrupt.put(scoped.digest, None)

    async def find_manifest(self, scoped: ScopedDigest, source: str | None) -> Manifest | None:
        """A verified manifest that this principal read from a source and uploaded."""
        if not self.is_readable(scoped):
            return None
        request = self._store.get_manifest(scoped.namespace, scoped.digest, source)
        found = await self._guard(scoped, self._reading, request)
        if found is None:
            return None
        verify = partial(_verify, found, scoped.digest)
        try:
            if len(found.raw) <= OFFLOAD_BYTES:
                return verify()
            return await asyncio.wrap_future(self._workers.submit(verify))
        except (ManifestError, VerificationError) as error:
            self.mark_corrupt(scoped)
            self._warn(scoped, f"a manifest in it is corrupt, and not used: {error}")
            return None

    def reader(self, file: BlobFile) -> FileReader:
        """A reader of a file for an upload, which may outlast the session; it closes the file."""
        return FileReader(self._workers, file)

    def begin_blob(
        self, scoped: ScopedDigest, size: int, source: UploadSource, lease: AsyncResource | None
    ) -> bool:
        """Begin to upload a blob, unless it is there.

        Args:
            scoped: The blob, and the principal that fetched it.
            size: Bytes that it has.
            source: Gives them; closed when the upload ends.
            lease: Released when the upload ends; None if there is none.

        Returns:
            False if it cannot begin; the caller then still owns `source` and `lease`.
        """
        resources = (source,) if lease is None else (source, lease)
        work = partial(self._put_blob, scoped, size, source.read)
        return self._begin(scoped, work, resources, BLOCK)

    def begin_manifest(self, scoped: ScopedDigest, manifest: Manifest, source: str | None) -> None:
        """Begin to upload a manifest that was read from a source, unless it is there."""
        work = partial(self._put_manifest, scoped, manifest, source)
        self._begin(scoped, work, (), manifest.size + _TASK)

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
        scoped: ScopedDigest,
        work: Callable[[], Coroutine[object, object, None]],
        resources: tuple[AsyncResource, ...],
        weight: int,
    ) -> bool:
        if not self.is_writable(scoped):
            return False
        dropped = partial(self._warn, scoped, f"{scoped.digest} {_DROPPED}")
        begun = self._uploads.start(work, resources, weight=weight, dropped=dropped)
        if not begun and not self._uploads.closed:
            self._fail(scoped, self._writing, "more is to be uploaded than it takes")
        return begun

    async def _put_blob(self, scoped: ScopedDigest, size: int, read: Read) -> None:
        replace = scoped.digest in self._corrupt
        request = self._store.put_blob(scoped.namespace, scoped.digest, size, read, replace=replace)
        await self._put(scoped, request)

    async def _put_manifest(
        self, scoped: ScopedDigest, manifest: Manifest, source: str | None
    ) -> None:
        replace = scoped.digest in self._corrupt
        request = self._store.put_manifest(scoped.namespace, manifest, source, replace=replace)
        await self._put(scoped, request)

    async def _put(self, scoped: ScopedDigest, request: Awaitable[None]) -> None:
        if await self._guard(scoped, self._writing, _done(request)):
            self._corrupt.pop(scoped.digest)

    async def _guard(
        self, scoped: ScopedDigest, breaker: Breaker, request: Awaitable[T]
    ) -> T | None:
        """The answer to a request; None, and a warning, if it fails."""
        self._used = True
        try:
            answer = await request
        except (SourceError, NotFoundError) as error:  # Only a bucket can be missing here.
            self._fail(scoped, breaker, error.message)
            return None
        except SupplementedError as error:
            self._warn(scoped, str(error.locate(digest=scoped.digest)))
            return None
        breaker.record_success()
        now = scoped.observer.clock.now()
        # Reads may succeed while every upload fails, which is one problem all the same.
        if self._reading.state(now) is self._writing.state(now) is BreakerState.CLOSED:
            self._trouble.end()
        return answer

    def _fail(self, scoped: ScopedDigest, breaker: Breaker, reason: str) -> None:
        breaker.record_failure(scoped.observer.clock.now())
        message = f"{reason}; it is not asked for {self._pause:g} s"
        self._trouble.report(partial(self._warn, scoped), message)

    def _warn(self, scoped: ScopedDigest, message: str) -> None:
        scoped.observer.warn(self._store.name, message)


def _is_open(scoped: ScopedDigest, *breakers: Breaker) -> bool:
    now = scoped.observer.clock.now()
    return any(breaker.state(now) is BreakerState.OPEN for breaker in breakers)


def _verify(found: RawManifest, digest: Digest) -> Manifest:
    manifest = Manifest.verified(found.raw, found.media_type, digest)
    with suppress(ManifestError):  # Raised again where it is used; parsed here, in a thread.
        manifest.parse()
    return manifest


async def _done(request: Awaitable[None]) -> bool:
    await request
    return True
