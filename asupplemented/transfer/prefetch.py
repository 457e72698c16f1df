"""Fetch an image into the cache of a session ahead of its use.

A prefetch is a walk over the manifests, as a copy makes it, and then one read of each blob. Reading
is enough: the session keeps what is read through it. A file of this machine is read too, because
only its digest shows that it holds the blob; it stays where it is. All manifests are kept, also
those of local members, because a cache finds by them what a pin protects.

Unlike a copy, a prefetch goes on without the manifests that are not found, and reports them; the
cache need not be complete. At the end it asks the cache what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Final

from asupplemented.aio.concurrency import for_each
from asupplemented.aio.threads import run_blocking
from asupplemented.cache.manifests import settle_manifests
from asupplemented.cache.sharing import settle
from asupplemented.errors import (
    BlobNotFoundError,
    ConfigurationError,
    SourceError,
    VerificationError,
)
from asupplemented.events import (
    BlobAdvanced,
    BlobCopied,
    BlobReused,
    CopyPlanned,
    CopyProgress,
    PrefetchReport,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.index import AllImages
from asupplemented.model.manifest import ImageManifest
from asupplemented.remedies import CACHE, advise
from asupplemented.transfer.plan import ManifestWalker, for_each_blob, sum_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asupplemented.abc import BlobStream, Context, Source
    from asupplemented.model.index import Selection
    from asupplemented.model.manifest import Manifest

__all__ = ("prefetch",)

_LOOKS: Final = 6
"""Questions to the cache at the same time."""


async def prefetch(
    source: Source,
    session: Context,
    *,
    selection: Selection | None = None,
    concurrency: int | None = None,
    progress: Callable[[CopyProgress], None] | None = None,
) -> PrefetchReport:
    """Read an image so that the session's cache has it: all manifests first, then the blobs.

    What the cache has is not fetched again, so a prefetch can be repeated. A blob that a file of
    this machine holds is read, and stays where it is. If that file is not what it should be, the
    blob is fetched from the other members.

    Args:
        source: The image; it stays open.
        session: The session, with a cache.
        selection: What is taken from each list; None is `AllImages`.
        concurrency: Requests at the same time, at least 1. None for as many manifests as the
            session looks ahead, and for blobs see `copy`.
        progress: Called on the event loop with every event. It must be quick and must not raise.

    Returns:
        What was fetched, what the cache holds now, and what it does not hold.

    Raises:
        ConfigurationError: The session has no cache, or `concurrency` is below 1.
        PlatformNotFoundError: No image fits the platform.
        LimitExceededError: Too many manifests, too large, or nested too deep (rule X-15).
        SupplementedError: A source failed. What was fetched until then stays in the cache.
    """
    cache = session.cache
    if cache is None:
        message = "there is no cache to fetch into" + advise("give one as {}", CACHE)
        raise ConfigurationError(message, reference=source.reference)
    if concurrency is not None and concurrency < 1:
        message = f"concurrency is a number of requests, 1 or more, not {concurrency}"
        raise ConfigurationError(message)
    began = perf_counter()
    chosen = selection or AllImages()
    requests = concurrency or 1 + session.lookahead
    walker = ManifestWalker(source, chosen, session, requests, skip_missing=True)
    top = await source.get_manifest()
    await walker.walk(top)
    manifests = list(walker.found.values())
    await settle_manifests(session)
    for manifest in manifests:
        if not await cache.holds(session, _describe(manifest)):
            await cache.keep_manifest(session, manifest, top=manifest is top)
    # In a thread, because images may have hundreds of thousands of layers.
    blobs, size = await run_blocking(session, _list_blobs, manifests)
    reader = _BlobReader(source, progress or _ignore)
    reader.progress(CopyPlanned(len(manifests), len(blobs), size))
    await for_each_blob(blobs, reader.read, limit=concurrency)
    await settle(session)
    held: dict[Digest, bool] = {}
    elsewhere = {*reader.missing, *reader.local}

    async def look(descriptor: Descriptor) -> None:
        digest = Digest(descriptor.digest)
        if digest not in elsewhere:
            held[digest] = await cache.holds(session, descriptor)

    await for_each([_describe(manifest) for manifest in manifests], look, limit=_LOOKS)
    await for_each(blobs, look, limit=_LOOKS)
    kept, not_kept = await run_blocking(session, _divide, held)
    return PrefetchReport(
        digest=top.digest,
        manifests=len(manifests),
        blobs=len(reader.fetched),
        bytes=sum(reader.fetched),
        reused_blobs=reader.reused,
        missing=(*walker.missing, *reader.missing),
        seconds=perf_counter() - began,
        kept=kept,
        not_kept=not_kept,
    )


def _describe(manifest: Manifest) -> Descriptor:
    return Descriptor(digest=manifest.digest, size=manifest.size)


def _divide(held: Mapping[Digest, bool]) -> tuple[tuple[Digest, ...], tuple[Digest, ...]]:
    """What the cache holds, and what it does not hold."""
    kept = tuple(digest for digest, holds in held.items() if holds)
    return kept, tuple(digest for digest, holds in held.items() if not holds)


def _list_blobs(manifests: Iterable[Manifest]) -> tuple[list[Descriptor], int | None]:
    """The blobs of all images, each once, and how many bytes they are, None if unknown."""
    blobs: dict[str, Descriptor] = {}
    for manifest in manifests:
        image = None if manifest.is_opaque else manifest.parse_once()
        if isinstance(image, ImageManifest):
            blobs.update((blob.digest, blob) for blob in image.blobs)
    return list(blobs.values()), sum_sizes(blobs.values())


def _ignore(event: CopyProgress) -> None:
    """The caller asked for no progress."""


@dataclass(slots=True)
class _BlobReader:
    """Reads blobs, and counts what was fetched."""

    source: Source
    progress: Callable[[CopyProgress], None]
    fetched: list[int] = field(default_factory=list[int])
    """Sizes of the blobs that were fetched."""
    reused: int = 0
    local: set[Digest] = field(default_factory=set[Digest])
    """Blobs that files of local members hold."""
    missing: list[Digest] = field(default_factory=list[Digest])

    async def read(self, blob: Descriptor) -> None:
        """Read a blob to its end. A local file that turns out wrong is replaced by other members.

        After such a failure, the session asks the member with the file last.
        """
        local = {c.reference for c in self.source.blob_candidates(blob) if c.local}
        try:
            # Twice, because a member that is slow just then leads back to the wrong file once more.
            for last in (not local, False, True):
                stream = self.source.open_blob(blob)
                try:
                    await self._drain(blob, stream, local)
                except (SourceError, VerificationError) as error:
                    # A shared fetch may have ended, and its parts with it: then the error tells.
                    is_local = _is_from(stream, local) or error.reference in local
                    if last or not is_local:
                        raise
                else:
                    return
        except BlobNotFoundError:
            if not blob.urls:
                raise
            # The manifest names other places, which are not read: the image may be complete there.
            self.missing.append(Digest(blob.digest))

    async def _drain(self, blob: Descriptor, stream: BlobStream, local: set[str]) -> None:
        async with stream:
            found = stream.take_path() is not None
            if not found:
                self.progress(BlobAdvanced(blob, 0))
                async for _ in stream:
                    self.progress(BlobAdvanced(blob, stream.received))
            is_local = _is_from(stream, local)
            if is_local:
                self.local.add(Digest(blob.digest))
            if found or is_local:
                self.reused += 1
                self.progress(BlobReused(blob))
            else:
                self.fetched.append(stream.received)
                self.progress(BlobCopied(blob, stream.received, stream.member))


def _is_from(stream: BlobStream, references: set[str]) -> bool:
    """Whether some sources, and no others, served what came of a stream."""
    served = {part.reference for part in stream.served}
    return bool(served) and served <= references
