"""One fetch of a blob for any number of readers.

`SharedFetch` writes into a spool as fast as its sources give. Each `SharedReader` follows at its
own pace, so that a slow reader costs disk and not memory, and delays no other. The bytes in the
spool were released by a verifying stream, so readers need not verify them, and no reader sees the
end before it is right.

A fetch runs at most `AHEAD` bytes ahead of its fastest reader, unless a cache wants the blob.

A reader of a part follows if the part is there, or comes soon. A client that asks for several parts
up to the end at once, to read a piece of each, so costs one fetch (rule SRV-26). A part that is far
away is asked for by itself, so that its reader does not wait for what precedes it.

A reader may join a fetch that another image began, whose sources are not its own. It trusts them no
further than it has to: it begins to read when the blob is whole, or more than `AHEAD` bytes of it
are there. If the fetch fails before that, the reader falls back to its own candidates.

If the disk is full, the newest bytes stay in memory instead. The fetch then keeps the pace of its
readers: it waits for all of them, unless one waits for more bytes. A reader that is left behind
reads the blob by itself, from the first byte, because only a whole blob can be verified.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio

from asupplemented.abc import AsyncResource
from asupplemented.aio.closing import close_all
from asupplemented.blobs.failover import BlobProgress
from asupplemented.blobs.failover_reader import BlobReader
from asupplemented.blobs.health import host_of
from asupplemented.blobs.stream import VerifiedStream
from asupplemented.errors import ClosedError, SourceError, SupplementedError
from asupplemented.events import Warned
from asupplemented.limits import BLOCK, KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asupplemented.abc import BlobCandidate, Context, Served, Spool
    from asupplemented.errors import VerificationError
    from asupplemented.events import CacheUse
    from asupplemented.model.descriptor import Descriptor

__all__ = ("Reopen", "SharedFetch", "SharedReader")

Reopen: TypeAlias = "Callable[[bool, int], VerifiedStream]"
"""Opens the blob anew for one reader, from its own candidates; alone if the first argument is true.

