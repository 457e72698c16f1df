"""The cache on disk: a plain OCI layout that many processes share and any tool can read."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from asupplemented.abc import BlobCache
from asupplemented.aio.atomic import StagedFile
from asupplemented.aio.locks import retry_while_locked
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.aio.threads import run_blocking, run_opening
from asupplemented.cache.layout.fetch_lock import FetchLock, FollowedFile
from asupplemented.cache.layout.following import CachedSpool, FollowedCandidate
from asupplemented.cache.layout.lookup import Lookup
from asupplemented.cache.layout.paths import CachePaths, ManifestOrigin, read_labels
from asupplemented.cache.layout.store import CacheStore
from asupplemented.errors import (
    ClosedError,
    ConfigurationError,
    LayoutError,
    LimitExceededError,
    SupplementedError,
    UsageError,
)
from asupplemented.events import Warned
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import SCHEMA1

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asupplemented.abc import BlobCandidate, BlobFile, Context, Spool
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.manifest import Manifest

__all__ = ("CacheStats", "LayoutCache", "ThrottledWarnings")

T = TypeVar("T")

LOCK_PATIENCE: Final = 10.0
"""Seconds to try to get a lock of the cache; after that the cache is passed by."""

WARN_AGAIN: Final = 60.0
"""Seconds in which one kind of trouble is warned of once."""

SWEEP_AGAIN: Final = 600.0
"""Seconds after which leftovers of dead processes are removed again."""


class ThrottledWarnings:
    """Warns hooks of errors of the disk, once a minute for each kind of error.

    May be used from any thread and event loop.

    Args:
        path: The directory of the cache.
    """

    __slots__ = ("_lock", "_path", "_warned")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._warned: dict[str, float] = {}

    def warn(self, context: Context, problem: str, error: SupplementedError) -> None:
        """Warn of an error, unless there was a warning of its kind within the last minute.

        Args:
            context: The session, whose hooks get the warning.
            problem: The kind of error, as the end of a sentence about the cache.
            error: What happened.
        """
        if self._is_due(problem, context.resource(CLOCK, Clock).now()) and context.observed:
            message = f"the cache {self._path} {problem}, and is passed by: {error}"
            context.emit(Warned(f"oci:{self._path}", message))

    def _is_due(self, problem: str, now: float) -> bool:
        with self._lock:
            last = self._warned.get(problem)
            if last is not None and 0 <= now - last < WARN_AGAIN:
                return False
            self._warned[problem] = now
            return True


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache holds, and how often it was of use."""

    bytes: int
    """Of all blobs and manifests, by their apparent size; those in the making not included."""
    entries: int
    """Blobs and manifests."""
    pins: int
    """Digests that are pinned, without what these reference."""
    hits: int
    """Blobs and manifests that this object was asked for and found."""
    misses: int
    """Blobs and manifests that this object was asked for and did not find."""
    limit: int
    """The most bytes that it may hold."""


