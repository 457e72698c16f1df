"""The cache on disk: a plain OCI layout that many processes share and any tool can read."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from asupplemented.abc import BlobCache
from asupplemented.aio.atomic import StagedFile
from asupplemented.aio.locks import retry_while_locked
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.aio.threads import run_blocking, run_opening
from asupplemented.cache.layout.fetch_lock import Claim, Trail
from asupplemented.cache.layout.following import CachedSpool, FollowedCandidate
from asupplemented.cache.layout.lookup import Finder
from asupplemented.cache.layout.paths import Places
from asupplemented.cache.layout.store import Stock
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
from asupplemented.model.media_type import DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asupplemented.abc import BlobCandidate, BlobFile, Context, RawManifest, Spool
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.manifest import Manifest

__all__ = ("LayoutCache", "ThrottledWarnings")

T = TypeVar("T")


LOCK_PATIENCE: Final = 10.0
"""Seconds to try to get a lock of the cache; after that the cache is passed by."""

WARN_AGAIN: Final = 60.0
"""Seconds in which one kind of trouble is warned of once."""

SWEEP_AGAIN: Final = 600.0
"""Seconds after which the left-overs of dead processes are looked for again."""

_NOT_OF_LAYOUTS: Final = frozenset((DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED))


class LayoutCache(BlobCache):
    """Keeps blobs and manifests in an OCI layout, within a limit of bytes.

    Any number of sessions and processes may use one directory at the same time; each makes its
    own `LayoutCache`, or shares one. It owns no threads: work is done in those of the session that
    asks. Nothing is written before first use.

    Trouble with the disk never fails a pull: the cache is passed by, and an event
    `asupplemented.events.Warned` tells why, once a minute for each kind of trouble.

    Args:
        path: The directory. It is made, for this user alone, if it is not there; its parent is
            not.
        max_bytes: The most bytes that all blobs and manifests may have together, by their
            apparent size. What is being fetched comes on top. A larger blob is not kept.
        durable: Whether a blob has reached the disk before it counts as there. Without that,
            each file is hashed before its first use, because a power failure may have
            spoiled it.
        verify_on_read: Whether each file is hashed before it is served, once for as long as it
            does not change, even if only this user could have written it. Files that others
            could have written are hashed in any case.
        fills: Whether who reads a part of a blob that is not there has all of it fetched
            meanwhile, for those who come later.

    Raises:
        ConfigurationError: An argument is not what it should be.
    """

    __slots__ = (
        "_closed",
        "_fills",
        "_finder",
        "_max_bytes",
        "_places",
        "_prepared",
        "_stock",
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
        self._places = Places(Path(path), durable)
        self._stock = Stock(self._places, max_bytes)
        self._finder = Finder(self._stock, verify=verify_on_read or not durable)
        self._prepared = False
        self._swept = 0.0
        self._warnings = ThrottledWarnings(self._places.root)
        self._fills = fills
        self._closed = False

    @property
    def path(self) -> Path:
        """The directory of the layout."""
        return self._places.root

    @property
    def max_bytes(self) -> int:
        """The most bytes that all blobs and manifests may have together."""
        return self._max_bytes

    @property
    def fills(self) -> bool:
        return self._fills

    # Finding

    async def find(
        self, context: Context, blob: Descriptor, *, shared: bool = False
    ) -> BlobFile | None:
        """The file of a blob; see `BlobCache.find`.

        Others who use the directory leave the file and its name alone until it is closed.
        """
        digest, principal = Digest(blob.digest), context.principal
        wall = _clock_of(context).wall()

        def look() -> BlobFile | None:
            if not self._finder.may_have(digest, principal, shared=shared):
                return None
            return self._finder.open(digest, blob.size, wall)

        with self._passing_by(context, "cannot be read"):
            if not self._closed:
                return await run_opening(context, look, _close)
        return None

    async def find_manifest(
        self, context: Context, digest: Digest, *, shared: bool = False
    ) -> RawManifest | None:
        """A manifest by its digest, verified; see `BlobCache.find_manifest`."""
        principal, wall = context.principal, _clock_of(context).wall()

        def look() -> RawManifest | None:
            if not self._finder.may_have(digest, principal, shared=shared):
                return None
            return self._finder.read_manifest(digest, wall)

        with self._passing_by(context, "cannot be read"):
            if not self._closed:
                return await run_blocking(context, look)
        return None

    # Keeping

    async def claim(self, context: Context, blob: Descriptor) -> Spool | None:
        """Prepare to fetch a blob; see `BlobCache.claim`.

        If another process is fetching it for the same principal, that process is the candidate
        of the spool; and when it dies, one of those who follow it takes over.
        """
        digest, principal = Digest(blob.digest), context.principal
        if self._closed or (blob.size is not None and blob.size > self._max_bytes):
            return None
        with self._passing_by(context, "cannot be written"):
            await self._prepare(context)
            start = partial(self._start, digest, principal)
            claim = await run_opening(context, start, Claim.drop)
            return CachedSpool(
                context,
                claim,
                () if claim.leads else (self._follow(context, claim, blob),),
                partial(self._keep_blob, context, digest, principal),
                partial(self._warnings.warn, context, "cannot be written"),
            )
        return None

    async def keep_manifest(self, context: Context, manifest: Manifest, *, top: bool) -> None:
        """Keep a verified manifest; see `BlobCache.keep_manifest`.

        A top is listed in ``index.json``, by its digest, as soon as all that it names is there.
        Manifests of schema 1 are not kept, because a layout cannot hold them.
        """
        if self._closed or manifest.media_type in _NOT_OF_LAYOUTS:
            return
        principal, wall = context.principal, _clock_of(context).wall()
        with self._passing_by(context, "cannot be written"):
            await self._prepare(context)
            put = partial(self._put_manifest, manifest, principal, wall, top=top)
            if not await self._retry(context, put):
                self._warn_full(context, manifest.digest)

    async def pin_digests(self, context: Context, *digests: Digest) -> None:
        """Never evict some blobs or manifests; see `BlobCache.pin_digests`.

        Pins outlive this object and its process, and hold for all that share the directory.

        Raises:
            SupplementedError: The pins cannot be written.
        """
        await self._set_pinned(context, digests, pinned=True)

    async def unpin(self, context: Context, *digests: Digest) -> None:
        """Take pins away; those of other digests stay.

        Raises:
            SupplementedError: The pins cannot be written.
        """
        await self._set_pinned(context, digests, pinned=False)

    async def aclose(self) -> None:
        """Find and keep nothing any more. Spools and files that were given out go on."""
        self._closed = True

    # How

    async def _set_pinned(
        self, context: Context, digests: tuple[Digest, ...], *, pinned: bool
    ) -> None:
        if self._closed:
            message = f"the cache {self.path} was closed; make another one to change its pins"
            raise ClosedError(message)
        await self._prepare(context)
        await self._retry(context, partial(self._stock.set_pinned, digests, pinned=pinned))

    async def _retry(self, context: Context, func: Callable[[], T]) -> T:
        return await retry_while_locked(context, self.path, func, patience=LOCK_PATIENCE)

    async def _prepare(self, context: Context) -> None:
        clock = _clock_of(context)
        if not self._prepared:
            await self._retry(context, partial(self._stock.prepare, clock.wall()))
            self._prepared, self._swept = True, clock.now()
        elif clock.now() - self._swept >= SWEEP_AGAIN:
            self._swept = clock.now()
            await run_blocking(context, self._stock.sweep)

    def _start(self, digest: Digest, principal: str | None) -> Claim:
        claim = Claim(self._places.ingest, self._places.lead(digest, principal))
        try:
            claim.begin()
            if self._places.has(digest) and self._finder.may_have(digest, principal, shared=False):
                claim.let_go()  # It came since it was looked for: who follows reads the file.
        except BaseException:
            claim.drop()
            raise
        return claim

    def _follow(self, context: Context, claim: Claim, blob: Descriptor) -> BlobCandidate:
        digest, principal = Digest(blob.digest), context.principal
        lead = self._places.lead(digest, principal)
        wall = _clock_of(context).wall()

        def find_whole() -> BlobFile | None:
            if not self._finder.may_have(digest, principal, shared=False):
                return None
            return self._finder.open(digest, blob.size, wall)

        return FollowedCandidate(
            context,
            f"{self}@{digest}",
            lambda: Trail(claim, lead, self._places.ingest, find_whole),
            blob.size,
        )

    async def _keep_blob(
        self, context: Context, digest: Digest, principal: str | None, file: StagedFile, size: int
    ) -> None:
        wall = _clock_of(context).wall()
        with self._passing_by(context, "cannot be written"):
            if self._places.durable:
                await run_blocking(context, file.sync)
            put = partial(self._stock.keep, file, digest, size, principal, wall)
            if not await self._retry(context, put):
                self._warn_full(context, digest)

    def _put_manifest(
        self, manifest: Manifest, principal: str | None, wall: float, *, top: bool
    ) -> bool:
        # Not synced: a manifest is verified each time it is read, and synced when it is listed.
        file = StagedFile.create(self._places.ingest)
        try:
            file.write(0, manifest.raw)
            return self._stock.keep(
                file,
                manifest.digest,
                manifest.size,
                principal,
                wall,
                kind=manifest.media_type,
                top=top,
            )
        finally:
            file.close()

    # Trouble

    @contextmanager
    def _passing_by(self, context: Context, trouble: str) -> Generator[None]:
        """Warn about trouble with the disk, and go on."""
        try:
            yield
        except UsageError:
            raise
        except SupplementedError as error:
            if isinstance(error, LayoutError):
                self._prepared = False  # The directory may be gone, and can be made again.
            self._warnings.warn(context, trouble, error)

    def _warn_full(self, context: Context, digest: Digest) -> None:
        message = "the blob is larger than the limit, or all the rest is pinned or being read"
        error = LimitExceededError(message, limit=self._max_bytes, digest=digest)
        self._warnings.warn(context, "has no room", error)

    def __str__(self) -> str:
        return f"oci:{self.path}"

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<LayoutCache {str(self.path)!r} of {self._max_bytes} bytes, {state}>"


class ThrottledWarnings:
    """Warns hooks of trouble with the disk, once a minute for each kind of trouble.

    May be used from any thread and event loop.

    Args:
        path: The directory of the cache.
    """

    __slots__ = ("_lock", "_path", "_warned")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._warned: dict[str, float] = {}

    def warn(self, context: Context, trouble: str, error: SupplementedError) -> None:
        """Warn of an error, unless there was a warning of its kind within the last minute.

        Args:
            context: The session, whose hooks get the warning.
            trouble: The kind, as the end of a sentence about the cache.
            error: What happened.
        """
        if self._is_due(trouble, context.resource(CLOCK, Clock).now()) and context.observed:
            message = f"the cache {self._path} {trouble}, and is passed by: {error}"
            context.emit(Warned(f"oci:{self._path}", message))

    def _is_due(self, trouble: str, now: float) -> bool:
        with self._lock:
            last = self._warned.get(trouble)
            if last is not None and 0 <= now - last < WARN_AGAIN:
                return False
            self._warned[trouble] = now
            return True


def _close(file: BlobFile | None) -> None:
    if file is not None:
        file.close()


def _clock_of(context: Context) -> Clock:
    return context.resource(CLOCK, Clock)


def _check_limit(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        message = f"max_bytes is a number of bytes above 0, not {value!r}"
        raise ConfigurationError(message)
    return value
