"""Hashing in threads, beside the event loop.

A hop to a thread and back for each chunk of a body costs more than hashing it. So chunks are put
into the queue of a hashing thread, and a stream waits only if it is too far ahead of the thread.
Small bodies are hashed on the event loop, because handing them over costs more than it saves.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from asupplemented.abc import AsyncResource, ResourceKey
from asupplemented.aio.threads import usable_cores
from asupplemented.errors import ClosedError
from asupplemented.limits import OFFLOAD_BYTES
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from asupplemented.abc import Context
    from asupplemented.model.digest import Hasher

__all__ = ("HASHING", "Hashing", "RunningHash", "resolve_future", "start_hash")

MAX_THREADS: Final = 4
"""Threads that hash; beyond that the event loop cannot feed them."""

WINDOW_MAX: Final = 4 * 1024 * 1024
"""Bytes that one stream may be ahead of its thread, when there are few streams."""

WINDOW_MIN: Final = 512 * 1024
"""The same, however many streams there are."""

WINDOW_TOTAL: Final = 16 * 1024 * 1024
"""What the windows of all streams share."""

HASHING: Final = ResourceKey["Hashing"]("threads for hashing")


def start_hash(context: Context, digest: Digest) -> RunningHash:
    """Begin to hash a body, in the threads of a session.

    Args:
        context: The session.
        digest: What the body should turn out to be; its algorithm is used.

    Raises:
        ClosedError: The session is closed.
    """
    return context.resource(HASHING, Hashing).start(digest)


class Hashing(AsyncResource):
    """The hashing threads of a session: one for each core, up to 4.

    They are started when they are needed: the second one when a second body is hashed at the same
    time. The event loop has no core of its own, because it waits while all threads hash. With one
    core, everything is hashed on the event loop.

    Args:
        threads: How many to use instead, 0 for none.
    """

    __slots__ = ("_closed", "_limit", "_running", "_threads")

    def __init__(self, threads: int | None = None) -> None:
        if threads is None:
            cores = usable_cores()
            threads = min(MAX_THREADS, cores) if cores > 1 else 0
        self._limit = threads
        self._threads: list[_HashThread] = []
        self._running: set[RunningHash] = set()
        self._closed = False

    def start(self, digest: Digest) -> RunningHash:
        """Begin to hash a body of its own.

        Raises:
            ClosedError: The threads have ended.
        """
        if self._closed:
            raise _ended()
        running = RunningHash(self, digest)
        self._running.add(running)
        return running

    def choose_thread(self) -> _HashThread | None:
        """The thread with the fewest bodies, None if there is no core for one."""
        if self._closed:
            raise _ended()
        idle = min(self._threads, key=lambda thread: thread.bodies, default=None)
        if (idle is None or idle.bodies) and len(self._threads) < self._limit:
            idle = _HashThread(len(self._threads))
            self._threads.append(idle)
        return idle

    @property
    def window(self) -> int:
        """Bytes that each body may be ahead of its thread."""
        share = WINDOW_TOTAL // max(1, len(self._running))
        return min(WINDOW_MAX, max(WINDOW_MIN, share))

    def forget(self, running: RunningHash) -> None:
        """A body is done with."""
        self._running.discard(running)

    async def aclose(self) -> None:
        """End the threads. Bodies that are still being hashed fail with `ClosedError`."""
        self._closed = True
        for running in tuple(self._running):
            running.discard()
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.stop()
        for thread in threads:
            await thread.join()


class RunningHash:
    """The hash of one body, fed front to back. Made by `start_hash`.

    It ends with `finish` or `discard`. One task feeds it.
    """

    __slots__ = (
        "_ahead",
        "_digest",
        "_discarded",
        "_failure",
        "_hasher",
        "_hashing",
        "_inline",
        "_lock",
        "_parts",
        "_parts_size",
        "_thread",
        "_threshold",
        "_waiter",
    )

    def __init__(self, hashing: Hashing, digest: Digest) -> None:
        self._hashing = hashing
        self._digest = digest
        self._hasher = digest.hasher()
        self._inline = 0
        self._thread: _HashThread | None = None
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._discarded = False
        self._failure: Exception | None = None
        # Shared with the thread, under the lock:
        self._lock = threading.Lock()
        self._ahead = 0
        self._threshold = 0
        self._waiter: Callable[[], None] | None = None

    async def update(self, chunk: bytes) -> None:
        """Append a chunk. It must not change afterwards.

        Waits only while the thread is a whole window behind.

        Raises:
            ClosedError: The hash was discarded, or the session closed.
        """
        self._check()
        if self._thread is None and not self._leave(len(chunk)):
            self._hasher.update(chunk)
            return
        self._parts.append(chunk)
        self._parts_size += len(chunk)
        if self._parts_size >= OFFLOAD_BYTES:
            self._hand_over()
            window = self._hashing.window
            if self._ahead > window:
                await self._wait_for(window // 2)

    async def settle(self) -> Hasher:
        """Wait until everything is hashed.

        Returns:
            The hash itself. The caller may update it until the next call of a method here.

        Raises:
            ClosedError: The hash was discarded, or the session closed.
        """
        self._check()
        if self._thread is not None:
            self._hand_over()
            await self._wait_for(0)
        return self._hasher

    async def finish(self) -> Digest:
        """The digest of everything, by the algorithm of the digest that it began with.

        Raises:
            ClosedError: The hash was discarded, or the session closed.
        """
        hasher = await self.settle()
        self.discard()
        return Digest(f"{self._digest.algorithm}:{hasher.hexdigest()}")

    def discard(self) -> None:
        """Drop the hash. May be called at any time and again; callers that wait for it fail."""
        if self._discarded:
            return
        self._discarded = True
        self._parts.clear()
        self._hashing.forget(self)
        if self._thread is not None:
            self._thread.bodies -= 1
        with self._lock:
            wake, self._waiter = self._waiter, None
        if wake is not None:
            wake()

    def work(self, chunk: bytes) -> None:
        """Hash a chunk; called in the thread."""
        try:
            if not self._discarded:
                self._hasher.update(chunk)
        except Exception as error:  # noqa: BLE001 - raised where the body is fed
            self._failure = error
        with self._lock:
            self._ahead -= len(chunk)
            if self._waiter is None or self._ahead > self._threshold:
                return
            wake, self._waiter = self._waiter, None
        wake()

    def _leave(self, size: int) -> bool:
        """Whether the body has become large enough to leave the event loop, and can."""
        self._inline += size
        if self._inline <= OFFLOAD_BYTES:
            return False
        self._thread = self._hashing.choose_thread()
        if self._thread is None:
            return False
        self._thread.bodies += 1
        return True

    def _hand_over(self) -> None:
        # One large piece instead of many small ones: each costs the thread a turn at the lock
        # of the interpreter.
        if self._parts and self._thread is not None:
            chunk = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._parts_size = 0
            with self._lock:
                self._ahead += len(chunk)
            self._thread.put(self, chunk)

    async def _wait_for(self, threshold: int) -> None:
        """Wait until the thread is at most so many bytes behind."""
        loop = asyncio.get_running_loop()
        reached = loop.create_future()

        def wake() -> None:
            with suppress(RuntimeError):  # The loop was closed, and so no caller waits.
                loop.call_soon_threadsafe(resolve_future, reached)

        with self._lock:
            if self._ahead <= threshold:
                return
            self._threshold = threshold
            self._waiter = wake
        await reached
        self._check()

    def _check(self) -> None:
        if self._discarded:
            raise _ended()
        if self._failure is not None:
            raise self._failure


class _HashThread:
    """A daemon thread with a queue, until it is stopped."""

    __slots__ = ("_ended", "_loop", "_queue", "_thread", "bodies")

    def __init__(self, number: int) -> None:
        self.bodies = 0
        """Bodies that are pinned to the thread, so that their chunks stay in order."""
        self._queue: SimpleQueue[tuple[RunningHash, bytes] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(
            target=self._run, name=f"asupplemented-hash-{number}", daemon=True
        )
        self._thread.start()

    def put(self, running: RunningHash, chunk: bytes) -> None:
        self._queue.put((running, chunk))

    def stop(self) -> None:
        """End the thread behind what is in its queue."""
        self._queue.put(None)

    async def join(self) -> None:
        """Wait for the end of the thread, without blocking the event loop."""
        await asyncio.shield(self._ended)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work[0].work(work[1])
            del work  # The chunk must not stay alive until there is another one.
        with suppress(RuntimeError):  # The loop was closed without closing the session.
            self._loop.call_soon_threadsafe(resolve_future, self._ended)


def resolve_future(future: asyncio.Future[None]) -> None:
    """Resolve a future that may be done already, for ``call_soon_threadsafe``."""
    if not future.done():
        future.set_result(None)


def _ended() -> ClosedError:
    return ClosedError("the blob or its session has been closed while the blob was being read")
