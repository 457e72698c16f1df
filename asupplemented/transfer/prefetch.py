"""Prefetching: an image goes into the cache of a session before anybody asks for it."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

from asupplemented.aio.concurrency import for_each
from asupplemented.cache.sharing import settle
from asupplemented.errors import (
    BlobNotFoundError,
    ConfigurationError,
    LimitExceededError,
    NotFoundError,
)
from asupplemented.events import (
    BlobAdvanced,
    BlobCopied,
    BlobReused,
    CopyPlanned,
    CopyProgress,
    PrefetchReport,
)
from asupplemented.limits import MAX_INSTANCES, MAX_NESTING
from asupplemented.model.digest import Digest
from asupplemented.model.index import AllImages, choose
from asupplemented.model.manifest import ImageManifest, Index

if TYPE_CHECKING:
    from collections.abc import Callable

    from asupplemented.abc import Context, Source
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.index import Selection
    from asupplemented.model.manifest import Manifest

__all__ = ("prefetch",)

CONCURRENCY: Final = 6
"""Requests side by side, unless the caller says otherwise: what a registry stands (RET-07)."""


async def prefetch(
    source: Source,
    session: Context,
    *,
    selection: Selection | None = None,
    concurrency: int = CONCURRENCY,
    progress: Callable[[CopyProgress], None] | None = None,
) -> PrefetchReport:
    """Read an image so that the cache of the session has it: all manifests first, then blobs.

    What is there already is not read again, so this can be repeated. What is in files of this
    machine stays where it is.

    Args:
        source: The image; it stays open.
        session: The session, with a cache.
        selection: What is taken of each list; None is `AllImages`.
        concurrency: Requests side by side, at least 1.
        progress: Told of everything worth showing; called on the event loop.

    Raises:
        ConfigurationError: The session has no cache, or `concurrency` is not a number above 0.
        PlatformNotFoundError: No image fits the platform.
        LimitExceededError: Too many manifests, or nested too deep (rule X-15).
        SupplementedError: A source failed. What was fetched by then stays in the cache.
    """
    if session.cache is None:
        message = "there is no cache to fetch into; make the session as Session(cache=...)"
        raise ConfigurationError(message, reference=source.reference)
    if concurrency < 1:
        message = f"concurrency is a number of requests, 1 or more, not {concurrency}"
        raise ConfigurationError(message)
    report = await _Prefetch(source, selection or AllImages(), concurrency, progress).run()
    await settle(session)
    return report


class _Prefetch:
    def __init__(
        self,
        source: Source,
        selection: Selection,
        concurrency: int,
        progress: Callable[[CopyProgress], None] | None,
    ) -> None:
        self.source = source
        self.selection = selection
        self.concurrency = concurrency
        self.tell = progress or _ignore
        self.manifests: dict[Digest, Manifest] = {}
        self.blobs: dict[str, Descriptor] = {}
        self.missing: list[Digest] = []
        self.fetched: list[int] = []
        self.reused = 0

    async def run(self) -> PrefetchReport:
        began = perf_counter()
        top = await self.source.get_manifest()
        await self._read_manifests(top)
        sizes = [blob.size for blob in self.blobs.values()]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        self.tell(CopyPlanned(len(self.manifests), len(self.blobs), total))
        await for_each(self.blobs.values(), self._fetch, limit=self.concurrency)
        return PrefetchReport(
            digest=top.digest,
            manifests=len(self.manifests),
            blobs=len(self.fetched),
            bytes=sum(self.fetched),
            reused_blobs=self.reused,
            missing=tuple(self.missing),
            seconds=perf_counter() - began,
        )

    async def _read_manifests(self, top: Manifest) -> None:
        """Read level by level, from the top down."""
        level = self._take(top)
        for _ in range(MAX_NESTING + 1):
            if not level:
                return
            below: dict[Digest, None] = {}

            async def read(digest: Digest, below: dict[Digest, None] = below) -> None:
                try:
                    manifest = await self.source.get_manifest(digest)
                except NotFoundError:
                    self.missing.append(digest)
                else:
                    below.update(self._take(manifest))

            await for_each(level, read, limit=self.concurrency)
            level = {digest: None for digest in below if digest not in self.manifests}
        message = f"the lists are nested more than {MAX_NESTING} deep"
        raise LimitExceededError(message, limit=MAX_NESTING, reference=self.source.reference)

    def _take(self, manifest: Manifest) -> dict[Digest, None]:
        """Take note of a manifest and its blobs; gives what it leads to."""
        self.manifests[manifest.digest] = manifest
        if len(self.manifests) > MAX_INSTANCES:
            message = f"the image has more than {MAX_INSTANCES} manifests"
            raise LimitExceededError(message, limit=MAX_INSTANCES, reference=self.source.reference)
        parsed = manifest.parse()
        if isinstance(parsed, ImageManifest):
            self.blobs.update((blob.digest, blob) for blob in parsed.blobs)
            return {}
        return self._choose(parsed)

    def _choose(self, index: Index) -> dict[Digest, None]:
        named = (Digest(entry.digest) for entry in choose(self.selection, index))
        return {digest: None for digest in named if digest not in self.manifests}

    async def _fetch(self, blob: Descriptor) -> None:
        try:
            if self.source.blob_candidates(blob)[0].local:
                self._reuse(blob)
                return
            await self._read(blob)
        except BlobNotFoundError:
            if not blob.urls:  # else it may well be somewhere that is not read
                raise
            self.missing.append(Digest(blob.digest))

    async def _read(self, blob: Descriptor) -> None:
        async with self.source.open_blob(blob) as stream:
            if stream.take_path() is not None:
                self._reuse(blob)
                return
            self.tell(BlobAdvanced(blob, 0))
            async for _ in stream:
                self.tell(BlobAdvanced(blob, stream.received))
            self.fetched.append(stream.received)
            self.tell(BlobCopied(blob, stream.received, stream.member))

    def _reuse(self, blob: Descriptor) -> None:
        self.reused += 1
        self.tell(BlobReused(blob))


def _ignore(_: CopyProgress) -> None:
    """Nobody watches."""