The second one is the offset of the first byte that the reader lacks. A part begins there."""

AHEAD: Final = 64 * MIB
"""Bytes that a fetch which no cache wants may be ahead of its fastest reader."""

FEW: Final = 4
"""Readers that are given whole blocks; with more of them, blocks get smaller."""

SMALL_BLOCK: Final = 256 * KIB
"""A block when there are many readers, which share the memory."""

KEEPING: Final = 5.0
"""Seconds that a cache has to keep a whole blob when the session is closed."""

WINDOW: Final = 4 * MIB
"""Bytes that are kept in memory if the disk is full."""

NEAR: Final = BLOCK
"""Bytes that a part with an end may be ahead of a fetch that its reader follows."""

PATIENCE: Final = 2.0
"""Seconds that the reader of a part waits for the fetch to reach it, and that opening a blob waits
for the cache to give a spool."""


class SharedFetch(AsyncResource):
    """A fetch that is running, or whose bytes are still being read.

    Args:
        descriptor: The blob, all of it.
        candidates: Its candidates, best first; they are held until the fetch ends.
        context: The session, as the first reader sees it.
        claim: Gives the spool.
        ended: Called when no reader can join any more; may be called again.
        gone: Called when nothing is left to be closed; may be called again.
    """

    __slots__ = (
        "_candidates",
        "_claim",
        "_context",
        "_descriptor",
        "_ended",
        "_failure",
        "_gone",
        "_holds",
        "_over",
        "_overflow",
        "_paused",
        "_spool",
        "_stream",
        "_task",
        "_waiters",
        "_whole",
        "readers",
        "stored",
    )

    def __init__(
        self,
        descriptor: Descriptor,
        candidates: Sequence[BlobCandidate],
        context: Context,
        *,
        claim: Callable[[], Awaitable[Spool]],
        ended: Callable[[], None],
        gone: Callable[[], None],
    ) -> None:
        self._descriptor = descriptor
        self._candidates = candidates
        self._context = context
        self._claim = claim
        self._ended = ended
        self._gone = gone
        self._spool: Spool | None = None
        self._stream: VerifiedStream | None = None
        self.stored = 0
        """Bytes that were fetched."""
        self._overflow: _Overflow | None = None
        """In place of the spool, once that cannot be written."""
        self._whole = False
        """All bytes were fetched, and are right."""
        self._paused = False
        """It waits for its readers."""
        self._over = False
        """The fetch has ended, well or not."""
        self._failure: Exception | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self.readers: set[SharedReader] = set()
        self._holds: list[AsyncResource] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        """Whether a reader that begins at the first byte may join."""
        if self._failure is not None or (self._over and not self.readers):
            return False
        return self._overflow is None or self._overflow.reaches_back

    @property
    def whole(self) -> bool:
        """Whether it has ended well: a cache that wanted the blob keeps its file by now."""
        return self._over and self._whole

    @property
    def size(self) -> int | None:
        """Bytes of the blob, None until it is known."""
        return self._descriptor.size if self._stream is None else self._stream.size

    @property
    def reference(self) -> str:
        """The source it reads from, or read from last; empty before the first one answers."""
        return "" if self._stream is None else self._stream.reference or ""

    @property
    def cache_use(self) -> CacheUse:
        """What serves the bytes; see `BlobStream.cache_use`."""
        return "" if self._stream is None else self._stream.cache_use

    @property
    def served(self) -> Sequence[Served]:
        """The parts that each source has served."""
        return () if self._stream is None else self._stream.served

    @property
    def corrupt(self) -> Sequence[VerificationError]:
        """Errors of the sources that had other content."""
        return () if self._stream is None else self._stream.corrupt

    # The fetch itself

    def start(self) -> None:
        """Begin; the candidates are held from now on, before their owner can close them."""
        try:
            for candidate in self._candidates:
                self._holds.append(candidate.hold())
        except SupplementedError as error:
            self._failure = error
        self._task = asyncio.create_task(self._run(), name=f"fetch {self._descriptor.digest}")

    async def _run(self) -> None:
        try:
            await self._fetch()
        except Exception as error:  # noqa: BLE001 - raised by the readers
            self._fail(error)
        except BaseException:
            message = "the blob is not fetched any more, because its session or its reader left"
            self._fail(ClosedError(message, digest=self._descriptor.digest))
            raise
        finally:
            await self._finish()

    def _fail(self, error: Exception) -> None:
        if not self._whole:
            self._failure = error
            self._ended()

    async def _fetch(self) -> None:
        if self._failure is not None:
            raise self._failure
        spool = self._spool = await self._claim()
        candidates = (*spool.candidates, *self._candidates)
        stream = VerifiedStream(self._descriptor, candidates, self._context, quiet=True)
        async with stream:
            self._stream = stream
            if stream.size is not None:
                spool.expect(stream.size)
            self._wake()
            async for chunk in stream:
                await self._store(chunk)
                await self._keep_pace()
        self._whole = True
        self._wake()
        if self._overflow is None:
            await spool.commit()

    async def _store(self, chunk: bytes) -> None:
        if self._overflow is None:
            try:
                if (self.stored + len(chunk)) // BLOCK > self.stored // BLOCK:  # once for each MiB
                    self._writable.read_by_all(self._slowest())
                await self._writable.append(chunk)
            except SourceError as error:
                self._begin_overflow(error)
        if self._overflow is not None:
            await self._keep_in_memory(self._overflow, chunk)
        self.stored += len(chunk)
        self._wake()

    async def _keep_pace(self) -> None:
        """Wait for the fastest reader if it is far behind, and no cache wants the blob."""
        while not self._is_wanted and self.stored - self._fastest() >= AHEAD:
            self._paused = True
            await self._wait()
        self._paused = False

    def _fastest(self) -> int:
        positions = (r.progress.position for r in self.readers if not r.detached)
        return max(positions, default=self.stored)

    def _slowest(self) -> int:
        positions = (r.progress.position for r in self.readers if not r.detached)
        return min(positions, default=self.stored)

    @property
    def _writable(self) -> Spool:
        if self._spool is None:
            message = "the spool of a blob was closed; open the blob again"
            raise ClosedError(message)
        return self._spool

    def _begin_overflow(self, error: SourceError) -> None:
        self._overflow = _Overflow(self.stored)
        message = f"a blob is fetched without a file, at the pace of its readers: {error.message}"
        self._context.emit(Warned(self.reference, message))

    async def _keep_in_memory(self, overflow: _Overflow, chunk: bytes) -> None:
        """Keep a chunk in memory; if the window is full, first wait for readers or drop chunks.

        A reader that waits for more bytes does not wait for one that reads nothing. The latter
        cannot follow any longer, and reads by itself.
        """
        while overflow.size + len(chunk) > WINDOW:
            positions = [r.progress.position for r in self.readers if not r.detached]
            waits = max(positions, default=0) >= self.stored
            if waits or all(at >= overflow.second for at in positions):
                overflow.drop()
            else:
                await self._wait()
        overflow.append(chunk)

    async def _finish(self) -> None:
        self._over = True
        self._wake()
        resources = list(self._holds)
        self._holds.clear()
        if not self.readers:
            resources += self._release()
        try:
            await close_all(resources, f"the sources of blob {self._descriptor.digest}")
        except ExceptionGroup as group:
            told = "; ".join(str(each) for each in group.exceptions)
            self._context.emit(Warned(self.reference, f"{group.message} failed: {told}"))

    def _release(self) -> list[AsyncResource]:
        """Resources to close when no reader is left."""
        self._ended()
        self._gone()
        # Both refer to the fetch: without the cycle, no fetch waits for the garbage collector.
        self._ended = self._gone = _do_nothing
        spool, self._spool = self._spool, None
        return [] if spool is None else [spool]

    # Readers

    def covers(self, candidates: Sequence[BlobCandidate], context: Context) -> bool:
        """Whether it asks all candidates of a reader, so that this one could not do better."""
        if context.principal != self._context.principal:
            return False
        if candidates is self._candidates:
            return True
        asked = {candidate.reference for candidate in self._candidates}
        return all(candidate.reference in asked for candidate in candidates)

    async def join(
        self,
        candidates: Sequence[BlobCandidate],
        context: Context,
        *,
        start: int,
        reopen: Reopen,
        began: bool,
    ) -> SharedReader:
        """Follow the fetch; returns once there is something to read.

        It also returns if the cache takes long to give a spool, because another host is fetching
        the blob. Then the first read waits for that, so a server can answer before it is over.

        Args:
            candidates: The reader's own.
            context: The session, as the reader sees it.
            start: Offset of the first byte that the reader lacks.
            reopen: Opens the blob anew if the reader cannot follow.
            began: Whether the fetch began for this reader.

        Raises:
            SupplementedError: The fetch failed: the same for all readers.
        """
        covered = self.covers(candidates, context)
        reader = SharedReader(
            self,
            candidates,
            self._descriptor,
            BlobProgress(start, self._descriptor.size, is_whole=True),
            reopen=reopen,
            covered=covered,
            began=began,
        )
        self.readers.add(reader)
        try:
            await self._until_readable(candidates)
        except BaseException:
            await self.leave(reader)
            raise
        reader.progress.size = self.size
        return reader

    async def join_part(
        self,
        candidates: Sequence[BlobCandidate],
        context: Context,
        *,
        start: int,
        end: int | None,
        reopen: Reopen,
        began: bool,
    ) -> SharedReader | None:
        """Follow the fetch for a part of the blob; returns once there is something to read.

        Args:
            candidates: The reader's own.
            context: The session, as the reader sees it.
            start: Offset of the first byte that the reader lacks.
            end: Offset behind the last byte, None for the end of the blob.
            reopen: Opens the part anew if the reader cannot follow.
            began: Whether the fetch began for this reader.

        Returns:
            None if the part is not there soon, or if the fetch does not ask all candidates.

        Raises:
            SupplementedError: The fetch failed: the same for all readers.
        """
        ahead = AHEAD if end is None else NEAR
        if start > self.stored + ahead or not self.covers(candidates, context):
            return None
        reader = SharedReader(
            self,
            candidates,
            self._descriptor,
            BlobProgress(start, self._descriptor.size, is_whole=False),
            end=end,
            reopen=reopen,
            covered=True,
            began=began,
        )
        self.readers.add(reader)
        self._wake()  # it may wait for a reader that is near
        try:
            with anyio.move_on_after(PATIENCE) as waiting:
                await self._until_reached(start)
        except BaseException:
            await self.leave(reader)
            raise
        if waiting.cancelled_caught:
            await self.leave(reader)
            return None
        reader.progress.size = self.size
        return reader

    async def _until_reached(self, position: int) -> None:
        while self._failure is None and not self._whole and self.stored <= position:
            await self._wait()
        if self._failure is not None:
            raise _twin(self._failure)

    async def _until_readable(self, candidates: Sequence[BlobCandidate]) -> None:
        foreign = candidates is not self._candidates
        if foreign:
            own = {host_of(candidate.reference) for candidate in candidates}
            foreign = any(host_of(candidate.reference) not in own for candidate in self._candidates)
        if not foreign:
            await self._until_open()
            if self._failure is None and self._spool is None and self._stream is None:
                return
        await self._until_stored(AHEAD if foreign else 0)
        if self._failure is not None:
            raise _twin(self._failure)

    async def _until_open(self) -> None:
        """Wait until a source has answered, or until the cache has taken long to give a spool."""
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            self._wake()

        timer = asyncio.get_running_loop().call_later(PATIENCE, give_up)
        try:
            while not (late or self._failure or self._whole or self._stream):
                await self._wait()
        finally:
            timer.cancel()

    async def _until_stored(self, least: int) -> None:
        while self._failure is None and not self._whole:
            if self._stream is not None and self.stored >= least:
                return
            await self._wait()

    async def read(self, reader: SharedReader, end: int | None = None) -> bytes | None:
        """The next bytes for a reader, none at the end; None if it has to read by itself.

        Args:
            reader: The reader, which has not reached `end`.
            end: Offset behind the last byte that it wants, None for the end of the blob.

        Raises:
            SupplementedError: What the fetch ended with, the same for all.
        """
        progress = reader.progress
        while not reader.detached:
            position = progress.position
            block = await self._read_stored(position) if position < self.stored else b""
            if block is None:
                break
            if block:
                if end is not None:
                    block = block[: end - position]
                progress.position += len(block)
                if self._overflow is not None or self._paused:
                    self._wake()
                return block
            if self._has_ended():
                return b""
            await self._wait()
        reader.detached = True
        self._wake()
        return None

    async def _read_stored(self, position: int) -> bytes | None:
        """Bytes that were fetched; None if a reader there cannot follow any longer."""
        spool = self._spool
        if spool is not None and position < spool.length:
            limit = BLOCK if len(self.readers) <= FEW else SMALL_BLOCK
            try:
                return await spool.read(position, limit)
            except SourceError:
                return None
        return b"" if self._overflow is None else self._overflow.read(position)

    def _has_ended(self) -> bool:
        """Whether no more bytes will come; raises the error of the fetch if it failed."""
        if self._failure is not None:
            raise _twin(self._failure)
        return self._whole

    async def leave(self, reader: SharedReader) -> None:
        """Remove a reader. The last one ends a fetch that no cache wants, and waits for that."""
        self.readers.discard(reader)
        self._wake()
        if self.readers or self._task is None:
            return
        if not self._over and not self._whole and not self._is_wanted:
            await self.stop()
        elif self._over:
            await close_all(self._release(), f"the spool of blob {self._descriptor.digest}")

    @property
    def _is_wanted(self) -> bool:
        return self._overflow is None and self._spool is not None and self._spool.wanted

    async def stop(self) -> None:
        """End the fetch, and wait until it has closed everything.

        What came whole is kept first, for a while: it need not be fetched again then.
        """
        if self._task is None:
            return
        self._ended()
        with anyio.CancelScope(shield=True):
            await self.settle()
            self._task.cancel()
            await asyncio.wait((self._task,))
            if not self._over:  # It was cancelled before it could begin.
                await self._finish()

    async def settle(self) -> None:
        """Wait, but not for long, until what is whole is kept."""
        if self._whole and self._task is not None:
            await asyncio.wait((self._task,), timeout=KEEPING)

    async def aclose(self) -> None:
        """End the fetch and drop its bytes, also while it is read; what is whole is kept first."""
        await self.stop()
        await close_all(self._release(), f"the spool of blob {self._descriptor.digest}")

    # Waiting

    async def _wait(self) -> None:
        """Wait until something has changed."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class SharedReader(BlobReader):
    """Reads a blob that a shared fetch verifies. Failover is up to the fetch.

    Args:
        fetch: The fetch; it moves ``progress.position`` on.
        candidates: The reader's own.
        descriptor: The blob.
        progress: Where the reader begins, and whether it reads all of the blob.
        reopen: Opens the blob anew if the reader cannot follow.
        covered: Whether the fetch asks all candidates of the reader.
        began: Whether the fetch began for this reader.
        end: Offset behind the last byte, None for the end of the blob.

    Attributes:
        detached: It can no longer follow the fetch, and reads by itself.
    """

    __slots__ = (
        "_began",
        "_candidates",
        "_closed",
        "_covered",
        "_descriptor",
        "_end",
        "_fetch",
        "_own",
        "_reopen",
        "_start",
        "detached",
        "progress",
        "successor",
    )

    def __init__(
        self,
        fetch: SharedFetch,
        candidates: Sequence[BlobCandidate],
        descriptor: Descriptor,
        progress: BlobProgress,
        *,
        reopen: Reopen,
        covered: bool,
        began: bool,
        end: int | None = None,
    ) -> None:
        self._began = began
        self._end = end
        self._fetch = fetch
        self._candidates = candidates
        self._descriptor = descriptor
        self._start = progress.position
        self._reopen = reopen
        self._covered = covered
        self._own: VerifiedStream | None = None
        self._closed = False
        self.detached = False
        self.successor = None
        self.progress = progress

    @property
    def candidate(self) -> BlobCandidate:
        """The candidate that the fetch reads from if the reader has it, else the reader's best."""
        reference = self._fetch.reference
        own = (each for each in self._candidates if each.reference == reference)
        return next(own, self._candidates[0])

    @property
    def cache_use(self) -> CacheUse:
        if self._own is not None:
            return self._own.cache_use
        return self._fetch.cache_use if self._began else "joined"

    def list_served(self) -> Sequence[Served]:
        served = self._fetch.served if self._own is None else self._own.served
        return tuple(part._replace(member=self._find_member(part.reference)) for part in served)

    def list_corrupt(self) -> Sequence[VerificationError]:
        return self._fetch.corrupt if self._own is None else self._own.corrupt

    def _find_member(self, reference: str) -> int | None:
        """The number that a source of the fetch has among the reader's own."""
        numbers = (c.member for c in self._candidates if c.reference == reference)
        return next(numbers, None)

    async def read(self) -> list[bytes]:
        try:
            if self.progress.position == self._end:
                return self._finish()
            block = await self._follow() if self._own is None else None
            if self._closed:
                raise self._closed_error()
            if block is None:
                block = await self._read_own()
        except SupplementedError as error:
            source = self.candidate
            error.locate(
                reference=source.reference, digest=self._descriptor.digest, member=source.member
            )
            raise
        if block:
            return [block]
        self.progress.size = self.progress.position
        return self._finish()

    def _finish(self) -> list[bytes]:
        self.progress.verified = self.progress.is_whole
        return []

    async def _follow(self) -> bytes | None:
        """The next bytes of the fetch; None if the reader reads by itself from now on.

        It does if it cannot follow. It also does if the fetch failed before the reader had a byte
        of it, and the reader has other candidates.
        """
        alone = True
        try:
            block = await self._fetch.read(self, self._end)
            if block is not None:
                return block
        except SupplementedError:
            if self._covered or self._closed or self.progress.position != self._start:
                raise
            alone = False
        if self._closed:
            raise self._closed_error()
        own = self._own = self._reopen(alone, self.progress.position)
        await own.__aenter__()
        await self._fetch.leave(self)
        return None

    async def _read_own(self) -> bytes | None:
        """Read by itself: a blob from the first byte, since only all of it can be verified."""
        own = self._own
        if own is None:
            return None
        progress = self.progress
        if not progress.is_whole:
            chunk = await anext(own, b"")
            progress.position += len(chunk)
            return chunk
        while (chunk := await anext(own, b"")) and own.received <= progress.position:
            pass
        fresh = own.received - progress.position
        progress.position = max(progress.position, own.received)
        return chunk[len(chunk) - fresh :] if chunk else b""

    def _closed_error(self) -> ClosedError:
        message = "the blob stream has been closed; open the blob again"
        return ClosedError(message, digest=self._descriptor.digest)

    async def aclose(self) -> None:
        self._closed = True
        try:
            await self._fetch.leave(self)
        finally:
            own, self._own = self._own, None
            if own is not None:
                await own.aclose()


