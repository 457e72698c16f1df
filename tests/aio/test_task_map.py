"""Work that is done once for all callers, and goes on when they leave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.concurrency import TaskMap
from asupplemented.errors import ClosedError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Work:
    """Work that ends when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.end = asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "done"


def start(
    tasks: TaskMap[str, str], key: str, work: Callable[[], Coroutine[object, object, str]]
) -> asyncio.Task[str]:
    return asyncio.create_task(tasks.run(key, work))


async def leave(caller: asyncio.Task[str]) -> None:
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_callers_of_a_key_share_one_task() -> None:
    async with TaskMap[str, str](4) as tasks:
        work = Work()
        callers = [start(tasks, "a", work) for _ in range(5)]
        await asyncio.sleep(0)
        work.end.set()
        assert await asyncio.gather(*callers) == ["done"] * 5
        assert work.begun == 1
        assert await tasks.run("a", work) == "done"
        assert work.begun == 2
        await asyncio.sleep(0)
        assert len(tasks) == 0


async def test_each_caller_gets_an_error_of_its_own() -> None:
    async def fail() -> str:
        await asyncio.sleep(0)
        raise NetworkError("broken")

    async with TaskMap[str, str](4) as tasks:
        callers = [start(tasks, "a", fail) for _ in range(2)]
        first, second = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(first, NetworkError)
    assert isinstance(second, NetworkError)
    assert first is not second


async def test_work_goes_on_when_its_callers_leave() -> None:
    async with TaskMap[str, str](4) as tasks:
        work = Work()
        caller = start(tasks, "a", work)
        await asyncio.sleep(0)
        await leave(caller)
        joined = start(tasks, "a", work)
        await asyncio.sleep(0)
        work.end.set()
        assert await joined == "done"
        assert (work.begun, work.cancelled) == (1, 0)


async def test_tasks_without_callers_are_bounded() -> None:
    async with TaskMap[str, str](2) as tasks:
        works = [Work() for _ in range(5)]
        callers = [start(tasks, str(n), work) for n, work in enumerate(works)]
        await asyncio.sleep(0)
        for caller in callers:
            await leave(caller)
        assert len(tasks) == 2
        again = start(tasks, "4", works[4])  # the cancelled task is not joined
        await asyncio.sleep(0)
        works[4].end.set()
        assert await again == "done"
        assert [work.cancelled for work in works] == [0, 0, 1, 1, 1]


async def test_closing_cancels_the_tasks_and_tells_the_callers() -> None:
    tasks = TaskMap[str, str](4)
    work = Work()
    caller = start(tasks, "a", work)
    await asyncio.sleep(0)  # the caller begins
    await asyncio.sleep(0)  # the task begins
    await tasks.aclose()
    assert work.cancelled == 1
    with pytest.raises(ClosedError):
        await caller
    with pytest.raises(ClosedError):
        await tasks.run("a", work)
    await tasks.aclose()


async def test_a_failure_without_a_caller_is_no_noise() -> None:
    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    end = asyncio.Event()

    async def fail() -> str:
        await end.wait()
        raise NetworkError("broken")

    async with TaskMap[str, str](4) as tasks:
        caller = start(tasks, "a", fail)
        await asyncio.sleep(0)
        await leave(caller)
        end.set()
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(tasks) == 0
    assert heard == []
