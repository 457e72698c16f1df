"""One fetch of a blob for any number of readers.

It writes into a spool as fast as its sources give; each reader follows at a pace of its own, so
that a slow one costs disk and not memory, and stalls no other. What is in the spool was released by
a verifying stream, so readers need not verify, and none sees the end before it is right.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import anyio

from asupplemented.abc import AsyncResource
from asupplemented.aio.closing import close_all
from asupplemented.blobs.verified import VerifiedStream
from asupplemented.cache.overflow import Overflow
from asupplemented.cache.shared_attempt import SharedReader
from asupplemented.errors import ClosedError, SourceError, SupplementedError
from asupplemented.events import Warned
from asupplemented.limits import BLOCK, KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asupplemented.abc import BlobCandidate, Context, Served, Spool
    from asupplemented.errors import VerificationError
    from asupplemented.model.descriptor import Descriptor

__all__ = ("SharedFetch",)

FEW: Final = 4
"""Readers that are given whole blocks; with more of them, blocks get smaller."""

SMALL_BLOCK: Final = 256 * KIB
"""A block when there are many readers: memory is for all of them."""

KEEPING: Final = 5.0
"""Seconds that a cache has to keep a blob that came whole when its session is closed."""

WINDOW: Final = 4 * MIB
"""What is kept in memory where there is no room on disk."""


class SharedFetch(AsyncResource):
    """A fetch that is under way, or whose bytes are still being read.

    Args:
        descriptor: The blob, all of it.
        candidates: Who may serve it, best first; they are held until the fetch ends.
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
        """Bytes that came."""
        self._overflow: Overflow | None = None
        """In place of the spool, once that takes no more."""
        self._whole = False
        """All bytes came, and are right."""
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
    def size(self) -> int | None:
        """Bytes of the blob, None until it is known."""
        return self._descriptor.size if self._stream is None else self._stream.size

    @property
    def reference(self) -> str:
        """Whom it reads from, or did at last; empty before the first one answers."""
        return "" if self._stream is None else self._stream.reference or ""

    @property
    def served(self) -> Sequence[Served]:
        """Who has served what."""
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
        stream = VerifiedStream(self._descriptor, candidates, self._context)
        async with stream:
            self._stream = stream
            self._wake()
            async for chunk in stream:
                await self._store(chunk)
        self._whole = True
        self._wake()
        if self._overflow is None:
            await spool.commit()

    async def _store(self, chunk: bytes) -> None:
        if self._overflow is None:
            try:
                await self._writable.append(chunk)
            except SourceError as error:
                self._begin_overflow(error)
        if self._overflow is not None:
            await self._keep_in_memory(self._overflow, chunk)
        self.stored += len(chunk)
        self._wake()

    @property
    def _writable(self) -> Spool:
        if self._spool is None:
            message = "the spool of a blob was closed; open the blob again"
            raise ClosedError(message)
        return self._spool

    def _begin_overflow(self, error: SourceError) -> None:
        self._overflow = Overflow(self.stored)
        message = f"a blob is fetched without a file, at the pace of its readers: {error.message}"
        self._context.emit(Warned(self.reference, message))

    async def _keep_in_memory(self, overflow: Overflow, chunk: bytes) -> None:
        """Keep a chunk, and wait for readers where that is too much.

        Who waits for more is not held up by who does not read; the latter loses touch, and goes
        on alone.
        """
        while overflow.size + len(chunk) > WINDOW:
            positions = [r.progress.position for r in self.readers if not r.detached]
            if all(at >= overflow.second for at in positions) or self.stored in positions:
                overflow.drop()
            else:
                await self._wait()
        overflow.append(chunk)

    async def _finish(self) -> None:
        with anyio.CancelScope(shield=True):
            self._over = True
            self._wake()
            resources = list(self._holds)
            self._holds.clear()
            if not self.readers:
                resources += self._let_go()
            try:
                await close_all(resources, f"the sources of blob {self._descriptor.digest}")
            except ExceptionGroup as group:
                told = "; ".join(str(each) for each in group.exceptions)
                self._context.emit(Warned(self.reference, f"{group.message} failed: {told}"))

    def _let_go(self) -> list[AsyncResource]:
        """What is to be closed when no reader is left."""
        self._ended()
        self._gone()
        spool, self._spool = self._spool, None
        return [] if spool is None else [spool]

    # Readers

    async def join(self, candidates: Sequence[BlobCandidate]) -> SharedReader:
        """Follow the fetch from the first byte on; returns once a source answers.

        Args:
            candidates: The reader's own, in case that it has to go on alone.

        Raises:
            SupplementedError: No source serves the blob: the same for all readers.
        """
        reader = SharedReader(self, candidates, self._context, self._descriptor)
        self.readers.add(reader)
        try:
            await self._until_opened()
        except BaseException:
            await self.leave(reader)
            raise
        reader.progress.size = self.size
        return reader

    async def _until_opened(self) -> None:
        while self._stream is None and self._failure is None:
            await self._wait()
        if self._failure is not None and not self.stored:
            raise _twin(self._failure)

    async def read(self, reader: SharedReader) -> bytes | None:
        """The next bytes for a reader, none at the end; None if it has to go on alone.

        Raises:
            SupplementedError: What the fetch ended with, the same for all.
        """
        progress = reader.progress
        while not reader.detached:
            spool, position = self._spool, progress.position
            block: bytes | None = b""
            if position < self.stored:
                if spool is not None and position < spool.length:
                    limit = BLOCK if len(self.readers) <= FEW else SMALL_BLOCK
                    try:
                        block = await spool.read(position, limit)
                    except SourceError:
                        break
                elif self._overflow is not None:
                    block = self._overflow.read(position)
                if block is None:
                    break
            if block:
                progress.position += len(block)
                if self._overflow is not None:
                    self._wake()
                return block
            if self._has_ended():
                return b""
            await self._wait()
        reader.detached = True
        self._wake()
        return None

    def _has_ended(self) -> bool:
        """Whether no more bytes will come; raises what the fetch ended with if it failed."""
        if self._failure is not None:
            raise _twin(self._failure)
        return self._whole

    async def leave(self, reader: SharedReader) -> None:
        """A reader goes; the last one ends a fetch that is not wanted, and waits for that."""
        self.readers.discard(reader)
        self._wake()
        if self.readers or self._task is None:
            return
        if not self._over and not self._whole and not self._is_wanted:
            await self.stop()
        elif self._over:
            await close_all(self._let_go(), f"the spool of blob {self._descriptor.digest}")

    @property
    def _is_wanted(self) -> bool:
        return self._overflow is None and self._spool is not None and self._spool.wanted

    async def stop(self) -> None:
        """End the fetch, and wait until it has let go of everything.

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
        await close_all(self._let_go(), f"the spool of blob {self._descriptor.digest}")

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


def _twin(error: Exception) -> Exception:
    return error.twin() if isinstance(error, SupplementedError) else error
