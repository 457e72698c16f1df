"""A catalog in memory for tests of the registry, with a log of what it was asked."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asupplemented.errors import BlobNotFoundError, ManifestNotFoundError, NameUnknownError
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.supplemented import supplement

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Sequence

    from asupplemented import BlobStream, Manifest, Reference, Session, SupplementedSource
    from asupplemented.abc import ManifestTrace


class FakeImage:
    """An open image, as a catalog gives it."""

    def __init__(self, source: SupplementedSource, digest: str, catalog: FakeCatalog) -> None:
        self._source = source
        self._digest = digest
        self._catalog = catalog
        self.stale = catalog.stale
        self.age = catalog.age
        self.origin: ManifestTrace | None = None

    async def get_manifest(self) -> Manifest:
        manifest = await self._source.get_manifest(self._digest)
        self.origin = self._source.trace_manifest(manifest.digest)
        return manifest

    def open_blob(
        self, digest: Digest | str, /, *, start: int = 0, end: int | None = None
    ) -> BlobStream:
        self._catalog.opened_blobs.append((str(digest), start, end))
        return self._source.open_blob(digest, start=start, end=end)

    async def describe_blob(self, digest: Digest | str, /) -> Descriptor | None:
        if digest not in self._source.resolution.blobs:
            return None
        known = self._source.resolution.descriptor(Digest(digest))
        if self._catalog.tells_sizes:
            return known
        return Descriptor(media_type=known.media_type, digest=known.digest)


@dataclass
class FakeCatalog:
    """Names to references, one tag "latest" each; every open opens the reference again."""

    names: dict[str, Reference]
    tags: Sequence[str] = ("latest",)
    referrers: Sequence[Descriptor] = ()
    failure: Exception | None = None
    gate: asyncio.Event | None = None
    """What every question waits for."""
    stale: bool = False
    age: float = 0.0
    tells_sizes: bool = True
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """Name, reference and registry of every question."""
    principals: list[str | None] = field(default_factory=list)
    opened_blobs: list[tuple[str, int, int | None]] = field(default_factory=list)
    open_images: int = 0

    async def ask(
        self, session: Session, name: str, reference: str | None, registry: str | None
    ) -> Reference:
        self.asked.append((name, reference, registry))
        self.principals.append(session.principal)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if name not in self.names:
            raise NameUnknownError("there is no such name")
        return self.names[name]

    @asynccontextmanager
    async def open(
        self,
        session: Session,
        name: str,
        reference: str | None = None,
        *,
        registry: str | None = None,
        blob: bool = False,
    ) -> AsyncIterator[FakeImage]:
        found = await self.ask(session, name, reference, registry)
        async with supplement(found).open(session) as source:
            which = source.resolution.top if reference in {None, "latest"} else reference
            assert which is not None
            if blob and which not in source.resolution.blobs:
                raise BlobNotFoundError("there is no such blob", digest=which)
            if not blob and which not in source.resolution.sources:
                raise ManifestNotFoundError("there is no such manifest", digest=which)
            self.open_images += 1
            try:
                yield FakeImage(source, which, self)
            finally:
                self.open_images -= 1

    async def list_tags(
        self, session: Session, name: str, *, registry: str | None = None
    ) -> Sequence[str]:
        await self.ask(session, name, None, registry)
        return self.tags

    async def list_referrers(
        self,
        session: Session,
        name: str,
        digest: Digest | str,
        *,
        registry: str | None = None,
        artifact_type: str | None = None,
    ) -> Sequence[Descriptor]:
        await self.ask(session, name, str(digest), registry)
        return self.referrers
