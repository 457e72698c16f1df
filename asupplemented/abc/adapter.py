"""Adapters: what a transport writes, raw and unverified.

`SourceAdapter` is the core. What an adapter can do beyond it shows in the abilities below, small
protocols that are asked for with ``isinstance``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from asupplemented.errors import SupplementedError
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.model.signature import Signature

__all__ = (
    "Batched",
    "BlobConcurrency",
    "BlobFile",
    "BlobPlace",
    "Framed",
    "Hasty",
    "LayersForCopy",
    "LocalFile",
    "Named",
    "Placed",
    "Ranged",
    "RawBlob",
    "RawManifest",
    "RawPart",
    "RawParts",
    "Referring",
    "Resumable",
    "Scrubbing",
    "SelfTimed",
    "Signed",
    "SourceAdapter",
    "StreamsBlobs",
)


class RawManifest(NamedTuple):
    """Bytes as a source gave them, and the media type that it claims, None if it claims none."""

    raw: bytes
    """The bytes, not verified."""
    media_type: str | None
    """The media type that the source gave; None if it gave none."""


class SourceAdapter(Protocol):
    """The core of what a transport writes. What it returns is raw and unverified.

    To serve blobs it has one of the abilities `StreamsBlobs`, `LocalFile` and `Placed` as well.
    """

    async def fetch_manifest(self, instance: Digest | None, /) -> RawManifest:
        """Read the manifest of an instance, or the default one (None).

        Raises:
            ManifestNotFoundError: It is not there.
            SourceError: The source could not be read.
            LimitExceededError: It is larger than ``MAX_MANIFEST``.
        """
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


@runtime_checkable
class StreamsBlobs(Protocol):
    """Streams blobs."""

    def open_blob(
        self,
        blob: Descriptor,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,
        /,
    ) -> RawBlob:
        """Prepare to read ``[start, end)`` of a blob; entering the result asks for it.

        Args:
            blob: Its ``digest`` has been validated.
            start: Offset of the first byte.
            end: Offset behind the last byte, None for the end of the blob.
            etag: The strong validator of the body that this one continues; None if there is none.
                If the source has other content by now it sends the whole of that, so
                `RawBlob.start` is 0 (rule RES-06). Sources without validators ignore it.
        """
        ...


@runtime_checkable
class BlobConcurrency(Protocol):
    """Says whether its blobs may be opened side by side; those of other adapters may."""

    @property
    def concurrent_blobs(self) -> bool:
        """False if one blob has to be closed before the next (seed: ``HasThreadSafeGetBlob``)."""
        ...


class RawBlob(Protocol):
    """One attempt to read a blob: entering it opens the body, iterating gives its bytes.

    Chunks are not empty and may have any size. The attributes are valid once entered. Entering
    raises `BlobNotFoundError`, `RangeError` or a `SourceError`; iterating raises a `SourceError`.
    """

    @property
    def start(self) -> int:
        """Offset of the first byte that will come; 0 if the whole comes in place of a range."""
        ...

    @property
    def size(self) -> int | None:
        """Size of the whole blob as the source claims it, None if it does not say."""
        ...

    @property
    def etag(self) -> str | None:
        """A strong validator to resume with, or None."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(slots=True)
class BlobFile:
    """An open regular file that holds a blob; the receiver closes it.

    Read it by position (``os.pread``): the descriptor has no cursor of its own to share.
    """

    fd: int
    path: Path
    """Its name, for errors and for programs that send files."""
    offset: int
    """Where the blob begins within the file."""
    size: int
    """Bytes of the blob, by the file system."""
    close: Callable[[], None]
    """Closes `fd`; may be called once."""
    verified: os.stat_result | None = None
    """Its status when its content was known to be right; None if that was never verified."""
    linked: bool = False
    """Whether a symbolic link led to it, so that no byte may be handed out before all are verified
    (rule DI-07)."""


@runtime_checkable
class Resumable(Protocol):
    """A `RawBlob` that knows whether it can be resumed; one that does not say can be."""

    @property
    def resumable(self) -> bool:
        """Whether the same source may be asked for the rest of a body that broke off."""
        ...


@runtime_checkable
class Hasty(Protocol):
    """A `RawBlob` that can be told to fail fast."""

    def hurry(self) -> None:
        """Another source can serve the blob, so fail soon rather than retry for long.

        Called before the body is entered, if at all.
        """
        ...


