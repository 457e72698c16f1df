"""Running many actions at a time, and joining callers that want the same result.

`for_each` runs one action for each item of a collection, a limited number at a time.
`SingleFlight` lets callers that want the same result at the same time wait for one of them
(rules PING-04, TOK-07); `SingleFlightMap` does that for each of many keys.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from asupplemented.errors import SupplementedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

__all__ = ("SingleFlight", "SingleFlightMap", "for_each")

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