class LayoutCache(BlobCache):
    """Keeps blobs and manifests in an OCI layout, within a limit of bytes.

    Any number of sessions and processes may use one directory at the same time; each makes its
    own `LayoutCache`, or shares one. It owns no threads: the threads of the calling session do
    the work. Nothing is written before first use.

    Errors of the disk never fail a pull. The pull goes on without the cache, and an event
    `Warned` gives the reason, once a minute for each kind of error.

    Args:
        path: The directory. If it is not there, it is made for this user alone; its parent has
            to be there.
        max_bytes: The most bytes that all blobs and manifests may have together, by their
            apparent size, those that are being fetched included. A larger blob is not kept.
        durable: Whether a blob is on the disk before it counts as there. If not, each file is
            hashed before its first use, because a power failure may have damaged it.
        verify_on_read: Whether each file is hashed before it is served, once for as long as it
            does not change, even if only this user could have written it. Files that other
            users could have written are hashed in any case.
        fills: Whether reading a part of a blob that is not there fetches all of it in the
            background, for later readers.

    Raises:
        ConfigurationError: `max_bytes` is not a number above 0.
    """

    __slots__ = (
        "_closed",
        "_fills",
        "_hits",
        "_lookup",
        "_max_bytes",
        "_misses",
        "_paths",
        "_prepared",
        "_store",
        "_swept",
        "_warnings",
    )

    def __init__(
        self,
        path: str | Path,
        max_bytes: int,
        *,
        durable: bool = True,
        verify_on_read: bool = False,
        fills: bool = False,
    ) -> None:
        self._max_bytes = _check_limit(max_bytes)
        self._paths = CachePaths(Path(path), durable)
        self._store = CacheStore(self._paths, max_bytes)
        self._lookup = Lookup(self._store, verify=verify_on_read or not durable)
        self._prepared = False
        self._swept = 0.0
        self._warnings = ThrottledWarnings(self._paths.root)
        self._fills = fills
        self._hits = 0
        self._misses = 0
        self._closed = False

    @property
    def path(self) -> Path:
        """The directory of the layout."""
        return self._paths.root

    @property
    def max_bytes(self) -> int:
        """The most bytes that all blobs and manifests may have together."""
        return self._max_bytes

    @property
    def fills(self) -> bool:
        return self._fills

    # Finding

    async def find(
        self, session: Context, blob: Descriptor, *, shared: bool = False
    ) -> BlobFile | None:
        """The file of a blob; see `BlobCache.find`.

        Other users of the directory neither remove nor rename the file until it is closed.
        """
        found = await self._find(session, blob, shared=shared)
        self._count(hit=found is not None)
        return found

    async def holds(self, session: Context, blob: Descriptor) -> bool:
        found = await self._find(session, blob, shared=False)
        _close(found)
        return found is not None

    async def _find(self, session: Context, blob: Descriptor, *, shared: bool) -> BlobFile | None:
        digest, principal = Digest(blob.digest), session.principal
        wall = _clock_of(session).wall()

        def look() -> BlobFile | None:
            if not self._lookup.is_granted(digest, principal, shared=shared):
                return None
            return self._lookup.open(digest, blob.size, wall)

        with self._bypass_on_error(session, "cannot be read"):
            if not self._closed:
                return await run_opening(session, look, _close)
        return None

    async def find_manifest(
        self, session: Context, digest: Digest, *, source: str | None = None
    ) -> Manifest | None:
        """A manifest by its digest, verified; see `BlobCache.find_manifest`."""
        principal, wall = session.principal, _clock_of(session).wall()
        look = partial(self._lookup.read_manifest, digest, principal, source, wall)
        found = None
        with self._bypass_on_error(session, "cannot be read"):
            if not self._closed:
                found = await run_blocking(session, look)
        self._count(hit=found is not None)
        return found

    # Keeping

    async def claim(self, session: Context, blob: Descriptor) -> Spool | None:
        """Prepare to fetch a blob; see `BlobCache.claim`.

        If another process is fetching it for the same principal, that process is the candidate
        of the spool. When it dies, one of the processes that follow it takes over.
        """
        digest, principal = Digest(blob.digest), session.principal
        if self._closed or (blob.size is not None and blob.size > self._max_bytes):
            return None
        with self._bypass_on_error(session, "cannot be written"):
            await self._prepare(session)
            begin = partial(self._begin_fetch, digest, principal)
            fetch_lock = await run_opening(session, begin, FetchLock.close)
            return CachedSpool(
                session,
                fetch_lock,
                () if fetch_lock.held else (self._follow(session, fetch_lock, blob),),
                size=blob.size,
                reserve=partial(self._reserve, session, fetch_lock.file),
                release=partial(self._release, session, fetch_lock.file),
                add=partial(self._add_blob, session, digest, principal),
                warn=partial(self._warnings.warn, session, "cannot be written"),
            )
        return None

    async def keep_manifest(
        self, session: Context, manifest: Manifest, *, top: bool, source: str | None = None
    ) -> None:
        """Keep a verified manifest; see `BlobCache.keep_manifest`.

        A top is listed in ``index.json``, by its digest, once all that it references is there.
        Manifests of schema 1 are not kept, because a layout cannot hold them.
        """
        if self._closed or manifest.media_type in SCHEMA1:
            return
        principal, wall = session.principal, _clock_of(session).wall()
        with self._bypass_on_error(session, "cannot be written"):
            await self._prepare(session)
            origin = ManifestOrigin(source, manifest.media_type)
            add = partial(self._add_manifest, manifest, origin, principal, wall, top=top)
            if not await self._retry(session, add):
                self._warn_full(session, manifest.digest)

    async def pin_digests(self, session: Context, *digests: Digest) -> None:
        """Never evict some blobs or manifests; see `BlobCache.pin_digests`.

        Pins outlive this object and its process, and hold for all processes that share the
        directory.

        Raises:
            SupplementedError: The pins cannot be written.
        """
        await self._set_pinned(session, digests, pinned=True)

    async def unpin(self, session: Context, *digests: Digest) -> None:
        """Remove pins; those of other digests stay.

        Raises:
            SupplementedError: The pins cannot be written.
        """
        await self._set_pinned(session, digests, pinned=False)

    def stats(self) -> CacheStats:
        """What the cache holds, and how often this object found what it was asked for.

        Blocking: it lists the directory of the cache.
        """
        sizes = [usage.size for usage in self._store.metadata.scan()]
        return CacheStats(
            bytes=sum(sizes),
            entries=len(sizes),
            pins=sum(1 for _ in read_labels(self._paths.pins)),
            hits=self._hits,
            misses=self._misses,
            limit=self._max_bytes,
        )

    async def aclose(self) -> None:
        """Find and add nothing any more. Spools and files that are open stay usable."""
        self._closed = True

    # Helpers

    def _count(self, *, hit: bool) -> None:
        self._hits += hit
        self._misses += not hit

    async def _reserve(self, session: Context, file: StagedFile, size: int) -> bool:
        wall = _clock_of(session).wall()
        return await self._retry(session, partial(self._store.reserve, file, size, wall))

    async def _release(self, session: Context, file: StagedFile) -> None:
        with self._bypass_on_error(session, "cannot be written"):
            await self._retry(session, partial(self._store.release, file))

    async def _set_pinned(
        self, session: Context, digests: tuple[Digest, ...], *, pinned: bool
    ) -> None:
        if self._closed:
            message = f"the cache {self.path} was closed; make another one to change its pins"
            raise ClosedError(message)
        await self._prepare(session)
        await self._retry(session, partial(self._store.set_pinned, digests, pinned=pinned))

    async def _retry(self, session: Context, func: Callable[[], T]) -> T:
        try:
            return await retry_while_locked(session, self.path, func, patience=LOCK_PATIENCE)
        finally:
            evicted = self._store.evicted
            while evicted:
                session.emit(evicted.popleft())

    async def _prepare(self, session: Context) -> None:
        clock = _clock_of(session)
        if not self._prepared:
            await self._retry(session, partial(self._store.prepare, clock.wall()))
            self._prepared, self._swept = True, clock.now()
        elif clock.now() - self._swept >= SWEEP_AGAIN:
            self._swept = clock.now()
            await run_blocking(session, self._store.sweep)

    def _begin_fetch(self, digest: Digest, principal: str | None) -> FetchLock:
        fetch_lock = FetchLock(self._paths.ingest, self._paths.fetch_lock(digest, principal))
        try:
            fetch_lock.acquire()
            if self._paths.has(digest) and self._lookup.is_granted(digest, principal, shared=False):
                # It was added after `find` looked for it: without the lock, the file is read.
                fetch_lock.release()
        except BaseException:
            fetch_lock.close()
            raise
        return fetch_lock

    def _follow(self, session: Context, fetch_lock: FetchLock, blob: Descriptor) -> BlobCandidate:
        digest, principal = Digest(blob.digest), session.principal
        path = self._paths.fetch_lock(digest, principal)
        wall = _clock_of(session).wall()

        def find_whole() -> BlobFile | None:
            if not self._lookup.is_granted(digest, principal, shared=False):
                return None
            return self._lookup.open(digest, blob.size, wall)

        return FollowedCandidate(
            session,
            f"{self}@{digest}",
            lambda: FollowedFile(fetch_lock, path, self._paths.ingest, find_whole),
            blob.size,
        )

    async def _add_blob(
        self, session: Context, digest: Digest, principal: str | None, file: StagedFile, size: int
    ) -> None:
        wall = _clock_of(session).wall()
        with self._bypass_on_error(session, "cannot be written"):
            if self._paths.durable:
                await run_blocking(session, file.sync)
            add = partial(self._store.add, file, digest, size, principal, wall)
            if not await self._retry(session, add):
                self._warn_full(session, digest)

    def _add_manifest(
        self,
        manifest: Manifest,
        origin: ManifestOrigin,
        principal: str | None,
        wall: float,
        *,
        top: bool,
    ) -> bool:
        # Not synced: a manifest is verified each time it is read, and synced when it is listed.
        file = StagedFile.create(self._paths.ingest)
        try:
            file.write(0, manifest.raw)
            return self._store.add(
                file,
                manifest.digest,
                manifest.size,
                principal,
                wall,
                manifest=origin,
                top=top,
            )
        finally:
            file.close()

    # Errors

    @contextmanager
    def _bypass_on_error(self, session: Context, problem: str) -> Generator[None]:
        """Turn errors of the disk into a warning, so that the caller goes on without the cache."""
        try:
            yield
        except UsageError:
            raise
        except SupplementedError as error:
            if isinstance(error, LayoutError):
                self._prepared = False  # The directory may be gone; the next call makes it.
            self._warnings.warn(session, problem, error)

    def _warn_full(self, session: Context, digest: Digest) -> None:
        message = (
            "the blob is larger than the limit, or all other blobs are pinned or being read; "
            "raise max_bytes or unpin something"
        )
        error = LimitExceededError(message, limit=self._max_bytes, digest=digest)
        self._warnings.warn(session, "has no room", error)

    def __str__(self) -> str:
        return f"oci:{self.path}"

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<LayoutCache {str(self.path)!r} of {self._max_bytes} bytes, {state}>"


def _close(file: BlobFile | None) -> None:
    if file is not None:
        file.close()


def _clock_of(session: Context) -> Clock:
    return session.resource(CLOCK, Clock)


def _check_limit(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        message = f"max_bytes is a number of bytes above 0, not {value!r}"
        raise ConfigurationError(message)
    return value
