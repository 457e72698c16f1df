"""Writing many files into one directory tree: small ones in batches, large ones in blocks.

Theory of operation
-------------------

A hop to a thread costs as much as writing a small file. So a small file is made, written, synced
and renamed in one hop, and all small files that come while a hop is running wait for it and share
the next one. One at a time, each takes one hop; many at a time take few. If many wait, the disk is
slow to sync, and several batches are under way, because a journal syncs what comes at the same time
together. A batch is written as a whole, then synced, then renamed. No name appears before its bytes
are on the disk.

A file that cannot be written fails alone. A caller that is cancelled waits for the end of the hop
that has its file, which is then not published, unless that has happened.

A large file takes one hop for each 2 MiB (`asupplemented.aio.atomic.StagedFile`). A thread writes
one such piece while the stream fetches and hashes the next one, and no more than that.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from asupplemented.aio.atomic import StagedFile
from asupplemented.aio.files import read_limited
from asupplemented.aio.threads import (
    WORKERS,
    Workers,
    call_off,
    run_blocking,
    run_closing,
    run_opening,
)
from asupplemented.errors import ClosedError, SupplementedError, UsageError
from asupplemented.limits import MIB, SMALL_BLOB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from asupplemented.abc import BlobStream, Context

__all__ = ("FileWriter", "holds")

PIECE: Final = 2 * MIB
"""Bytes of a large file that are written at once."""

MANY: Final = 8
"""Files that wait before another batch begins beside those that are under way."""

MAX_BATCHES: Final = 4
"""Batches at the same time."""

_CLOSED: Final = "the session is closed, and writes no more files; make a new session"


class FileWriter:
    """Writes files that become visible when they are whole. It belongs to one event loop.

    Args:
        context: The session, whose threads write.
        staging: Where files lie until they are published: on the file system of their targets.
        root: See `StagedFile.create`.
        durable: Whether the bytes are on the disk before a file is published.
    """

    __slots__ = ("_context", "_durable", "_root", "_running", "_staging", "_waiting")

    def __init__(
        self, context: Context, *, staging: Path, root: Path | None = None, durable: bool = True
    ) -> None:
        self._context = context
        self._staging = staging
        self._root = root
        self._durable = durable
        self._waiting: list[_SmallFile] = []
        self._running = 0
        """Batches under way."""

    async def ingest(
        self,
        stream: BlobStream,
        target: Path,
        *,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> int:
        """Write an entered stream to its end, and publish the file when it is verified.

        Args:
            stream: A whole blob, not a range of one. The stream verifies it.
            target: Where the file goes, in place of what is there.
            before: Called when the blob is verified, before the file is published.

        Returns:
            Bytes written.

        Raises:
            UsageError: The stream ended without having verified a whole blob.
            SupplementedError: What the stream raises, and see
                `asupplemented.aio.files.map_write_errors`. On any error, and on cancellation,
                nothing of the blob stays.
        """
        chunks, size = await _gather(stream)
        if size > SMALL_BLOB:
            return await self._ingest_large(stream, target, chunks, before)
        _check_whole(stream)
        if before is not None:
            await before()
        await self._write(_SmallFile(target, chunks))
        return size

    async def write(self, target: Path, data: bytes) -> None:
        """Write a small file, unless it has these bytes already.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`; what was there before still
                is.
        """
        await self._write(_SmallFile(target, (data,), keep=True))

    async def _write(self, file: _SmallFile) -> None:
        self._waiting.append(file)
        self._start_if_worth_it()
        try:
            failure = await asyncio.shield(file.done)
        except asyncio.CancelledError:
            file.aborted = True
            if file in self._waiting:
                self._waiting.remove(file)
            else:
                with anyio.CancelScope(shield=True):
                    await asyncio.wait((file.done,))
            raise
        if isinstance(failure, ClosedError):
            raise failure.twin()  # that of all files which waited
        if failure is not None:
            raise failure

    def _start_if_worth_it(self) -> None:
        many = len(self._waiting) >= MANY and self._running < MAX_BATCHES
        if self._waiting and (many or not self._running):
            self._start()

    def _start(self) -> None:
        """Write all files that wait, in one hop."""
        batch, self._waiting = self._waiting, []
        write = partial(
            _write_batch, batch, staging=self._staging, root=self._root, durable=self._durable
        )
        try:
            hop = asyncio.wrap_future(self._context.resource(WORKERS, Workers).submit(write))
        except ClosedError as error:
            _resolve(batch, error)
            return
        self._running += 1
        hop.add_done_callback(partial(self._finish, batch))

    def _finish(self, batch: Sequence[_SmallFile], hop: asyncio.Future[None]) -> None:
        self._running -= 1
        if hop.cancelled():  # It was still waiting for a thread.
            _resolve(batch, ClosedError(_CLOSED))
        else:
            _resolve(batch, hop.exception())
        self._start_if_worth_it()

    async def _ingest_large(
        self,
        stream: BlobStream,
        target: Path,
        begun: Sequence[bytes],
        before: Callable[[], Awaitable[None]] | None,
    ) -> int:
        context = self._context
        create = partial(StagedFile.create, self._staging, root=self._root)
        staged = await run_opening(context, create, StagedFile.close)
        try:
            size = await _drain(context, stream, staged, begun)
            _check_whole(stream)
            if before is not None:
                await before()
            await run_blocking(context, _publish, staged, target, durable=self._durable)
        except BaseException:  # a cancellation, too, must leave no staged file
            await run_closing(context, staged.close)
            raise
        return size


class _SmallFile:
    """A file to write in one hop.

    Attributes:
        target: Its name.
        chunks: Its bytes.
        keep: Whether a file that has these bytes stays as it is.
        aborted: Whether the caller was cancelled.
        failure: Why it could not be written.
        done: Resolved in the end, with the failure.
    """

    __slots__ = ("_staged", "aborted", "chunks", "done", "failure", "keep", "target")

    def __init__(self, target: Path, chunks: Sequence[bytes], *, keep: bool = False) -> None:
        self.target = target
        self.chunks = chunks
        self.keep = keep
        self.aborted = False
        self.failure: BaseException | None = None
        self.done: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._staged: StagedFile | None = None

    def stage(self, staging: Path, root: Path | None) -> None:
        """Make and write it."""
        if self.aborted or (self.keep and holds(self.target, b"".join(self.chunks))):
            return
        self._staged = StagedFile.create(staging, root=root)
        self._staged.write(0, *self.chunks)

    def sync(self) -> None:
        """Have its bytes on the disk: otherwise a power failure may leave a name without them."""
        if self._staged is not None and not self.aborted:
            self._staged.sync()

    def publish(self) -> None:
        """Give it its name."""
        if self._staged is not None and not self.aborted:
            self._staged.publish(self.target)

    def close(self) -> None:
        """Close it, and remove it if it has no name."""
        if self._staged is not None:
            self._staged.close()


def _write_batch(
    batch: Sequence[_SmallFile], *, staging: Path, root: Path | None, durable: bool
) -> None:
    """Write small files; failures are kept with them. Blocking."""
    try:
        _for_each_sound(batch, lambda file: file.stage(staging, root))
        if durable:
            _for_each_sound(batch, _SmallFile.sync)
        _for_each_sound(batch, _SmallFile.publish)
    finally:
        for file in batch:
            file.close()


def _for_each_sound(batch: Sequence[_SmallFile], step: Callable[[_SmallFile], None]) -> None:
    for file in batch:
        if file.failure is None:
            try:
                step(file)
            except (SupplementedError, OSError) as error:
                file.failure = error


def _resolve(batch: Sequence[_SmallFile], failure: BaseException | None) -> None:
    for file in batch:
        if not file.done.done():
            file.done.set_result(file.failure or failure)


def holds(path: Path, data: bytes) -> bool:
    """Whether there is a file with exactly these bytes, and not a link to one. Blocking."""
    try:
        return read_limited(path, len(data), follow=False) == data
    except SupplementedError:
        return False


async def _gather(stream: BlobStream) -> tuple[list[bytes], int]:
    """Read a stream to its end, or until more than ``SMALL_BLOB`` bytes have come."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in stream:
        chunks.append(chunk)
        size += len(chunk)
        if size > SMALL_BLOB:
            break
    return chunks, size


async def _drain(
    context: Context, stream: BlobStream, staged: StagedFile, begun: Sequence[bytes]
) -> int:
    """Write a stream to its end, in pieces that are worth the hop to a thread.

    Args:
        context: The session, whose threads write.
        stream: The stream.
        staged: Where to.
        begun: What was read of it before.
    """
    workers = context.resource(WORKERS, Workers)
    writing = workers.submit(partial(staged.write, 0, *begun))
    written = sum(map(len, begun))
    piece: list[bytes] = []
    size = 0
    try:
        async for chunk in stream:
            piece.append(chunk)
            size += len(chunk)
            if size >= PIECE:
                await workers.wait(writing)
                writing = workers.submit(partial(staged.write, written, *piece))
                written += size
                piece, size = [], 0
        await workers.wait(writing)
    except BaseException:  # a cancellation, too: the file is closed next, and not below a write
        await call_off(writing)
        raise
    if piece:
        await run_blocking(context, staged.write, written, *piece)
    return written + size


def _check_whole(stream: BlobStream) -> None:
    if stream.verified is not True:
        message = "only a whole, verified blob can be written, not a range of one"
        raise UsageError(message, digest=stream.descriptor.digest)


def _publish(staged: StagedFile, target: Path, *, durable: bool) -> None:
    # Synced before it is renamed: otherwise a power failure may leave a name without bytes.
    if durable:
        staged.sync()
    staged.publish(target)
    staged.close()
