"""Doing things side by side, and giving up together.

Single flight: many want the same, one fetches it (rules PING-04, TOK-07).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from asupplemented.errors import SupplementedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

__all__ = ("Flights", "SingleFlight", "run_side_by_side")

K = TypeVar("K")
T = TypeVar("T")


async def run_side_by_side(
    items: Collection[T], limit: int, action: Callable[[T], Awaitable[None]]
) -> None:
    """Do something with each item, `limit` at a time, beginning in order.

    Raises:
        BaseException: The first failure. All others were cancelled by then; those that failed as
            well are in its notes.
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
    """Joins callers that want the same thing at the same time.

    The first caller does the work in its own task, so there is no task to leak. Those who come
    meanwhile wait: a result is theirs too, and so is an error, each getting a copy of it. If
    the first one is cancelled, the next one does the work. Nothing is remembered beyond that.
    """

    __slots__ = ("_flight",)

    def __init__(self) -> None:
        self._flight: asyncio.Future[list[T] | SupplementedError] | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody is at work."""
        return self._flight is None

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work, or wait for who does it.

        Raises:
            SupplementedError: What the work raised.
        """
        while self._flight is not None:
            # Shielded, because who is cancelled while it awaits a future cancels the future.
            outcome = await asyncio.shield(self._flight)
            if isinstance(outcome, SupplementedError):
                raise outcome.twin()
            for result in outcome:
                return result
        return await self._lead(work)

    async def _lead(self, work: Callable[[], Awaitable[T]]) -> T:
        flight = self._flight = asyncio.get_running_loop().create_future()
        outcome: list[T] | SupplementedError = []
        try:
            result = await work()
            outcome = [result]
        except SupplementedError as error:
            outcome = error.twin()
            raise
        finally:
            self._flight = None
            if not flight.done():
                flight.set_result(outcome)
        return result


class Flights(Generic[K, T]):
    """A single flight for each of many things, by key."""

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[K, SingleFlight[T]] = {}

    async def run(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work, or wait for who does it for the same key.

        Raises:
            SupplementedError: What the work raised.
        """
        flight = self._flights.setdefault(key, SingleFlight())
        try:
            return await flight.run(work)
        finally:
            if flight.idle and self._flights.get(key) is flight:
                del self._flights[key]
