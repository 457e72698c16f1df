"""Doing things side by side, and giving up together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

__all__ = ("run_side_by_side",)

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
