"""Fetch an image into the cache of a session ahead of its use.

A prefetch is a walk over the manifests, as a copy makes it, and then one read of each blob. Reading
is enough: the session keeps what is read through it. Unlike a copy, a prefetch goes on without the
manifests that are not found, and reports them; the cache need not be complete.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Final

from asupplemented.aio.concurrency import run_side_by_side
from asupplemented.cache.sharing import settle
from asupplemented.errors import BlobNotFoundError, ConfigurationError
from asupplemented.events import (
    BlobAdvanced,
    BlobCopied,
    BlobReused,
    CopyPlanned,
    CopyProgress,
    PrefetchReport,
)
from asupplemented.model.digest import Digest
from asupplemented.model.index import AllImages
from asupplemented.model.manifest import ImageManifest
from asupplemented.transfer.plan import ManifestWalker, sum_sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from asupplemented.abc import Context, Source
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.index import Selection

__all__ = ("prefetch",)

CONCURRENCY: Final = 6
"""Requests at the same time by default: what a registry tolerates (RET-07)."""


async def prefetch(
    source: Source,
    session: Context,
    *,
    selection: Selection | None = None,
    concurrency: int = CONCURRENCY,
    progress: Callable[[CopyProgress], None] | None = None,
) -> PrefetchReport:
    """Read an image so that the session's cache has it: all manifests first, then the blobs.

    What the cache has is not fetched again, so a prefetch can be repeated. What is in files of
    this machine stays where it is.

    Args:
        source: The image; it stays open.
        session: The session, with a cache.
        selection: What is taken from each list; None is `AllImages`.
        concurrency: Requests at the same time, at least 1.
        progress: Called on the event loop with every event. It must be quick and must not raise.

    Returns:
        What was fetched, what the cache had, and what is missing.

    Raises:
        ConfigurationError: The session has no cache, or `concurrency` is below 1.
        PlatformNotFoundError: No image fits the platform.
        LimitExceededError: Too many manifests, too large, or nested too deep (rule X-15).
        SupplementedError: A source failed. What was fetched until then stays in the cache.
    """
    if session.cache is None:
        message = "there is no cache to fetch into; make the session as Session(cache=...)"
        raise ConfigurationError(message, reference=source.reference)
    if concurrency < 1:
        message = f"concurrency is a number of requests, 1 or more, not {concurrency}"
        raise ConfigurationError(message)
    began = perf_counter()
    chosen = selection or AllImages()
    walker = ManifestWalker(source, chosen, session, concurrency, skip_missing=True)
    top = await source.get_manifest()
    await walker.walk(top)
    blobs = await _list_blobs(walker)
    reader = _BlobReader(source, progress or _ignore)
    reader.progress(CopyPlanned(len(walker.found), len(blobs), sum_sizes(blobs)))
    await run_side_by_side(blobs, concurrency, reader.read)
    report = PrefetchReport(
        digest=top.digest,
        manifests=len(walker.found),
        blobs=len(reader.fetched),
        bytes=sum(reader.fetched),
        reused_blobs=reader.reused,
        missing=(*walker.missing, *reader.missing),
        seconds=perf_counter() - began,
    )
    await settle(session)
    return report


async def _list_blobs(walker: ManifestWalker) -> list[Descriptor]:
    """The blobs of all images, each once."""
    blobs: dict[str, Descriptor] = {}
    for manifest in walker.found.values():
        image = await walker.parse(manifest)
        if isinstance(image, ImageManifest):
            blobs.update((blob.digest, blob) for blob in image.blobs)
    return list(blobs.values())


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
    missing: list[Digest] = field(default_factory=list[Digest])

    async def read(self, blob: Descriptor) -> None:
        """Read a blob to its end, unless it is in a file of this machine."""
        try:
            if self.source.blob_candidates(blob)[0].local:
                self._reuse(blob)
            else:
                await self._fetch(blob)
        except BlobNotFoundError:
            if not blob.urls:
                raise
            # The manifest names other places, which are not read: the image may be complete there.
            self.missing.append(Digest(blob.digest))

    async def _fetch(self, blob: Descriptor) -> None:
        async with self.source.open_blob(blob) as stream:
            if stream.take_path() is not None:
                self._reuse(blob)
                return
            self.progress(BlobAdvanced(blob, 0))
            async for _ in stream:
                self.progress(BlobAdvanced(blob, stream.received))
            self.fetched.append(stream.received)
            self.progress(BlobCopied(blob, stream.received, stream.member))

    def _reuse(self, blob: Descriptor) -> None:
        self.reused += 1
        self.progress(BlobReused(blob))
