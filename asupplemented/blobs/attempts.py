"""Attempts: one candidate that is asked for a blob, from one offset on.

A stream makes one attempt after another and sees no difference between a file and the wire:
both give bytes in order, hashed on the way.
"""

from __future__ import annotations

import abc
import asyncio
from typing import TYPE_CHECKING

from asupplemented.abc import AsyncResource, Framed, Resumable
from asupplemented.aio.beneath import is_private
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.aio.threads import run_blocking
from asupplemented.aio.timers import MinRate, WaitTimer
from asupplemented.blobs.blob_file import FileIdentity, has_content, identify, share_blob_file
from asupplemented.blobs.read_ahead import ReadAhead, verified_files
from asupplemented.errors import DigestMismatchError, SizeMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asupplemented.abc import BlobCandidate, BlobFile, Context, RawBlob, Timeouts
    from asupplemented.blobs.hashing import RunningHash
    from asupplemented.model.digest import Digest

__all__ = ("Attempt", "CachedAttempt", "FileAttempt", "WireAttempt")


class Attempt(AsyncResource):
    """One candidate that answered.

    Attributes:
        size: Bytes of the whole blob, as the candidate claims; None if it does not say.
        start: Offset of the first byte that comes; what was not asked for is skipped.
    """

    __slots__ = ("_candidate", "size", "start")

    def __init__(self, candidate: BlobCandidate, size: int | None, start: int) -> None:
        self._candidate = candidate
        self.size = size
        self.start = start

    @property
    def candidate(self) -> BlobCandidate:
        """The candidate that serves the bytes."""
        return self._candidate

    async def look(self) -> None:
        """Find out what is known about it."""

    @abc.abstractmethod
    async def begin(
        self, end: int | None, running: RunningHash | None, size: int | None = None
    ) -> None:
        """Say what is wanted, once the size is known; before the first `read`.

        Args:
            end: Offset behind the last byte, None for all there is.
            running: The hash of all bytes before the first one, fed on from here; None if
                nothing is to be hashed.
            size: Bytes of the whole blob, None if it is unknown.
        """

    @abc.abstractmethod
    async def read(self) -> bytes:
        """The next bytes, as many as come at once; none at the end.

        Raises:
            SourceError: The candidate failed.
            SizeMismatchError: There is more than the whole blob should have; the surplus is
                neither hashed nor handed out.
        """

    @property
    def resumable(self) -> bool:
        """Whether the candidate may be asked for the rest when the attempt breaks off."""
        return False

    @property
    def etag(self) -> str | None:
        """A strong validator to resume with, or None."""
        return None

    @property
    def encoding(self) -> str | None:
        """The encoding that the source names, for errors; None for none."""
        return None

    @property
    def delimited(self) -> bool:
        """Whether the body says where it ends, so that one that is cut off is noticed."""
        return True

    @property
    def preverified(self) -> bool:
        """Whether it reads a file that was verified before, so that no hash is needed."""
        return False

    @property
    def path(self) -> Path | None:
        """A file that holds the blob and nothing else, and was verified before."""
        return None

    @property
    def trusted(self) -> bool:
        """Whether all that was read is part of a file that was verified before."""
        return False

    def confirm(self) -> None:
        """Every byte of the blob was read, hashed, and found right."""


class FileAttempt(Attempt):
    """A local file: read and hashed ahead in a thread."""

    __slots__ = ("_blocks", "_context", "_digest", "_file", "_known", "_reader")

    def __init__(
        self,
        candidate: BlobCandidate,
        context: Context,
        digest: Digest,
        file: BlobFile,
        start: int,
    ) -> None:
        super().__init__(candidate, file.size, start)
        self._context = context
        self._digest = digest
        self._file = file
        self._reader = share_blob_file(file)
        self._blocks: ReadAhead | None = None
        self._known: FileIdentity | None = None

    async def look(self) -> None:
        known = verified_files(self._context).recall(self._digest)
        file = self._file
        if known is not None and (file.offset, file.size) == (0, known.size):
            found = await run_blocking(self._context, self._identify_private)
            self._known = known if found == known else None
        if self._known is None and file.linked:
            await self._verify_first()

    def _identify_private(self) -> FileIdentity | None:
        """The identity of the file, None if another user can change it. Blocking.

        Such a user can write through a mapping of the file, and its timestamps stay as they are. So
        the file is hashed whenever it is read.
        """
        return identify(self._reader) if is_private(self._file.path) else None

    async def _verify_first(self) -> None:
        """Hash the whole file that a link led to, before any of it is handed out.

        The image chooses the target of the link, which may be any file of this machine.

        Raises:
            DigestMismatchError: It is not the blob.
        """
        context, digest, file = self._context, self._digest, self._file
        before = await run_blocking(context, self._identify_private)
        if not await has_content(context, self._reader, file.size, digest):
            message = f"a symbolic link leads to a file that is not the blob: {file.path}"
            raise DigestMismatchError(message)
        after = await run_blocking(context, self._identify_private)
        if after is not None and after == before and (file.offset, file.size) == (0, after.size):
            verified_files(context).remember(digest, after)
            self._known = verified_files(context).recall(digest)

    async def begin(
        self, end: int | None, running: RunningHash | None, size: int | None = None
    ) -> None:
        hasher = None if running is None else await running.settle()
        file = self._file
        last = min(limit for limit in (file.size, end, size) if limit is not None)
        known = self._known
        trust = None if known is None or hasher is not None else (self._digest, known)
        self._blocks = ReadAhead(self._context, self._reader, self.start, last, hasher, trust)

    async def read(self) -> bytes:
        return b"" if self._blocks is None else await self._blocks.read()

    @property
    def preverified(self) -> bool:
        return self._known is not None

    @property
    def path(self) -> Path | None:
        return self._file.path if self._known is not None else None

    @property
    def trusted(self) -> bool:
        return self._blocks is not None and self._blocks.trusted

    def confirm(self) -> None:
        file = self._file
        identity = None if self._blocks is None else self._blocks.identity
        if identity is None or self.start != 0:
            return  # Another source served the bytes before the start.
        if file.offset == 0 and identity.size == file.size:
            verified_files(self._context).remember(self._digest, identity)

    async def aclose(self) -> None:
        self._reader.close()
        if self._blocks is not None:
            self._blocks.close()


