"""Images in memory: a source for tests, and for programs that make images.

A memory reference has no text form, because text cannot carry an image. Make one, and pass it
wherever a reference goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

import anyio.lowlevel

from asupplemented.abc import RawManifest
from asupplemented.errors import (
    BlobNotFoundError,
    ImageNotFoundError,
    ManifestNotFoundError,
    RangeError,
)
from asupplemented.model.digest import Digest
from asupplemented.source import open_verified

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from types import TracebackType

    from asupplemented.abc import Context, Opening, Source
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.signature import Signature

__all__ = ("MemoryBlob", "MemoryReference", "MemorySource")

CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class MemoryReference:
    """An image, or several, held in memory. Two of them are never equal, whatever they hold.

    What the mappings hold is served as it is, wrong bytes included: the source verifies it.

    Attributes:
        name: For people; it shows in errors and plans.
        default: The default manifest, None if there is none.
        manifests: By the digest that they are asked for with.
        blobs: By the digest that they are asked for with.
        signatures: By instance, None for the default manifest.
        concurrent_blobs: Whether the source says that blobs may be read side by side.
        chunk: Bytes of a chunk, at least 1.
    """

    name: str
    default: RawManifest | None = None
    manifests: Mapping[Digest, RawManifest] = field(default_factory=dict[Digest, RawManifest])
    blobs: Mapping[Digest, bytes] = field(default_factory=dict[Digest, bytes])
    signatures: Mapping[Digest | None, Sequence[Signature]] = field(
        default_factory=dict["Digest | None", "Sequence[Signature]"]
    )
    concurrent_blobs: bool = True
    chunk: int = CHUNK

    @classmethod
    def of(
        cls, name: str, top: bytes, *, manifests: Iterable[bytes] = (), blobs: Iterable[bytes] = ()
    ) -> Self:
        """An image made of bytes, each stored under its sha256.

        Args:
            name: For people.
            top: The default manifest; it can also be asked for by its digest.
            manifests: What `top` names, if it is an index.
            blobs: Configs and layers.
        """
        return cls(
            name,
            RawManifest(top, None),
            MappingProxyType({Digest.of(raw): RawManifest(raw, None) for raw in (top, *manifests)}),
            MappingProxyType({Digest.of(data): data for data in blobs}),
        )

    @property
    def transport(self) -> str:
        """Always "memory"; no text begins with it."""
        return "memory"

    def open(self, session: Context) -> Opening[Source]:
        """Open the image. Its default manifest is verified at once.

        Opening raises:
            ImageNotFoundError: There is no default manifest.
            ManifestError: It is no manifest.
        """

        async def opener() -> MemorySource:
            return MemorySource(self)

        return open_verified(opener, self, session)

    def __str__(self) -> str:
        return f"memory:{self.name}"


class MemorySource:
    """Serves what a `MemoryReference` holds."""

    __slots__ = ("_reference",)

    def __init__(self, reference: MemoryReference) -> None:
        self._reference = reference

    @property
    def concurrent_blobs(self) -> bool:
        return self._reference.concurrent_blobs

    async def fetch_manifest(self, instance: Digest | None) -> RawManifest:
        reference = self._reference
        stored = reference.default if instance is None else reference.manifests.get(instance)
        if stored is not None:
            return stored
        if instance is None:
            message = f"{reference} holds no default manifest"
            raise ImageNotFoundError(message, reference=reference)
        message = f"{reference} does not hold this manifest"
        raise ManifestNotFoundError(message, reference=reference, digest=instance)

    def open_blob(
        self,
        blob: Descriptor,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,  # noqa: ARG002 - nothing is validated
    ) -> MemoryBlob:
        return MemoryBlob(self._reference, Digest(blob.digest), start, end)

    async def fetch_signatures(self, instance: Digest | None) -> Sequence[Signature]:
        return self._reference.signatures.get(instance, ())

    async def aclose(self) -> None:
        """There is nothing to release."""


class MemoryBlob:
    """One attempt to read a blob from memory."""

    __slots__ = ("_digest", "_end", "_reference", "etag", "size", "start")

    def __init__(
        self, reference: MemoryReference, digest: Digest, start: int, end: int | None
    ) -> None:
        self._reference = reference
        self._digest = digest
        self._end = end
        self.start = start
        self.size: int | None = None
        self.etag: str | None = None

    async def __aenter__(self) -> Self:
        size = self.size = len(self._data())
        if self.start > size:
            message = f"the range starts at {self.start}, the blob has {size} bytes"
            raise RangeError(message, reference=self._reference, digest=self._digest)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """There is nothing to release."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Chunks(self._data()[self.start : self._end], self._reference.chunk)

    def _data(self) -> bytes:
        data = self._reference.blobs.get(self._digest)
        if data is None:
            message = f"{self._reference} does not hold this blob"
            raise BlobNotFoundError(message, reference=self._reference, digest=self._digest)
        return data


class _Chunks:
    """Bytes in pieces; each step lets other tasks run, as a source that waits would."""

    __slots__ = ("_at", "_data", "_step")

    def __init__(self, data: bytes, step: int) -> None:
        self._data = data
        self._step = step
        self._at = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._at >= len(self._data):
            raise StopAsyncIteration
        await anyio.lowlevel.checkpoint()
        chunk = self._data[self._at : self._at + self._step]
        self._at += len(chunk)
        return chunk
