"""Attempts: one candidate that is asked for a blob, from one offset on.

A stream makes one attempt after another and sees no difference between a file and the wire:
both give bytes in order, hashed on the way.
"""

from __future__ import annotations

import abc
import asyncio
from typing import TYPE_CHECKING, ClassVar, Self

from asupplemented.abc import AsyncResource, Hasty, Resumable
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.aio.threads import run_blocking
from asupplemented.blobs.blob_file import identify, share_blob_file
from asupplemented.blobs.patience import Watch
from asupplemented.blobs.read_ahead import ReadAhead, verified_files
from asupplemented.errors import SizeMismatchError, SourceTimeoutError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from asupplemented.abc import BlobCandidate, BlobFile, Context, RawBlob, Served, Timeouts
    from asupplemented.blobs.blob_file import FileIdentity
    from asupplemented.blobs.hashing import RunningHash
    from asupplemented.model.digest import Digest

__all__ = ("Attempt", "FileAttempt", "Haste", "KeptAttempt", "Pace", "WireAttempt")


class Attempt(AsyncResource):
    """One candidate that answered.

    Attributes:
        size: Bytes of the whole blob, as the candidate claims; None if it does not say.
        start: Offset of the first byte that comes; what was not asked for is skipped.
    """

    __slots__ = ("_candidate", "size", "start")

    final: ClassVar[bool] = False
    """Whether its failure is everybody's, so that nobody else is to be asked."""

    def __init__(self, candidate: BlobCandidate, size: int | None, start: int) -> None:
        self._candidate = candidate
        self.size = size
        self.start = start

    @property
    def candidate(self) -> BlobCandidate:
        """Who serves the bytes."""
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
            size: Bytes of the whole blob, None if nobody knows.
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
    def served(self) -> Sequence[Served] | None:
        """Who has served what, if the candidate is only one of those; None if it is the one."""
        return None

    @property
    def proven(self) -> bool:
        """Whether its bytes were verified before, so that they need not be hashed here."""
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


class Haste:
    """Whether a source is to be patient, and whether it was told otherwise.

    Args:
        wanted: Others are fit to serve the blob as well.
    """

    __slots__ = ("heeded", "wanted")

    def __init__(self, *, wanted: bool = False) -> None:
        self.wanted = wanted
        self.heeded = False
        """Somebody was hurried who would have been patient."""

    def urge(self, raw: RawBlob) -> None:
        """Tell a body that is about to be entered, if there is a reason to."""
        if self.wanted and isinstance(raw, Hasty):
            raw.hurry()
            self.heeded = True


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
            found = await run_blocking(self._context, identify, self._reader)
            self._known = known if found == known else None

    async def begin(
        self, end: int | None, running: RunningHash | None, size: int | None = None
    ) -> None:
        hasher = None if running is None else await running.settle()
        file = self._file
        last = min(limit for limit in (file.size, end, size) if limit is not None)
        self._blocks = ReadAhead(self._context, self._reader, self.start, last, hasher)

    async def read(self) -> bytes:
        return b"" if self._blocks is None else await self._blocks.read()

    @property
    def proven(self) -> bool:
        return self._known is not None

    @property
    def path(self) -> Path | None:
        return self._file.path if self._known is not None else None

    @property
    def trusted(self) -> bool:
        if self._known is None or self._blocks is None:
            return False
        return self._blocks.identity == self._known

    def confirm(self) -> None:
        file = self._file
        identity = None if self._blocks is None else self._blocks.identity
        if identity is None or self.start != 0:
            return  # What comes before the start was somebody else's.
        if file.offset == 0 and identity.size == file.size:
            verified_files(self._context).remember(self._digest, identity)

    async def aclose(self) -> None:
        self._reader.close()
        if self._blocks is not None:
            self._blocks.close()


class KeptAttempt(FileAttempt):
    """A file that was verified when it was stored, by who keeps it."""

    __slots__ = ()

    async def look(self) -> None:
        self._known = await run_blocking(self._context, identify, self._reader)


