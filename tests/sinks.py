"""Destinations for tests: they write nothing, remember every call, and fail where they are told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asupplemented.abc import Destination, Opening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.abc import BlobStream, Context, Reference
    from asupplemented.errors import SupplementedError
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.model.manifest import Manifest
    from asupplemented.model.platform import Platform
    from asupplemented.model.signature import Signature


@dataclass(eq=False)
class Sink:
    """A reference that can be copied to, and all that its destinations were told.

    Attributes:
        transport: What it says it is.
        held: Digests of the blobs that are there already.
        signed: Whether it can hold signatures.
        listing: Whether it can list images beside the top.
        faults: Method to the error that it raises.
    """

    transport: str = "sink"
    held: frozenset[str] = frozenset()
    signed: bool = True
    listing: bool = True
    faults: dict[str, SupplementedError] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    signatures: dict[str | None, tuple[Signature, ...]] = field(default_factory=dict)
    beside: dict[str, Platform | None] = field(default_factory=dict)
    committed: list[tuple[Manifest, Platform | None]] = field(default_factory=list)
    opened: int = 0
    closed: int = 0
    flying: int = 0
    peak: int = 0

    def open(self, context: Context) -> Opening[Destination]:
        raise NotImplementedError

    def create(self, context: Context) -> Opening[Destination]:
        async def opener() -> Destination:
            self.note("create", "")
            self.opened += 1
            return ListingDestination(self) if self.listing else SinkDestination(self)

        return Opening(opener, self)

    def note(self, method: str, subject: str | None) -> None:
        self.calls.append((method, subject or ""))
        if method in self.faults:
            raise self.faults[method]

    @property
    def order(self) -> list[str]:
        """The methods called, runs of the same one counted as one."""
        found: list[str] = []
        for method, _ in self.calls:
            if method != "has_blob" and found[-1:] != [method]:
                found.append(method)
        return found

    def subjects(self, method: str) -> list[str]:
        return [subject for called, subject in self.calls if called == method]

    def __str__(self) -> str:
        return "the sink"


class SinkDestination(Destination):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._closed = False

    @property
    def reference(self) -> Reference:
        return self._sink

    async def has_blob(self, blob: Descriptor) -> bool:
        await asyncio.sleep(0)
        self._sink.note("has_blob", blob.digest)
        return blob.digest in self._sink.held

    async def put_blob(self, stream: BlobStream) -> None:
        sink, digest = self._sink, stream.descriptor.digest
        sink.flying += 1
        sink.peak = max(sink.peak, sink.flying)
        try:
            await asyncio.sleep(0)
            data = b"".join([chunk async for chunk in stream])
            sink.note("put_blob", digest)
            sink.blobs[digest] = data
        finally:
            sink.flying -= 1

    async def put_manifest(self, manifest: Manifest) -> None:
        await asyncio.sleep(0)
        self._sink.note("put_manifest", manifest.digest)
        self._sink.manifests[manifest.digest] = manifest

    async def put_signatures(
        self, signatures: Sequence[Signature], instance: Digest | None
    ) -> bool:
        await asyncio.sleep(0)
        self._sink.note("put_signatures", instance)
        if self._sink.signed:
            self._sink.signatures[instance] = tuple(signatures)
        return self._sink.signed

    async def commit(self, top: Manifest, *, platform: Platform | None = None) -> None:
        await asyncio.sleep(0)
        self._sink.note("commit", top.digest)
        self._sink.committed.append((top, platform))

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._sink.closed += 1


class ListingDestination(SinkDestination):
    def list_beside(self, images: Sequence[tuple[Manifest, Platform | None]]) -> bool:
        self._sink.note("list_beside", "")
        self._sink.beside.update((manifest.digest, platform) for manifest, platform in images)
        return True