class CachedAttempt(FileAttempt):
    """A file in the cache, which verified it when it was stored.

    If another user can change the file, it is hashed again while it is read.
    """

    __slots__ = ()

    async def look(self) -> None:
        known = await run_blocking(self._context, self._identify_private)
        status = self._file.verified
        self._known = known if known is None or status is None else FileIdentity.of(status)


class WireAttempt(Attempt):
    """A body that an adapter streams: hashed beside the event loop, and limited in time."""

    __slots__ = (
        "_asked",
        "_chunks",
        "_closed",
        "_exact",
        "_hash",
        "_left",
        "_now",
        "_rate",
        "_raw",
        "_size",
        "_skip",
        "_timer",
    )

    def __init__(
        self,
        candidate: BlobCandidate,
        context: Context,
        raw: RawBlob,
        asked: int,
        after: Attempt | None,
    ) -> None:
        super().__init__(candidate, raw.size, raw.start)
        self._raw = raw
        self._chunks = aiter(raw)
        self._rate = after.rate if isinstance(after, WireAttempt) else _rate_of(context.timeouts)
        self._timer = WaitTimer()
        self._now = context.resource(CLOCK, Clock).now
        self._closed = False
        self._asked = asked
        self._hash: RunningHash | None = None
        self._skip = asked - raw.start
        self._left: int | None = None
        """Bytes that are wanted and did not come yet; None for all there is."""
        self._exact = True
        """Whether the body has to end there, so that more bytes are an error."""
        self._size: int | None = None

    @property
    def rate(self) -> MinRate:
        """How fast it has to come. A source that is resumed does not get more time for it."""
        return self._rate

    @property
    def resumable(self) -> bool:
        return self._raw.resumable if isinstance(self._raw, Resumable) else True

    @property
    def etag(self) -> str | None:
        return self._raw.etag

    @property
    def encoding(self) -> str | None:
        return self._raw.encoding if isinstance(self._raw, Framed) else None

    @property
    def delimited(self) -> bool:
        # Looked at for each blob, and `isinstance` of a protocol takes 10 us.
        delimited: bool = getattr(self._raw, "delimited", True)
        return delimited

    async def begin(
        self, end: int | None, running: RunningHash | None, size: int | None = None
    ) -> None:
        self._exact = end is None or (size is not None and size < end)
        last = size if self._exact else end
        self._left = None if last is None else last - self._asked
        self._size = size
        self._hash = running

    async def read(self) -> bytes:
        if self._closed or (self._left == 0 and not self._exact):
            return b""
        chunk = await self._read_raw()
        while chunk and self._skip:
            skipped = min(self._skip, len(chunk))
            self._skip -= skipped
            chunk = chunk[skipped:] or await self._read_raw()
        if self._left is not None:
            if len(chunk) > self._left:
                chunk = self._cut(chunk, self._left)
            self._left -= len(chunk)
        if self._hash is not None and chunk:
            await self._hash.update(chunk)
        return chunk

    def _cut(self, chunk: bytes, left: int) -> bytes:
        """The bytes of a chunk that are wanted, where it has more of them."""
        if self._exact and self._size is not None:
            message = f"the blob is longer than the {self._size} bytes that were announced"
            actual = self._size + len(chunk) - left
            raise SizeMismatchError(message, expected=self._size, actual=actual)
        return chunk[:left]

    def close_at_once(self) -> bool:
        """Close, if the body closes without waiting; see `close_all`."""
        close: Callable[[], bool] | None = getattr(self._raw, "close_at_once", None)
        if close is None:
            return False
        self._closed = True
        self._timer.close()
        return close()

    async def _read_raw(self) -> bytes:
        """The next chunk as it comes; none at the end, or when it was closed meanwhile."""
        rate, timer, now = self._rate, self._timer, self._now
        while not self._closed:
            began = now()
            timer.begin(rate.limit)
            try:
                chunk = await anext(self._chunks, None)
            except asyncio.CancelledError as error:
                if timer.end():
                    raise rate.give_up() from error
                raise
            finally:
                timer.end()
            if chunk is None:
                return b""
            rate.count(now() - began, len(chunk))
            if chunk:
                return chunk
        return b""

    async def aclose(self) -> None:
        self._closed = True
        self._timer.close()
        await self._raw.__aexit__(None, None, None)


def _rate_of(timeouts: Timeouts) -> MinRate:
    return MinRate(timeouts.stall, timeouts.min_rate)
