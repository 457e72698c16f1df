"""A transport of a user's own, under names of its own. Checked by mypy and pyright, never run.

The parameters of protocols are positional, so that an adapter may call them what it likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import asupplemented as asup
from asupplemented.abc import (
    Batched,
    BlobConcurrency,
    BlobFile,
    BlobPlace,
    LayersForCopy,
    LocalFile,
    Placed,
    RawBlob,
    RawManifest,
    Referring,
    RemoteReference,
    Signed,
    SourceAdapter,
    StreamsBlobs,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType


@dataclass(frozen=True)
class Tape:
    """A reference: ``tape:LABEL``."""

    label: str

    @property
    def transport(self) -> str:
        return "tape"

    def open(self, ctx: asup.Context) -> asup.Opening[asup.Source]:
        async def opener() -> Drive:
            return Drive()

        return asup.open_verified(opener, self, ctx)

    async def list_tags(self, ctx: asup.Context) -> tuple[str, ...]:
        return (self.label,)

    async def get_digest(self, ctx: asup.Context) -> asup.Digest:
        return asup.Digest.of(b"")


class Body:
    """A raw blob whose facts are plain attributes."""

    def __init__(self) -> None:
        self.start = 0
        self.size: int | None = None
        self.etag: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration


class Drive:
    """An adapter that streams blobs."""

    async def fetch_manifest(self, digest: asup.Digest | None) -> RawManifest:
        return RawManifest(b"", None)

    def open_blob(
        self,
        what: asup.Descriptor,
        first: int = 0,
        behind: int | None = None,
        validator: str | None = None,
    ) -> Body:
        return Body()

    def fetch_manifests(
        self, digests: Sequence[asup.Digest]
    ) -> Sequence[RawManifest | asup.SupplementedError]:
        return []

    async def fetch_signatures(self, digest: asup.Digest | None) -> Sequence[asup.Signature]:
        return []

    async def fetch_referrers(
        self, manifest: asup.Digest, kind: str | None
    ) -> Sequence[asup.Descriptor]:
        return []

    async def layers_for_copy(self, digest: asup.Digest | None) -> None: ...

    @property
    def concurrent_blobs(self) -> bool:
        return False

    async def aclose(self) -> None: ...


class Robot:
    """An adapter that has files, and one that has several drives."""

    reference = "robot"

    async def fetch_manifest(self, digest: asup.Digest | None) -> RawManifest:
        return RawManifest(b"", None)

    def open_file(self, what: asup.Descriptor) -> BlobFile:
        raise asup.BlobNotFoundError

    def blob_places(self) -> Sequence[Slot]:
        return [Slot()]

    async def aclose(self) -> None: ...


class Slot(Drive):
    """One of several places."""

    @property
    def reference(self) -> str:
        return "slot 1"


def fits() -> None:
    """Each class fits its contracts, which a type checker proves."""
    drive, robot, tape = Drive(), Robot(), Tape("a")
    adapters: list[SourceAdapter] = [drive, robot]
    body: RawBlob = Body()
    streams: StreamsBlobs = drive
    batched: Batched = drive
    signed: Signed = drive
    referring: Referring = drive
    layers: LayersForCopy = drive
    serial: BlobConcurrency = drive
    files: LocalFile = robot
    placed: Placed = robot
    place: BlobPlace = Slot()
    reference: asup.Reference = tape
    remote: RemoteReference = tape
    del adapters, body, streams, batched, signed, referring, layers, serial, files, placed, place
    del reference, remote
    asup.register_transport("tape", Tape)
