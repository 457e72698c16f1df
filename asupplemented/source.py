"""`VerifiedSource`, the one source over all transports: it verifies what an adapter reads.

Theory of operation. An adapter reads raw bytes. This module adds, once for every transport, what
makes them trustworthy: caps, digests, mapped errors, the hooks, and one default manifest, which is
read at open and kept so that all answers agree while a tag moves. Manifests are verified here.
Blobs are not: a source hands out candidates, and the stream that reads one hashes it, so that every
byte is hashed once.
"""

from __future__ import annotations

import warnings
from functools import lru_cache, partial
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar, cast

from asupplemented.abc import (
    AsyncResource,
    Batched,
    BlobCandidate,
    BlobConcurrency,
    LayersForCopy,
    LocalFile,
    ManifestTrace,
    Opening,
    Placed,
    Ranged,
    RawManifest,
    Referring,
    RepositoryReference,
    Scrubbing,
    Signed,
    Source,
    StreamsBlobs,
)
from asupplemented.aio.closing import closing_on_error
from asupplemented.aio.concurrency import SingleFlight
from asupplemented.aio.files import map_os_error
from asupplemented.aio.threads import run_blocking, run_by_size, run_opening
from asupplemented.aio.timers import time_limit
from asupplemented.errors import (
    ClosedError,
    LimitExceededError,
    SizeMismatchError,
    SupplementedError,
    UnsupportedOperationError,
)
from asupplemented.events import ManifestFetched
from asupplemented.limits import MAX_MANIFEST, OFFLOAD_BYTES
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest, UnreadManifest
from asupplemented.remedies import OPEN_TIMEOUT, advise

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asupplemented.abc import (
        BlobFile,
        BlobPlace,
        BlobStream,
        Context,
        RawBlob,
        RawParts,
        Reference,
        SourceAdapter,
    )
    from asupplemented.events import CacheUse, CopyProgress, PrefetchReport
    from asupplemented.model.index import Selection
    from asupplemented.model.signature import Signature

__all__ = (
    "VerifiedSource",
    "fetch_batch",
    "open_in_time",
    "open_limit",
    "open_verified",
    "place_of",
    "verify_manifest",
    "verify_unread",
)


T = TypeVar("T")
ManifestT = TypeVar("ManifestT", Manifest, UnreadManifest)


def verify_manifest(raw: RawManifest, expected: Digest | None, size: int | None) -> Manifest:
    """Check that a manifest is what its digest names.

    Args:
        raw: The manifest as an adapter read it.
        expected: The digest that names it, None if none does.
        size: Its size in bytes according to the descriptor that names it, None if unknown.

    Raises:
        LimitExceededError: It is larger than ``MAX_MANIFEST``.
        VerificationError: It is not what the digest names.
        ManifestError: It is no manifest.
    """
    actual = _check_limit(raw)
    _check_size(actual, size)
    return Manifest.verified(raw.raw, raw.media_type, expected)


def _check_size(actual: int, expected: int | None) -> None:
    if expected is not None and actual != expected:
        message = f"the manifest has {actual} bytes, but its descriptor says {expected}"
        raise SizeMismatchError(message, expected=expected, actual=actual)


def _verify_instance(raw: RawManifest, expected: Digest) -> Manifest:
    return verify_manifest(raw, expected, None)


def verify_unread(raw: RawManifest, expected: Digest) -> UnreadManifest:
    """Check that the bytes of a manifest are those that a digest names, and read nothing.

    Raises:
        LimitExceededError: There are more than ``MAX_MANIFEST``.
        VerificationError: They are not what the digest names.
        MalformedManifestError: The signatures of a schema 1 manifest are malformed.
    """
    _check_limit(raw)
    return UnreadManifest.verified(raw.raw, raw.media_type, expected)


def _try_read(unread: UnreadManifest) -> Manifest | None:
    """A manifest by what its source and its bytes tell; None if they do not tell its type."""
    try:
        return unread.read()
    except SupplementedError:
        return None


def _check_limit(raw: RawManifest) -> int:
    """The size of a manifest, which must not be too large."""
    if len(raw.raw) > MAX_MANIFEST:
        message = f"the manifest exceeded maximum allowed size of {MAX_MANIFEST} bytes"
        raise LimitExceededError(message, limit=MAX_MANIFEST)
    return len(raw.raw)


def fetch_batch(
    adapter: Batched, instances: Sequence[Digest], verify: Callable[[RawManifest, Digest], T]
) -> list[T | SupplementedError]:
    """Read and verify many manifests; one outcome for each. Blocking."""
    outcomes: list[T | SupplementedError] = []
    for digest, raw in zip(instances, adapter.fetch_manifests(instances), strict=True):
        try:
            outcomes.append(verify(raw, digest) if isinstance(raw, RawManifest) else raw)
        except SupplementedError as error:
            outcomes.append(error)
    return outcomes