class WireAttempt(Attempt):
    """Whatever an adapter streams: hashed beside the event loop, and not waited for for ever."""

    __slots__ = (
        "_asked",
        "_chunks",
        "_clock",
        "_closed",
        "_left",
        "_pace",
        "_raw",
        "_room",
        "_running",
        "_size",
        "_skip",
        "_watch",
    )

    def __init__(
        self, candidate: BlobCandidate, clock: Clock, pace: Pace, raw: RawBlob, asked: int
    ) -> None:
        super().__init__(candidate, raw.size, raw.start)
        self._raw = raw
        self._chunks = aiter(raw)
        self._pace = pace
        self._watch = Watch()
        self._clock = clock
        self._closed = False
        self._asked = asked
        self._running: RunningHash | None = None
        self._skip = asked - raw.start
        self._left: int | None = None
        """Bytes that are wanted and did not come yet; None for all there is."""
        self._size: int | None = None
        self._room: int | None = None
        """Bytes that the blob has left; None if nobody knows its size."""

    @classmethod
    async def open(
        cls,
        candidate: BlobCandidate,
        context: Context,
        start: int,
        end: int | None,
        after: Attempt | None,
        haste: Haste,
    ) -> Self:
        clock = context.resource(CLOCK, Clock)
        # Who breaks off has not got more time for it.
        pace = after.pace if isinstance(after, WireAttempt) else Pace(context.timeouts)
        raw = candidate.open(start, end, None if after is None else after.etag)
        haste.urge(raw)
        await raw.__aenter__()
        return cls(candidate, clock, pace, raw, start)

    @property
    def pace(self) -> Pace:
        """Whether it comes fast enough."""
        return self._pace

    @property
    def resumable(self) -> bool:
        return self._raw.resumable if isinstance(self._raw, Resumable) else True

    @property
    def etag(self) -> str | None:
        return self._raw.etag

    async def begin(
        self, end: int | None, running: RunningHash | None, size: int | None = None
    ) -> None:
        self._left = None if end is None else end - self._asked
        self._size = size
        self._room = None if size is None else size - self._asked
        self._running = running

    async def read(self) -> bytes:
        if self._left == 0:
            return b""
        chunk = await self._wait()
        while chunk and self._skip:
            skipped = min(self._skip, len(chunk))
            self._skip -= skipped
            chunk = chunk[skipped:] or await self._wait()
        if self._left is not None:
            chunk = chunk[: self._left]
            self._left -= len(chunk)
        if self._room is not None:
            self._room -= len(chunk)
            self._check_room()
        if self._running is not None and chunk:
            await self._running.update(chunk)
        return chunk

    def _check_room(self) -> None:
        if self._size is not None and self._room is not None and self._room < 0:
            message = f"the blob is longer than the {self._size} bytes that were announced"
            actual = self._size - self._room
            raise SizeMismatchError(message, expected=self._size, actual=actual)

    async def _wait(self) -> bytes:
        """The next chunk as it comes; none at the end, or when it was closed meanwhile."""
        while not self._closed:
            began = self._clock.now()
            self._watch.begin(self._pace.patience)
            try:
                chunk = await anext(self._chunks, None)
            except asyncio.CancelledError as error:
                if self._watch.end():
                    raise self._pace.give_up() from error
                raise
            finally:
                self._watch.end()
            if chunk is None:
                return b""
            self._pace.count(self._clock.now() - began, len(chunk))
            if chunk:
                return chunk
        return b""

    async def aclose(self) -> None:
        self._closed = True
        self._watch.close()
        await self._raw.__aexit__(None, None, None)


class Pace:
    """Whether a body comes fast enough (rule SEC-07).

    Only the time spent waiting for it counts, so that a slow reader is not held against it. It
    is judged in windows of ``timeouts.stall`` seconds of waiting: in each, ``min_rate`` bytes
    per second have to come. Once they have, only a wait as long as the window is too long.
    """

    __slots__ = ("_came", "_quota", "_waited", "_window")

    def __init__(self, timeouts: Timeouts) -> None:
        self._window = timeouts.stall
        self._quota = 0.0 if self._window is None else timeouts.min_rate * self._window
        self._waited = 0.0
        self._came = 0

    @property
    def patience(self) -> float | None:
        """Seconds that the next wait may last, None for any time."""
        if self._window is None or self._came >= self._quota:
            return self._window
        return self._window - self._waited

    def count(self, seconds: float, size: int) -> None:
        """Take note of a wait, and of the bytes that it gave.

        Raises:
            SourceTimeoutError: The window is over, and too few bytes came.
        """
        if self._window is None:
            return
        self._waited += seconds
        self._came += size
        if self._waited < self._window:
            return
        if self._came < self._quota:
            raise self.give_up()
        self._waited, self._came = 0.0, 0

    def give_up(self) -> SourceTimeoutError:
        """What is wrong when patience ends; it begins anew then, should anybody go on."""
        if self._came >= self._quota:
            message = f"the body stalled: nothing came for {self._window} s; see Timeouts.stall"
        else:
            message = (
                f"the body is too slow: {self._came} bytes in {self._window} s, where "
                f"{self._quota:.0f} were due; see Timeouts.min_rate"
            )
        self._waited, self._came = 0.0, 0
        return SourceTimeoutError(message)