class _Overflow:
    """The newest bytes of a blob, in memory.

    Args:
        start: Offset of the first byte that is not in the spool.
    """

    __slots__ = ("_chunks", "_first", "_start", "size")

    def __init__(self, start: int) -> None:
        self._start = start
        self._first = start
        """Offset of the first byte that was not dropped."""
        self._chunks: deque[bytes] = deque()
        self.size = 0

    @property
    def reaches_back(self) -> bool:
        """Whether no bytes were dropped after those in the spool."""
        return self._first == self._start

    @property
    def second(self) -> int:
        """Offset behind the first chunk."""
        return self._first + (len(self._chunks[0]) if self._chunks else 0)

    def append(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self.size += len(chunk)

    def drop(self) -> None:
        """Drop the first chunk."""
        self._first = self.second
        self.size -= len(self._chunks.popleft())

    def read(self, position: int) -> bytes | None:
        """The bytes from an offset on, None if they were dropped."""
        start = self._first
        if position < start:
            return None
        for chunk in self._chunks:
            if position < start + len(chunk):
                return chunk[position - start :]
            start += len(chunk)
        return None


def _do_nothing() -> None:
    """In place of what was called for the last time."""


def _twin(error: Exception) -> Exception:
    return error.twin() if isinstance(error, SupplementedError) else error
