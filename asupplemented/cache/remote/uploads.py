"""Uploads to object storage, in the background and all or nothing.

An object becomes visible when it is whole, and an upload that is aborted leaves no parts behind.
`Uploads` runs a few uploads at a time, within a budget of memory, while readers go on.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio

from asupplemented.abc import AsyncResource
from asupplemented.aio.closing import CLOSE_TIMEOUT, close_all
from asupplemented.blobs.blob_file import share_blob_file
from asupplemented.cache.remote.object_blob import ask
from asupplemented.errors import TruncatedError
from asupplemented.limits import BLOCK, KIB, MIB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from obstore.store import ObjectStore as Store

    from asupplemented.abc import BlobFile
    from asupplemented.aio.threads import Workers

__all__ = (
    "AT_ONCE",
    "BUDGET",
    "PART",
    "FileReader",
    "Read",
    "UploadSource",
    "Uploads",
    "put_object",
)

PART: Final = 8 * MIB
"""Larger objects are uploaded in parts of this size, others in one piece."""

_PARTS_AT_ONCE: Final = 2
_MOST_PARTS: Final = 9000
"""S3 takes ten thousand."""
ABORT_PATIENCE: Final = 5.0
"""Seconds for an upload to remove its parts; what stays then is for the rules of the bucket."""

_SLOWEST: Final = 128 * KIB
"""Bytes per second; a slower upload is given up."""

Read: TypeAlias = Callable[[int, int], Awaitable[bytes]]
"""Gives up to so many bytes from an offset on, at least one; see `asupplemented.abc.Spool`."""


async def put_object(store: Store, key: str, size: int, read: Read, patience: float) -> None:
    """Write an object whole, in place of what is there.

    It becomes visible when it is whole. At most three parts are in memory at once.

    Args:
        store: The store.
        key: The name of the object.
        size: Bytes that it has.
        read: Gives them, in blocks of at most 1 MiB.
        patience: Seconds that it may take, besides the time for its bytes.

    Raises:
        SupplementedError: What `read` raised, or see
            `asupplemented.cache.remote.object_blob.ask`. Then, and on cancellation, there
            is no new object, nor parts that take up room.
    """
    seconds = patience + size / _SLOWEST
    if size <= PART:
        data = b"".join([block async for block in _Blocks(size, read)])
        await ask(store.put_async(key, data, use_multipart=False), seconds)
    else:
        await ask(_put_parts(store, key, size, _Blocks(size, read)), seconds)


async def _put_parts(store: Store, key: str, size: int, blocks: _Blocks) -> None:
    part = max(PART, -(-size // _MOST_PARTS))
    upload = asyncio.ensure_future(
        store.put_async(key, blocks, chunk_size=part, max_concurrency=_PARTS_AT_ONCE)
    )
    try:
        await asyncio.shield(upload)
    except asyncio.CancelledError:
        # An upload removes its parts if it fails, not if it is cancelled. So it is made to fail.
        blocks.abort()
        with anyio.move_on_after(ABORT_PATIENCE, shield=True):
            await asyncio.wait((upload,))
        if not upload.cancel():
            upload.exception()  # Retrieved, or asyncio would log it.
        raise


class _Blocks:
    """The bytes of an upload in order, until it is aborted."""

    __slots__ = ("_aborted", "_position", "_read", "_reader", "_size")

    def __init__(self, size: int, read: Read) -> None:
        self._size = size
        self._read = read
        self._position = 0
        self._aborted = False
        self._reader: asyncio.Task[object] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._position == self._size:
            raise StopAsyncIteration
        block = await self._next()
        if self._aborted or not block:
            message = f"the upload ended after {self._position} of {self._size} bytes"
            raise TruncatedError(message, received=self._position)
        self._position += len(block)
        return block

    async def _next(self) -> bytes:
        self._reader = asyncio.current_task()
        try:
            return await self._read(self._position, min(BLOCK, self._size - self._position))
        finally:
            self._reader = None

    def abort(self) -> None:
        """Have the next block fail, or the one that is being read."""
        self._aborted = True
        if self._reader is not None:
            self._reader.cancel()


AT_ONCE: Final = 4
"""Uploads under way; each may have three parts of a blob in memory."""

BUDGET: Final = 64 * MIB
"""Bytes that all uploads may hold in memory: a manifest its size, a blob one block."""


class UploadSource(AsyncResource):
    """The bytes of one upload."""

    __slots__ = ()

    @abc.abstractmethod
    async def read(self, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start` on, at least one.

        Raises:
            SupplementedError: It cannot be read any more.
        """


class FileReader(UploadSource):
    """Reads the file of a blob in threads that may outlast a session.

    Args:
        workers: The threads.
        file: What to read; it is closed with the reader.
    """

    __slots__ = ("_file", "_workers")

    def __init__(self, workers: Workers, file: BlobFile) -> None:
        self._workers = workers
        self._file = share_blob_file(file)

    async def read(self, start: int, size: int) -> bytes:
        reading = partial(self._file.read, start, min(size, BLOCK))
        return await asyncio.wrap_future(self._workers.submit(reading))

    async def aclose(self) -> None:
        self._file.close()


class Uploads(AsyncResource):
    """Uploads in the background, a few at a time. Closing waits for them, and then cancels them.

    Args:
        patience: Seconds to wait for them when closing.
    """

    __slots__ = ("_closed", "_patience", "_slots", "_tasks", "_weight")

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._weight = 0
        self._closed = False

    def start(
        self,
        work: Callable[[], Coroutine[object, object, None]],
        resources: Sequence[AsyncResource] = (),
        *,
        weight: int,
        dropped: Callable[[], None],
    ) -> bool:
        """Begin an upload, now or when others have ended.

        Args:
            work: Uploads, and reports its own failures.
            resources: What it needs; closed when it ends, in whatever way.
            weight: Bytes that it holds in memory.
            dropped: Called if `aclose` cancels it, started or not.

        Returns:
            False if the budget is used up, or this is closed. The caller then still owns the
            resources.
        """
        if self._closed or self._weight + weight > BUDGET:
            return False
        self._weight += weight
        task = asyncio.create_task(self._run(work, tuple(resources), weight, dropped))
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return True

    @property
    def closed(self) -> bool:
        """Whether no more uploads are started."""
        return self._closed

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # Retrieved: uploads report their own failures.

    async def aclose(self) -> None:
        self._closed = True
        tasks = set(self._tasks)
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=self._patience)
        finally:
            for task in tasks:
                task.cancel()
            with anyio.move_on_after(2 * CLOSE_TIMEOUT, shield=True):
                await asyncio.gather(*tasks, return_exceptions=True)

    def __repr__(self) -> str:
        return f"<Uploads: {len(self._tasks)} wait or run>"

    async def _run(
        self,
        work: Callable[[], Coroutine[object, object, None]],
        resources: Sequence[AsyncResource],
        weight: int,
        dropped: Callable[[], None],
    ) -> None:
        try:
            async with self._slots:
                await work()
        except asyncio.CancelledError:
            dropped()
            raise
        finally:
            self._weight -= weight
            await close_all(resources, "the resources of an upload")
