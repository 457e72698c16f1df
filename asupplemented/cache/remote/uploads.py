"""Uploads that go on behind the back of those who have what they wanted."""

from __future__ import annotations

import abc
import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from asupplemented.abc import AsyncResource
from asupplemented.aio.closing import CLOSE_TIMEOUT, close_all
from asupplemented.blobs.blob_files import BlockReader
from asupplemented.limits import BLOCK, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from asupplemented.abc import BlobFile
    from asupplemented.aio.files import Workers

__all__ = ("AT_ONCE", "BUDGET", "FileReader", "UploadSource", "Uploads")

AT_ONCE: Final = 4
"""Uploads under way; each may have three parts of a blob in memory."""

BUDGET: Final = 64 * MIB
"""What all that wait and run may weigh: manifests by their size, blobs by their block."""


class UploadSource(AsyncResource):
    """What is uploaded."""

    __slots__ = ()

    @abc.abstractmethod
    async def read(self, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start` on, at least one.

        Raises:
            SupplementedError: It cannot be read any more.
        """


class FileReader(UploadSource):
    """Reads the file of a blob in threads that outlast a session.

    Args:
        workers: The threads.
        file: What to read; it is closed with the reader.
    """

    __slots__ = ("_blocks", "_workers")

    def __init__(self, workers: Workers, file: BlobFile) -> None:
        self._workers = workers
        self._blocks = BlockReader(file)

    async def read(self, start: int, size: int) -> bytes:
        reading = partial(self._blocks.read, start, min(size, BLOCK))
        return await asyncio.wrap_future(self._workers.submit(reading))

    async def aclose(self) -> None:
        self._blocks.close()


class Uploads(AsyncResource):
    """Tasks in the background, a few at a time. Closing waits for them, and then ends them.

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
            work: Uploads, and says itself what went wrong.
            resources: What it needs; closed when it has ended, however it ends.
            weight: What it holds in memory, in bytes.
            dropped: Called if it is ended by `aclose`, begun or not.

        Returns:
            False if there is too much to do already, or no more is begun; then the resources
            are the caller's still.
        """
        if self._closed or self._weight + weight > BUDGET:
            return False
        self._weight += weight
        task = asyncio.create_task(self._run(work, tuple(resources), weight, dropped))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    @property
    def closed(self) -> bool:
        """Whether no more is begun."""
        return self._closed

    @property
    def count(self) -> int:
        """Uploads that wait or run."""
        return len(self._tasks)

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
            await close_all(resources, "what an upload needed")
