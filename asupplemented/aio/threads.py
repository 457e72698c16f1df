"""Blocking calls in the threads of a session, off the event loop.

A hop to a thread costs about as much as reading 200 KiB, so callers hand over work in pieces that
are worth it: a whole batch of small files, or a block of a large one. The threads belong to the
session, because those of the event loop are few and names are looked up in them.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar, cast

import anyio

from asupplemented.abc import AsyncResource, ResourceKey
from asupplemented.errors import ClosedError
from asupplemented.limits import OFFLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from asupplemented.abc import Context

__all__ = (
    "WORKERS",
    "Workers",
    "call_off",
    "run_blocking",
    "run_by_size",
    "run_closing",
    "run_opening",
    "usable_cores",
)

P = ParamSpec("P")
T = TypeVar("T")

MAX_WORKERS: Final = 8
"""Threads for files; more of them only wait for each other."""


def usable_cores() -> int:
    """Cores that this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


class Workers(AsyncResource):
    """The threads of a session for blocking work: two for each core, 2 to 8 in all."""

    __slots__ = ("_executor", "_readers", "_running")

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(
            min(MAX_WORKERS, 2 * usable_cores()), thread_name_prefix="asupplemented-file"
        )
        self._running: set[Future[object]] = set()
        self._readers = 0

    def submit(self, func: Callable[[], T]) -> Future[T]:
        """Start a call in a thread. May be called from such a thread, too.

        Raises:
            ClosedError: The session is closed.
        """
        try:
            future = self._executor.submit(func)
        except RuntimeError as error:
            raise _closed() from error
        self._running.add(cast("Future[object]", future))
        future.add_done_callback(self._running.discard)
        return future

    def add_reader(self) -> int:
        """Count one more file that is read or written at length; gives how many there are now."""
        self._readers += 1
        return self._readers

    def remove_reader(self) -> None:
        """Count one file less."""
        self._readers -= 1

    async def run(self, func: Callable[[], T]) -> T:
        """Call a function in a thread and wait for it; see `run_blocking`.

        Raises:
            ClosedError: The session is closed.
        """
        return await _result(self.submit(func))

    async def wait(self, future: Future[T]) -> T:
        """Wait for a call that `submit` has started. It goes on if the caller is cancelled.

        Raises:
            ClosedError: The session was closed before the call could begin.
        """
        return await _result(future, lasting=True)

    async def aclose(self) -> None:
        """Wait for the calls that are running, and end the threads; the queue is dropped."""
        # In three steps, so that the event loop is never blocked: empty the queue, wait for what
        # is running, and join threads that are idle by then.
        self._executor.shutdown(wait=False, cancel_futures=True)
        running = [asyncio.wrap_future(future) for future in tuple(self._running)]
        await asyncio.gather(*running, return_exceptions=True)
        self._executor.shutdown()

    def __repr__(self) -> str:
        return f"<Workers: {len(self._running)} calls, {self._readers} readers>"


WORKERS: Final = ResourceKey["Workers"]("threads for files")


async def run_blocking(
    context: Context, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a function in a worker thread.

    When the caller is cancelled, a call that has begun runs to its end, and its result is
    dropped. Use `run_opening` for results that must be released.

    Args:
        context: The session, whose threads are used.
        func: What to call.
        *args: Its arguments.
        **kwargs: Its keyword arguments.

    Raises:
        ClosedError: The session is closed.
    """
    return await context.resource(WORKERS, Workers).run(partial(func, *args, **kwargs))


async def run_by_size(context: Context, size: int, func: Callable[[], T]) -> T:
    """Call a function that works on a document: in a thread if that is large.

    Args:
        context: The session, whose threads are used.
        size: Bytes of the document.
        func: What to call.
    """
    return await run_blocking(context, func) if size > OFFLOAD_BYTES else func()


async def run_opening(context: Context, func: Callable[[], T], release: Callable[[T], object]) -> T:
    """Call a function in a worker thread that returns something to be released.

    Args:
        context: The session, whose threads are used.
        func: Opens something.
        release: Called with the result, in any thread, if the caller was cancelled meanwhile.

    Raises:
        ClosedError: The session is closed.
    """
    future = context.resource(WORKERS, Workers).submit(func)

    def drop(done: Future[T]) -> None:
        if not done.cancelled() and done.exception() is None:
            release(done.result())

    try:
        return await _result(future)
    except BaseException:
        # Also if the result has arrived, but the caller was cancelled before it could take it.
        future.add_done_callback(drop)
        raise


async def run_closing(context: Context, func: Callable[[], object]) -> None:
    """Call a function that must run, in a worker thread if there still is one.

    It runs even if the caller is cancelled, or the session is closed, before its turn comes. The
    caller waits for it unless it is cancelled.

    Args:
        context: The session, whose threads are used.
        func: Releases something, and does not raise.
    """
    try:
        future = context.resource(WORKERS, Workers).submit(func)
    except ClosedError:
        func()
        return
    future.add_done_callback(lambda done: func() if done.cancelled() else None)
    with anyio.CancelScope(shield=True), suppress(ClosedError):
        await _result(future, lasting=True)


async def call_off(future: Future[T]) -> None:
    """Cancel a call of `Workers.submit` that waits for a thread; wait for the end of any other."""
    future.cancel()
    if not future.done():
        with anyio.CancelScope(shield=True):
            await asyncio.gather(asyncio.wrap_future(future), return_exceptions=True)


async def _result(future: Future[T], *, lasting: bool = False) -> T:
    """Wait for a call.

    Args:
        future: The call.
        lasting: Whether a call in the queue still runs if the caller is cancelled.
    """
    waiting = asyncio.wrap_future(future)
    try:
        return await (asyncio.shield(waiting) if lasting else waiting)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if future.cancelled() and task is not None and not task.cancelling():
            raise _closed() from error  # It was still waiting for a thread.
        raise


def _closed() -> ClosedError:
    return ClosedError("the session is closed, and reads no more files; make a new session")
