"""Deadlines that share a timer."""

from __future__ import annotations

import asyncio

import pytest

from asupplemented.transports.registry.deadlines import Deadlines
from tests.suspending import run_leaping


def me() -> asyncio.Task[object]:
    task: asyncio.Task[object] | None = asyncio.current_task()
    assert task is not None
    return task


async def wait(deadlines: Deadlines, seconds: float) -> str:
    """Wait so long, watched."""
    task = me()
    before = task.cancelling()
    deadlines.begin(task)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if deadlines.end(task) and task.cancelling() <= before:
            return "too late"
        raise
    deadlines.end(task)
    return "in time"


def test_waits_end_in_time_or_are_cut_off_exactly() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(10)
        assert await wait(deadlines, 9) == "in time"
        began = loop.time()
        assert await wait(deadlines, 11) == "too late"
        assert loop.time() == pytest.approx(began + 10, abs=1e-3)
        assert len(deadlines) == 0
        assert me().cancelling() == 0

    run_leaping(main)


def test_many_waits_each_have_their_own_end() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(10)
        ends: dict[int, float] = {}

        async def late(number: int) -> str:
            await asyncio.sleep(number)
            outcome = await wait(deadlines, 9 if number % 2 else 99)
            ends[number] = loop.time()
            return outcome

        start = loop.time()
        outcomes = await asyncio.gather(*(late(number) for number in range(20)))
        assert outcomes == ["too late", "in time"] * 10
        expected = {n: start + n + (9 if n % 2 else 10) for n in range(20)}
        assert ends == pytest.approx(expected, abs=1e-3)

    run_leaping(main)


def test_beginning_anew_starts_the_wait_over() -> None:
    async def main() -> None:
        deadlines = Deadlines(10)
        deadlines.begin(me())
        await asyncio.sleep(8)
        deadlines.begin(me())
        await asyncio.sleep(8)
        assert deadlines.end(me()) is False

    run_leaping(main)


def test_a_cancellation_from_outside_is_not_swallowed() -> None:
    async def main() -> None:
        deadlines = Deadlines(10)
        task = asyncio.create_task(wait(deadlines, 20))
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(deadlines) == 0

    run_leaping(main)


def test_a_cancellation_from_outside_at_the_same_moment_wins() -> None:
    async def main() -> None:
        deadlines = Deadlines(10)
        task = asyncio.create_task(wait(deadlines, 20))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(10, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    run_leaping(main)


def test_no_limit_is_no_limit() -> None:
    async def main() -> None:
        deadlines = Deadlines(None)
        assert await wait(deadlines, 1e6) == "in time"
        deadlines.close()

    run_leaping(main)


def test_closing_stops_the_timer() -> None:
    async def main() -> None:
        deadlines = Deadlines(10)
        deadlines.begin(me())
        deadlines.close()
        await asyncio.sleep(20)
        assert me().cancelling() == 0

    run_leaping(main)
