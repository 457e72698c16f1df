"""Blobs: the sources that may serve one, and the stream of its bytes."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, NamedTuple, Self

from asupplemented.abc.resource import AsyncResource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from asupplemented.abc.adapter import BlobFile, RawBlob
    from asupplemented.errors import SupplementedError, VerificationError
    from asupplemented.events import CacheUse
    from asupplemented.model.descriptor import Descriptor

__all__ = ("BlobCandidate", "BlobStream", "Served")


class BlobCandidate(abc.ABC):
    """One source that may serve a blob: mapped errors, limits and hooks, no hash.

    The defaults are those of a source on the wire that stands outside of a group and that nothing
    closes.
    """

    __slots__ = ()

    @property
    @abc.abstractmethod
    def reference(self) -> str:
        """The reference of the source, as text."""

    @property
    def member(self) -> int | None:
        """Member number in the outermost group, None outside of one."""
        return None

    @property
    def local(self) -> bool:
        """Whether it reads files of this machine, so that sharing what it reads saves nothing."""
        return False

    @property
    def cache_use(self) -> CacheUse:
        """What it means for the cache that it serves the blob."""
        return "" if self.local else "miss"

    def hold(self) -> AsyncResource:
        """A hold on its source, which is not closed before the hold is.

        Closing the source meanwhile does not wait; the last hold that is closed closes it indeed.
        """
        return _NoHold()

    @abc.abstractmethod
    def open(self, start: int = 0, end: int | None = None, etag: str | None = None, /) -> RawBlob:
        """Prepare to read ``[start, end)``, of `etag`; see `StreamsBlobs.open_blob`."""

    async def open_file(self) -> BlobFile | None:
        """The local file that holds the blob, None where the source has no files."""
        return None


class _NoHold(AsyncResource):
    """The hold of a source that is never closed."""

    __slots__ = ()

    async def aclose(self) -> None:
        """There is nothing to let go of."""


class Served(NamedTuple):
    """A part of a blob, and the source that served it."""

    reference: str
    """The source, as text."""
    member: int | None
    """Member number, None outside of a group."""
    start: int
    """Offset of the first byte."""
    end: int
    """Offset behind the last byte."""


class BlobStream(AsyncResource):
    """The verified bytes of one blob, or of a range of it. Read once, front to back.

    Enter it, then iterate: ``async with image.open_blob(digest) as blob: async for chunk in
    blob``. Chunks have 1 byte to 1 MiB and are never empty. The chunk that holds the last byte
    is withheld until size and digest are right, so a stream that ends without an error is whole
    and true.
    """

    __slots__ = ()

    @property
    @abc.abstractmethod
    def descriptor(self) -> Descriptor:
        """What was asked for."""

    @property
    @abc.abstractmethod
    def size(self) -> int | None:
        """Bytes of the whole blob; None until a source that knows was asked."""

    @property
    @abc.abstractmethod
    def received(self) -> int:
        """Bytes handed out so far; all of them once the file was taken (`take_path`)."""

    @property
    @abc.abstractmethod
    def member(self) -> int | None:
        """Member that serves the bytes now, None outside of a group or before the first."""

    @property
    def reference(self) -> str | None:
        """The reference of the source that serves the bytes now, None before the first answers."""
        return None

    @property
    def cache_use(self) -> CacheUse:
        """Whether the cache serves the bytes now, or a fetch of this stream or of another one."""
        return ""

    @property
    @abc.abstractmethod
    def served(self) -> Sequence[Served]:
        """Which source served which part of what was fetched so far, in order."""

    @property
    def corrupt(self) -> Sequence[VerificationError]:
        """Errors of the sources that had other content under this digest, in order.

        If the stream succeeds all the same, another source served the blob.
        """
        return ()

    @property
    @abc.abstractmethod
    def verified(self) -> bool | None:
        """None while running; then True, or False for a range from the wire and early ends."""

    @abc.abstractmethod
    def take_path(self) -> Path | None:
        """Take a verified local file in place of the bytes, to send it with ``sendfile``, say.

        The file holds the whole blob and nothing else, and stays there until `aclose`. Taking it
        uses the stream, which cannot be read any more.

        Returns:
            None where there is no such file, for a range, and once bytes were read. Then the
            stream can be read as ever.

        Raises:
            UsageError: The stream was not entered, or its file was taken before.
            ClosedError: It has been closed.
        """

    @property
    @abc.abstractmethod
    def failure(self) -> SupplementedError | None:
        """The error that ended the reading, None while there is none."""

    @abc.abstractmethod
    def on_progress(self, callback: Callable[[int], None]) -> None:
        """Call `callback` with the bytes that have come, whenever more come.

        Bytes count that are held back until the blob is verified. If another source begins it
        again, they count from 0 again. The callback must be quick and must not raise.
        """

    def __aiter__(self) -> Self:
        return self

    @abc.abstractmethod
    async def __anext__(self) -> bytes:
        """The next chunk.

        Raises:
            UsageError: The stream was not entered, or its file was taken.
            ClosedError: It has been closed.
            DigestMismatchError: The content is not what the digest names.
            SizeMismatchError: It is longer or shorter than announced.
            SourceError: The source failed.
        """

    @abc.abstractmethod
    async def read_all(self, limit: int) -> bytes:
        """Read the rest into memory.

        Args:
            limit: The most bytes to accept; a larger blob raises before it is read if its size
                is known, else at the first byte too many.

        Raises:
            LimitExceededError: There is more than `limit`.
        """
