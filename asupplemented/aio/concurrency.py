"""Running many actions at a time, and joining callers that want the same result.

`for_each` runs one action for each item of a collection, a limited number at a time.
`SingleFlight` lets callers that want the same result at the same time wait for one of them
(rules PING-04, TOK-07); `SingleFlightMap` does that for each of many keys. `TaskMap` does the work
in tasks of its own, which go on when the callers leave.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from asupplemented.abc import AsyncResource
from asupplemented.errors import ClosedError, SupplementedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine

__all__ = ("SingleFlight", "SingleFlightMap", "TaskMap", "for_each")

K = TypeVar("K")
T = TypeVar("T")


async def for_each(
    items: Collection[T], action: Callable[[T], Awaitable[None]], *, limit: int
) -> None:
    """Run an action for each item, at most `limit` at a time, started in order.

    Raises:
        BaseException: The first failure. All other actions have been cancelled by then; those that
            failed as well are in its notes.
    """
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await action(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(limit, len(items))):
                group.create_task(work())
    except BaseExceptionGroup as failures:
        first, *others = failures.exceptions
        for told in dict.fromkeys(str(other) for other in others if other is not first):
            first.add_note(f"another one failed as well: {told}")
        raise first from first.__cause__


class SingleFlight(Generic[T]):
    """Joins callers that want the same result at the same time.

    The first caller does the work in its own task, so there is no task to leak. Callers that come
    meanwhile wait. They get the same result, or each a copy of the same error. If the first
    caller is cancelled, the next one does the work. Results are not kept.
    """

    __slots__ = ("_flight",)

    def __init__(self) -> None:
        self._flight: asyncio.Future[list[T] | SupplementedError] | None = None

    @property
    def idle(self) -> bool:
        """Whether no caller is doing the work."""
        return self._flight is None

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work, or wait for the caller that is doing it.

        Raises:
            SupplementedError: What the work raised.
        """
        while self._flight is not None:
            # Shielded, because a task that is cancelled cancels the future that it awaits.
            outcome = await asyncio.shield(self._flight)
            if isinstance(outcome, SupplementedError):
                raise outcome.twin()
            for result in outcome:
                return result
        return await self._lead(work)

    async def _lead(self, work: Callable[[], Awaitable[T]]) -> T:
        flight = self._flight = asyncio.get_running_loop().create_future()
        outcome: list[T] | SupplementedError = []  # Empty: cancelled, the next caller takes over.
        try:
            result = await work()
            outcome = [result]
        except SupplementedError as error:
            outcome = error.twin()
            raise
        finally:
            # Idle before the waiting callers wake up, so that one of them can take over.
            self._flight = None
            if not flight.done():
                flight.set_result(outcome)
        return result


class SingleFlightMap(Generic[K, T]):
    """One `SingleFlight` for each key, kept while a caller uses it."""

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[K, SingleFlight[T]] = {}

    async def run(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work, or wait for the caller that is doing it for the same key.

        Raises:
            SupplementedError: What the work raised.
        """
        flight = self._flights.setdefault(key, SingleFlight())
        try:
            return await flight.run(work)
        finally:
            if flight.idle and self._flights.get(key) is flight:
                del self._flights[key]

    def __len__(self) -> int:
        """Keys whose work is being done."""
        return len(self._flights)

    def __repr__(self) -> str:
        return f"<SingleFlightMap of {len(self._flights)} keys>"


class TaskMap(AsyncResource, Generic[K, T]):
    """Joins callers that want the same result, and does the work in one task for each key.

    A caller that is cancelled leaves the task alone: work that takes longer than any caller waits
    would otherwise begin again with every caller, and never end. Closing cancels all tasks and
    waits for them.

    Args:
        limit: The most tasks that run without a caller. Beyond it, a task ends with its last
            caller.
    """

    __slots__ = ("_closed", "_limit", "_running", "_tasks")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running: dict[K, _Running[T]] = {}
        self._tasks: set[asyncio.Task[T]] = set()
        """Those that run, also those that were cancelled and cannot be joined."""
        self._closed = False

    def __contains__(self, key: K) -> bool:
        """Whether a task for a key can be joined."""
        return key in self._running

    async def run(self, key: K, work: Callable[[], Coroutine[object, object, T]]) -> T:
        """Do the work, or wait for the task that is doing it for the same key.

        Raises:
            SupplementedError: What the work raised.
            ClosedError: The map was closed.
        """
        if self._closed:
            raise ClosedError("no work begins any more: its owner was closed")
        running = self._running.get(key)
        if running is None:
            running = self._start(key, work)
        running.callers += 1
        try:
            # Shielded, because a caller that is cancelled cancels the task that it awaits.
            return await asyncio.shield(running.task)
        except SupplementedError as error:
            raise error.twin() from error.__cause__
        except asyncio.CancelledError:
            if self._closed and running.task.cancelled():
                raise ClosedError("the work was cancelled: its owner was closed") from None
            raise
        finally:
            running.callers -= 1
            if not running.callers and self._abandoned() > self._limit:
                self._forget(key, running)  # so that no new caller joins a cancelled task
                running.task.cancel()

    def _start(self, key: K, work: Callable[[], Coroutine[object, object, T]]) -> _Running[T]:
        running = self._running[key] = _Running(asyncio.create_task(work()))

        def end(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            self._forget(key, running)
            if not task.cancelled():
                task.exception()  # retrieved, for there may be no caller left

        self._tasks.add(running.task)
        running.task.add_done_callback(end)
        return running

    def _forget(self, key: K, running: _Running[T]) -> None:
        if self._running.get(key) is running:
            del self._running[key]

    def _abandoned(self) -> int:
        return sum(not each.callers for each in self._running.values())

    async def aclose(self) -> None:
        """Cancel all tasks, and wait for them."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def __len__(self) -> int:
        """Tasks that can be joined."""
        return len(self._running)

    def __repr__(self) -> str:
        return f"<TaskMap of {len(self._running)} tasks>"


class _Running(Generic[T]):
    """A task, and how many callers wait for it."""

    __slots__ = ("callers", "task")

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.callers = 0