def open_verified(
    opener: Callable[[], Awaitable[SourceAdapter]], reference: Reference, session: Context
) -> Opening[Source]:
    """Open an adapter as a verified source; `Reference.open` of a transport returns this.

    Opening reads the default manifest, so a missing image fails at open (rule SRC-01). It takes
    at most ``timeouts.open`` seconds. A failure on the way closes the adapter.

    Args:
        opener: Opens the adapter; on failure or cancellation it leaves nothing open.
        reference: The reference as the user gave it.
        session: Gives connections, credentials, limits and caches.
    """
    return Opening(
        lambda: _in_time(_open(opener, reference, session), reference, session), reference
    )


def place_of(reference: Reference) -> str:
    """The name that a cache has for where a reference is read: its repository, or the reference.

    What one reference to a repository reads, another one can read (rule SEC-18).
    """
    if isinstance(reference, RepositoryReference):
        return f"{reference.transport}://{reference.repository}"
    return str(reference)


async def open_in_time(reference: Reference, session: Context) -> Source:
    """Open any reference within ``timeouts.open`` seconds.

    Raises:
        SourceTimeoutError: It took longer.
        SupplementedError: The reference cannot be opened.
    """
    return await _in_time(reference.open(session), reference, session)


async def _in_time(opening: Awaitable[Source], reference: Reference, session: Context) -> Source:
    with _located(reference):
        async with open_limit("opening", session):
            return await opening


def open_limit(what: str, session: Context) -> time_limit:
    """Limit the body of an ``async with`` to ``timeouts.open`` seconds.

    Args:
        what: What the body does, for the `SourceTimeoutError`.
        session: Its session.
    """
    return time_limit(session.timeouts.open, what, advise=_advise_patience)


def _advise_patience() -> str:
    return advise("to wait for longer, set {}", OPEN_TIMEOUT)


async def _open(
    opener: Callable[[], Awaitable[SourceAdapter]], reference: Reference, session: Context
) -> Source:
    with _located(reference):
        source = VerifiedSource(await opener(), reference, session)
    async with closing_on_error(lambda: (source,), "the source"):
        await source.get_manifest()
    return source


@lru_cache(maxsize=64)
def _find_abilities(adapter: type[SourceAdapter]) -> frozenset[type]:
    """The abilities of a class of adapters; kept, because the check of a protocol is slow."""
    abilities: tuple[type, ...] = (Batched, Placed, StreamsBlobs, LocalFile)
    return frozenset(ability for ability in abilities if issubclass(adapter, ability))