@runtime_checkable
class SelfTimed(Protocol):
    """A `RawBlob` that ends its own waits when they last too long, unless its reader does that."""

    def leave_timing(self) -> None:
        """Leave it to the reader to end waits that last too long.

        Called before the body is entered, if at all, so that each wait has one timer, not two.
        """
        ...


@runtime_checkable
class Framed(Protocol):
    """A `RawBlob` that knows how its body is encoded and delimited; both valid once entered."""

    @property
    def encoding(self) -> str | None:
        """The ``Content-Encoding`` that the source names, None for none. It proves nothing."""
        ...

    @property
    def delimited(self) -> bool:
        """Whether the body says where it ends, so that one that is cut off is noticed."""
        ...


class BlobPlace(StreamsBlobs, Protocol):
    """One place that may hold a blob; what it streams comes from this place and no other."""

    @property
    def reference(self) -> str:
        """Where it is, physically."""
        ...


@runtime_checkable
class Placed(Protocol):
    """Reads from several places that stand in for one another: a registry and its mirrors."""

    def blob_places(self) -> Sequence[BlobPlace]:
        """The places to read blobs from, best first. Nothing is asked of them yet.

        A body that breaks off in one place goes on in the next one.
        """
        ...


@runtime_checkable
class Scrubbing(Protocol):
    """Knows secrets that its source could repeat, in a manifest that an error quotes, say."""

    def scrub(self, error: SupplementedError, /) -> None:
        """Remove them from an error."""
        ...


@runtime_checkable
class Batched(Protocol):
    """Reads many manifests in one go."""

    def fetch_manifests(
        self, instances: Sequence[Digest], /
    ) -> Sequence[RawManifest | SupplementedError]:
        """Read the manifests of instances, one outcome each, in the order asked.

        Blocking: it is called in a worker thread, so that a whole batch costs one hop.
        """
        ...


class RawPart(Protocol):
    """One range of a blob. Iterate it before the next part is taken; what is left is skipped."""

    @property
    def start(self) -> int:
        """Offset of its first byte."""
        ...

    @property
    def end(self) -> int | None:
        """Offset behind its last byte; None if it goes to the end of a blob of unknown size."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class RawParts(Protocol):
    """One attempt to read ranges of a blob: entering it asks, iterating gives the parts in order.

    Nothing is verified: only a whole blob can be. Each part is whole, or iterating it raises a
    `SourceError`. `size` is valid once entered. Entering raises `BlobNotFoundError`, a
    `SourceError`, or `UnsupportedOperationError` if this blob is to be read as a whole there.
    """

    @property
    def size(self) -> int | None:
        """Size of the whole blob as the source claims it, None if it does not say."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

    def __aiter__(self) -> AsyncIterator[RawPart]: ...


@runtime_checkable
class Ranged(Protocol):
    """Reads several ranges of a blob in one go."""

    def open_parts(self, blob: Descriptor, ranges: Sequence[tuple[int, int | None]], /) -> RawParts:
        """Prepare to read some ranges; see `Source.open_parts`. ``blob.digest`` was validated."""
        ...


@runtime_checkable
class LocalFile(Protocol):
    """Holds blobs in local files."""

    def open_file(self, blob: Descriptor, /) -> BlobFile:
        """Open the file of a blob. Blocking: it is called in a worker thread.

        Raises:
            BlobNotFoundError: There is no such file.
            SourceError: It cannot be opened, or is no regular file.
        """
        ...


@runtime_checkable
class Named(Protocol):
    """Knows what its default manifest must be: a digested reference, a layout's descriptor."""

    @property
    def default_descriptor(self) -> Descriptor | None:
        """Its ``digest`` is checked, and its ``size`` too if known. None: nothing names it."""
        ...


@runtime_checkable
class Signed(Protocol):
    """Stores signatures beside manifests."""

    async def fetch_signatures(self, instance: Digest | None, /) -> Sequence[Signature]:
        """The signatures of an instance, or of the default manifest (None)."""
        ...


@runtime_checkable
class Referring(Protocol):
    """Knows which manifests refer to a manifest."""

    async def fetch_referrers(
        self, subject: Digest, artifact_type: str | None, /
    ) -> Sequence[Descriptor]:
        """The manifests that refer to one; the arguments are those of `Source.get_referrers`."""
        ...


@runtime_checkable
class LayersForCopy(Protocol):
    """Serves layers under digests other than those in the manifest (rule SR-06)."""

    async def layers_for_copy(self, instance: Digest | None, /) -> Sequence[Descriptor] | None:
        """All layers of an instance that replace those of its manifest; None if that is right."""
        ...
