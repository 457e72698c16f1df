"""Adapters: all that a transport writes, raw and unverified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from types import TracebackType

    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest

__all__ = ("BlobFile", "RawBlob", "RawManifest", "SourceAdapter")


class RawManifest(NamedTuple):
    """Bytes as a source gave them, and the media type that it claims, None if it claims none."""

    raw: bytes
    media_type: str | None


class SourceAdapter(Protocol):
    """All that a transport writes. What it returns is raw and unverified."""

    @property
    def concurrent_blobs(self) -> bool:
        """Whether blobs may be opened side by side (seed: ``HasThreadSafeGetBlob``)."""
        ...

    async def fetch_manifest(self, instance: Digest | None) -> RawManifest:
        """Read the default manifest (None), or the one of a digest.

        Raises:
            ManifestNotFoundError: It is not there.
            SourceError: The source could not be read.
            LimitExceededError: It is larger than ``MAX_MANIFEST``.
        """
        ...

    def open_blob(
        self,
        blob: Descriptor,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,
    ) -> RawBlob:
        """Prepare to read ``[start, end)`` of a blob; entering the result asks for it.

        Args:
            blob: Its ``digest`` has been validated.
            start: Offset of the first byte.
            end: Offset behind the last byte, None for the end of the blob.
            etag: The strong validator of the body that this one goes on with; None if it goes
                on with none. If the source has something else by now it sends the whole of that,
                so `RawBlob.start` is 0 (rule RES-06). Sources without validators ignore it.
        """
        ...

    async def aclose(self) -> None: ...


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
    ) -> None: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(slots=True)
class BlobFile:
    """An open regular file that holds a blob; who receives it closes it.

    Read it by position (``os.pread``): the descriptor has no cursor of its own to share.
    """

    fd: int
    path: Path
    offset: int
    """Where the blob begins within the file."""
    size: int
    """Bytes of the blob, by the file system."""
    close: Callable[[], None]
    """Closes `fd`; may be called once."""