class VerifiedSource(Source):
    """A source whose manifests and blobs are what their digests name.

    Args:
        adapter: Reads raw bytes; the source closes it.
        reference: The reference as the user gave it (rule SR-01).
        session: Gives connections, credentials, limits and caches.
    """

    __slots__ = (
        "__weakref__",
        "_adapter",
        "_batch",
        "_closed",
        "_default",
        "_files",
        "_flight",
        "_from_cache",
        "_holds",
        "_placed",
        "_reference",
        "_session",
        "_streams",
    )

    def __init__(self, adapter: SourceAdapter, reference: Reference, session: Context) -> None:
        self._adapter = adapter
        abilities = _find_abilities(type(adapter))
        self._batch = cast("Batched", adapter) if Batched in abilities else None
        self._placed = cast("Placed", adapter) if Placed in abilities else None
        self._streams = cast("StreamsBlobs", adapter) if StreamsBlobs in abilities else None
        self._files = cast("LocalFile", adapter) if LocalFile in abilities else None
        self._reference = reference
        self._session = session
        self._default: Manifest | None = None
        self._flight = SingleFlight[Manifest]()
        self._closed = False
        self._from_cache: set[Digest] = set()
        """Manifests that the cache gave when they were read last."""
        self._holds = 0
        """Number of fetches that keep the adapter open after the source is closed."""

    @property
    def reference(self) -> Reference:
        """The reference as the user gave it."""
        return self._reference

    @property
    def concurrent_blobs(self) -> bool:
        adapter = self._adapter
        return adapter.concurrent_blobs if isinstance(adapter, BlobConcurrency) else True

    @property
    def batched(self) -> bool:
        return self._batch is not None

    # Manifests

    async def get_manifest(self, instance: Digest | str | None = None) -> Manifest:
        """The default manifest (None), or that of an instance, verified.

        The default manifest is read once and kept, so that all answers about it agree while a
        tag moves (rule HTTP-09). Instances are read each time.

        Raises:
            InvalidDigestError: `instance` is no digest; nothing was requested.
            ManifestNotFoundError: There is no such manifest.
            VerificationError: The bytes are not those that the digest names.
            ManifestError: The bytes are no manifest.
            LimitExceededError: There are more than ``MAX_MANIFEST`` bytes.
            SourceError: The source failed.
            ClosedError: The source is closed.
        """
        self._check_open()
        if instance is None:
            if self._default is None:
                self._default = await self._flight.run(self._fetch_default)
            return self._default
        digest = Digest(instance)
        return await self._fetch(digest, digest, None)

    def trace_manifest(self, digest: Digest) -> ManifestTrace:
        """Say where a manifest that was read comes from."""
        use: CacheUse = "hit" if digest in self._from_cache else "miss"
        if self.has_files:
            use = ""
        held = self._default is not None and self._default.digest == digest
        return ManifestTrace(str(self._reference), use, held)

    async def _fetch_default(self) -> Manifest:
        with _located(self._reference):
            # As for a `Named` adapter; isinstance() of a protocol with a property is slow.
            named: Descriptor | None = getattr(self._adapter, "default_descriptor", None)
            expected = None if named is None else Digest(named.digest)
        return await self._fetch(None, expected, None if named is None else named.size)

    async def _fetch(
        self, instance: Digest | None, expected: Digest | None, size: int | None
    ) -> Manifest:
        began = perf_counter()
        with _located(self._reference, expected):
            kept = await self._find_kept(expected) if expected and self._caches else None
            if kept is None:
                manifest = await self._read(
                    instance, lambda raw: verify_manifest(raw, expected, size)
                )
            else:
                manifest = kept
                _check_size(manifest.size, size)  # The cache has verified all else.
        self._check_open()  # the source may have been closed while the adapter read
        if self._caches:
            self._keep(manifest, top=instance is None)
        self._tell(manifest, perf_counter() - began, cached=kept is not None)
        return manifest

    async def _fetch_unread(self, digest: Digest) -> UnreadManifest:
        began = perf_counter()
        with _located(self._reference, digest):
            kept = await self._find_kept(digest) if self._caches else None
            if kept is None:
                unread = await self._read(digest, lambda raw: verify_unread(raw, digest))
            else:
                unread = UnreadManifest(kept.raw, kept.media_type, digest)
        self._check_open()  # the source may have been closed while the adapter read
        if self._caches:
            manifest = kept or await run_by_size(
                self._session, unread.size, partial(_try_read, unread)
            )
            if manifest is not None:
                self._keep(manifest, top=False)
        self._tell(unread, perf_counter() - began, cached=kept is not None)
        return unread

    @property
    def _caches(self) -> bool:
        return self._session.cache is not None and not self.has_files

    async def _read(self, instance: Digest | None, verify: Callable[[RawManifest], T]) -> T:
        """Read a manifest from the adapter, and verify it, a large one in a thread."""
        raw = await self._adapter.fetch_manifest(instance)
        try:
            if len(raw.raw) > OFFLOAD_BYTES:
                return await run_blocking(self._session, verify, raw)
            return verify(raw)
        except SupplementedError as error:
            if isinstance(self._adapter, Scrubbing):
                self._adapter.scrub(error)
            raise

    async def _find_kept(self, digest: Digest) -> Manifest | None:
        """The manifest as the cache has it from here, None if it does not."""
        from asupplemented.cache.manifests import find_manifest

        return await find_manifest(self._session, digest, self._place)

    def _keep(self, manifest: Manifest, *, top: bool) -> None:
        from asupplemented.cache.manifests import keep_manifest

        keep_manifest(self._session, manifest, self._place, top=top)

    @property
    def _place(self) -> str:
        """What manifests are known to be in once they were read from here."""
        return place_of(self._reference)

    async def get_manifests(
        self, instances: Sequence[Digest]
    ) -> Sequence[Manifest | SupplementedError]:
        """Many instances, one outcome each, in the order of `instances`.

        From a `Batched` adapter they are read and verified in one hop to a thread.

        Raises:
            SourceError: The source failed as a whole.
            ClosedError: The source is closed.
        """
        self._check_open()
        if self._batch is None:
            return await super().get_manifests(instances)
        return await self._fetch_batch(self._batch, instances, _verify_instance)

    async def fetch_manifests(
        self, instances: Sequence[Digest]
    ) -> Sequence[UnreadManifest | SupplementedError]:
        """Many instances as verified bytes, one outcome each, in the order of `instances`.

        Raises:
            SourceError: The source failed as a whole.
            ClosedError: The source is closed.
        """
        self._check_open()
        if self._batch is not None:
            return await self._fetch_batch(self._batch, instances, verify_unread)
        outcomes: list[UnreadManifest | SupplementedError] = []
        for instance in instances:
            try:
                outcomes.append(await self._fetch_unread(Digest(instance)))
            except SupplementedError as error:
                outcomes.append(error)
        return outcomes

    async def _fetch_batch(
        self,
        adapter: Batched,
        instances: Sequence[Digest],
        verify: Callable[[RawManifest, Digest], ManifestT],
    ) -> list[ManifestT | SupplementedError]:
        wanted = [Digest(instance) for instance in instances]
        began = perf_counter()
        with _located(self._reference):
            outcomes = await run_blocking(self._session, fetch_batch, adapter, wanted, verify)
        seconds = perf_counter() - began
        for digest, outcome in zip(wanted, outcomes, strict=True):
            if isinstance(outcome, SupplementedError):
                outcome.locate(reference=self._reference, digest=digest)
            else:
                self._tell(outcome, seconds)
        return outcomes

    def _tell(
        self, manifest: Manifest | UnreadManifest, seconds: float, *, cached: bool = False
    ) -> None:
        if cached:
            self._from_cache.add(manifest.digest)
        elif self._from_cache:
            self._from_cache.discard(manifest.digest)
        if not self._session.observed:
            return
        reference, size = str(self._reference), manifest.size
        self._session.emit(ManifestFetched(reference, manifest.digest, size, seconds, cached))

    # Blobs

    @property
    def has_files(self) -> bool:
        """Whether the adapter holds blobs in local files."""
        return self._files is not None

    def blob_candidates(self, blob: Descriptor) -> Sequence[BlobCandidate]:
        """One candidate for each place of the adapter, or one for the adapter itself.

        Only opening a candidate shows whether it holds the blob.

        Raises:
            InvalidDigestError: The descriptor has no valid digest.
            UnsupportedOperationError: The adapter has none of the abilities that serve blobs.
            ClosedError: The source is closed.
        """
        self._check_open()
        digest = Digest(blob.digest)
        if self._placed is not None:
            return tuple(_Candidate(self, blob, place) for place in self._placed.blob_places())
        if self._files is None and self._streams is None:
            message = (
                f"{type(self._adapter).__name__} serves manifests only; to serve blobs, an "
                "adapter implements StreamsBlobs, LocalFile or Placed"
            )
            raise UnsupportedOperationError(message, reference=self._reference, digest=digest)
        return (_Candidate(self, blob),)

    def open_blob(
        self,
        blob: Digest | str | Descriptor,
        *,
        start: int = 0,
        end: int | None = None,
        shared: bool = True,
    ) -> BlobStream:
        from asupplemented.cache.sharing import open_stream

        descriptor = blob if isinstance(blob, Descriptor) else Descriptor(digest=Digest(blob))
        candidates = self.blob_candidates(descriptor)
        return open_stream(
            descriptor, candidates, self._session, start=start, end=end, shared=shared
        )

    def open_parts(
        self, blob: Digest | str | Descriptor, ranges: Sequence[tuple[int, int | None]]
    ) -> RawParts:
        self._check_open()
        descriptor = blob if isinstance(blob, Descriptor) else Descriptor(digest=Digest(blob))
        digest = Digest(descriptor.digest)
        if not isinstance(self._adapter, Ranged):
            return super().open_parts(descriptor, ranges)
        with _located(self._reference, digest):
            return self._adapter.open_parts(descriptor, ranges)

    def open_raw(
        self,
        blob: Descriptor,
        start: int,
        end: int | None,
        etag: str | None,
        place: BlobPlace | None = None,
    ) -> RawBlob:
        """The bytes of a blob from one of the adapter's places, or from itself, unverified."""
        self._check_held()
        stream = place or self._streams
        if stream is None:
            message = "this source has blobs in files; read the file"
            raise UnsupportedOperationError(message, reference=self._reference)
        return stream.open_blob(blob, start, end, etag)

    async def open_file(self, blob: Descriptor) -> BlobFile | None:
        """The local file of a blob, unverified; None where the adapter has no files."""
        self._check_held()
        if self._files is None:
            return None
        opener = partial(self._files.open_file, blob)
        return await run_opening(self._session, opener, lambda late: late.close())

    async def prefetch(
        self,
        *,
        selection: Selection | None = None,
        concurrency: int | None = None,
        progress: Callable[[CopyProgress], None] | None = None,
    ) -> PrefetchReport:
        """Fetch the image into the cache of the session; see `asupplemented.transfer.prefetch`."""
        from asupplemented.transfer.prefetch import prefetch

        self._check_open()
        return await prefetch(
            self,
            self._session,
            selection=selection,
            concurrency=concurrency,
            progress=progress,
        )

    # What belongs to instances

    async def get_signatures(self, instance: Digest | str | None = None) -> tuple[Signature, ...]:
        self._check_open()
        digest = None if instance is None else Digest(instance)
        if not isinstance(self._adapter, Signed):
            return ()
        with _located(self._reference, digest):
            return tuple(await self._adapter.fetch_signatures(digest))

    async def layers_for_copy(
        self, instance: Digest | str | None = None
    ) -> tuple[Descriptor, ...] | None:
        self._check_open()
        digest = None if instance is None else Digest(instance)
        if not isinstance(self._adapter, LayersForCopy):
            return None
        with _located(self._reference, digest):
            layers = await self._adapter.layers_for_copy(digest)
        return None if layers is None else tuple(layers)

    async def get_referrers(
        self, subject: Digest | str, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        self._check_open()
        digest = Digest(subject)
        if not isinstance(self._adapter, Referring):
            return await super().get_referrers(digest, artifact_type)
        with _located(self._reference, digest):
            return tuple(await self._adapter.fetch_referrers(digest, artifact_type))

    # Closing

    def _check_open(self) -> None:
        if self._closed:
            message = "the source has been closed; open the reference again"
            raise ClosedError(message, reference=self._reference)

    def _check_held(self) -> None:
        if not self._holds:
            self._check_open()

    async def aclose(self) -> None:
        """Close the adapter, or let the last fetch that uses it do so. May be called again."""
        if self._closed:
            return
        self._closed = True
        if not self._holds:
            await self._adapter.aclose()

    def hold(self) -> AsyncResource:
        """Keep the adapter open until the result is closed."""
        self._check_held()
        self._holds += 1
        return _Hold(self._release, self._release_at_once)

    def _release_at_once(self) -> bool:
        """End a hold, unless the adapter has to be closed with it."""
        if self._closed and self._holds == 1:
            return False
        self._holds -= 1
        return True

    async def _release(self) -> None:
        self._holds -= 1
        if self._closed and not self._holds:
            await self._adapter.aclose()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            message = f"unclosed {self!r}; use it with 'async with', or await its aclose()"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<VerifiedSource of {self._reference}, {state}>"


class _Candidate(BlobCandidate):
    """A source, or one of its places, as a candidate for one blob."""

    __slots__ = ("_blob", "_place", "_reference", "_source")

    def __init__(
        self, source: VerifiedSource, blob: Descriptor, place: BlobPlace | None = None
    ) -> None:
        self._source = source
        self._blob = blob
        self._place = place
        self._reference = str(source.reference) if place is None else ""
        """Kept as text, because it is asked for a dozen times for each blob."""

    @property
    def reference(self) -> str:
        return self._reference if self._place is None else self._place.reference

    @property
    def local(self) -> bool:
        return self._source.has_files

    def hold(self) -> AsyncResource:
        return self._source.hold()

    def open(self, start: int = 0, end: int | None = None, etag: str | None = None, /) -> RawBlob:
        return self._source.open_raw(self._blob, start, end, etag, self._place)

    async def open_file(self) -> BlobFile | None:
        return await self._source.open_file(self._blob)


class _Hold(AsyncResource):
    """Keeps an adapter open until it is closed itself."""

    __slots__ = ("_release", "_release_at_once")

    def __init__(
        self, release: Callable[[], Awaitable[None]], release_at_once: Callable[[], bool]
    ) -> None:
        self._release: Callable[[], Awaitable[None]] | None = release
        self._release_at_once = release_at_once

    def close_at_once(self) -> bool:
        """Close, if the adapter stays open; see `close_all`."""
        if self._release is not None:
            if not self._release_at_once():
                return False
            self._release = None
        return True

    async def aclose(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            await release()


class _located:  # noqa: N801 - it is used as a function
    """Add the reference and digest to an error, and map errors of the operating system.

    It is a class, because every manifest passes through it and a generator is slower.
    """

    __slots__ = ("_digest", "_reference")

    def __init__(self, reference: Reference, digest: Digest | None = None) -> None:
        self._reference = reference
        self._digest = digest

    def __enter__(self) -> None:
        """There is nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if isinstance(error, SupplementedError):
            error.locate(reference=self._reference, digest=self._digest)
        elif isinstance(error, (OSError, EOFError)):
            mapped = map_os_error(error, self._reference)
            raise mapped.locate(reference=self._reference, digest=self._digest) from error
