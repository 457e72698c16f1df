"""Waits end when they last too long, bodies when they are too slow (rule SEC-07)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.timers import MinRate, WaitTimer, WaitTimers
from asupplemented.errors import SourceTimeoutError
from tests.suspending import run_leaping

if TYPE_CHECKING:
    from collections.abc import Callable


# One task, waits of any length


class Time:
    """The time of the event loop, which passes when it is told to."""

    def __init__(self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self._loop = loop
        self.now = 1000.0
        self.timers: list[asyncio.TimerHandle] = []
        self._call_at = loop.call_at
        monkeypatch.setattr(loop, "time", lambda: self.now)
        monkeypatch.setattr(loop, "call_at", self._note)

    def _note(
        self, when: float, callback: Callable[..., object], *args: object
    ) -> asyncio.TimerHandle:
        self.timers.append(self._call_at(when, callback, *args))
        return self.timers[-1]

    async def passes(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(3):  # the timer rings, the task hears of it, and what waits for the task
            await asyncio.sleep(0)


@pytest.fixture
async def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(asyncio.get_running_loop(), monkeypatch)


async def wait(timer: WaitTimer, seconds: float | None, nothing: asyncio.Future[None]) -> str:
    """One wait, as bodies have them."""
    timer.begin(seconds)
    try:
        await nothing
    except asyncio.CancelledError:
        if timer.end():
            return "too long"
        raise
    finally:
        timer.end()
    return "came"


def begin(
    timer: WaitTimer, seconds: float | None
) -> tuple[asyncio.Task[str], asyncio.Future[None]]:
    nothing = asyncio.get_running_loop().create_future()
    return asyncio.create_task(wait(timer, seconds, nothing)), nothing


async def test_SEC07_a_wait_that_lasts_too_long_is_ended(time: Time) -> None:
    task, _ = begin(WaitTimer(), 5)
    await time.passes(0)
    await time.passes(4.9)
    assert not task.done()
    await time.passes(0.1)
    assert task.result() == "too long"
    assert task.cancelling() == 0


async def test_SEC07_a_wait_may_take_as_long_as_it_may_however_many_came_before(
    time: Time,
) -> None:
    timer = WaitTimer()
    for _ in range(10):
        task, nothing = begin(timer, 5)
        await time.passes(0)
        await time.passes(4)
        assert not task.done()
        nothing.set_result(None)
        assert await task == "came"
    task, _ = begin(timer, 5)
    await time.passes(0)
    await time.passes(4.9)
    assert not task.done()
    await time.passes(0.1)
    assert task.result() == "too long"


async def test_a_shorter_wait_is_not_as_long_as_the_one_before(time: Time) -> None:
    timer = WaitTimer()
    task, nothing = begin(timer, 60)
    await time.passes(0)
    nothing.set_result(None)
    assert await task == "came"
    task, _ = begin(timer, 1)
    await time.passes(0)
    await time.passes(1)
    assert task.result() == "too long"


async def test_one_timer_is_for_many_waits(time: Time) -> None:
    timer = WaitTimer()
    for _ in range(1000):
        timer.begin(5)
        timer.end()
        time.now += 0.001
    assert len(time.timers) == 1


async def test_between_waits_nobody_is_ended(time: Time) -> None:
    timer = WaitTimer()
    timer.begin(5)
    assert not timer.end()
    await time.passes(100)
    assert len(time.timers) == 1  # nothing waits, so it is not set again
    task, _ = begin(timer, 5)
    await time.passes(0)
    await time.passes(5)
    assert task.result() == "too long"


async def test_a_wait_for_ever_needs_no_timer(time: Time) -> None:
    task, nothing = begin(WaitTimer(), None)
    await time.passes(1e9)
    nothing.set_result(None)
    assert await task == "came"
    assert time.timers == []


async def test_who_is_cancelled_by_somebody_else_stays_cancelled(time: Time) -> None:
    for together in (False, True):
        task, _ = begin(WaitTimer(), 5)
        await time.passes(0)
        if together:
            asyncio.get_running_loop().call_soon(task.cancel)
            await time.passes(5)
        else:
            task.cancel()
            await time.passes(0)
        assert task.cancelled()
        assert task.cancelling() == 1


async def test_a_closed_timer_keeps_no_timer(time: Time) -> None:
    timer = WaitTimer()
    timer.begin(5)
    timer.end()
    timer.close()
    timer.close()
    assert [timer.cancelled() for timer in time.timers] == [True]


# Many tasks, waits of one length


def me() -> asyncio.Task[object]:
    task: asyncio.Task[object] | None = asyncio.current_task()
    assert task is not None
    return task


async def wait_watched(timers: WaitTimers, seconds: float) -> str:
    """Wait so long, watched."""
    task = me()
    before = task.cancelling()
    timers.begin(task)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if timers.end(task) and task.cancelling() <= before:
            return "too late"
        raise
    timers.end(task)
    return "in time"


def test_waits_end_in_time_or_are_cut_off_exactly() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers = WaitTimers(10)
        assert await wait_watched(timers, 9) == "in time"
        began = loop.time()
        assert await wait_watched(timers, 11) == "too late"
        assert loop.time() == pytest.approx(began + 10, abs=1e-3)
        assert len(timers) == 0
        assert me().cancelling() == 0

    run_leaping(main)


def test_many_waits_each_have_their_own_end() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers = WaitTimers(10)
        ends: dict[int, float] = {}

        async def late(number: int) -> str:
            await asyncio.sleep(number)
            outcome = await wait_watched(timers, 9 if number % 2 else 99)
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
        timers = WaitTimers(10)
        timers.begin(me())
        await asyncio.sleep(8)
        timers.begin(me())
        await asyncio.sleep(8)
        assert timers.end(me()) is False

    run_leaping(main)


def test_a_cancellation_from_outside_is_not_swallowed() -> None:
    async def main() -> None:
        timers = WaitTimers(10)
        task = asyncio.create_task(wait_watched(timers, 20))
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(timers) == 0

    run_leaping(main)


def test_a_cancellation_from_outside_at_the_same_moment_wins() -> None:
    async def main() -> None:
        timers = WaitTimers(10)
        task = asyncio.create_task(wait_watched(timers, 20))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(10, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    run_leaping(main)


def test_no_limit_is_no_limit() -> None:
    async def main() -> None:
        timers = WaitTimers(None)
        assert await wait_watched(timers, 1e6) == "in time"
        timers.close()

    run_leaping(main)


def test_closing_stops_the_timer() -> None:
    async def main() -> None:
        timers = WaitTimers(10)
        timers.begin(me())
        timers.close()
        await asyncio.sleep(20)
        assert me().cancelling() == 0

    run_leaping(main)


# The least rate


def test_SEC07_a_window_that_was_good_says_nothing_about_the_next() -> None:
    rate = MinRate(60, 1000)
    rate.count(59, 60_000)
    assert rate.limit == 60
    rate.count(1, 0)
    assert rate.limit == 60
    rate.count(50, 59_999)
    assert rate.limit == 10
    with pytest.raises(SourceTimeoutError, match="59999 bytes in 60 s, where 60000"):
        rate.count(10, 0)


def test_SEC07_the_next_wait_may_last_as_long_as_the_window_does() -> None:
    rate = MinRate(60, 1024)
    assert rate.limit == 60
    rate.count(45, 1)
    assert rate.limit == 15
    rate.count(0, 60 * 1024)
    assert rate.limit == 60
    assert MinRate(None, 1024).limit is None


def test_SEC07_after_giving_up_a_new_window_begins() -> None:
    rate = MinRate(60, 1000)
    rate.count(59, 1)
    assert rate.limit == 1
    assert "1 bytes in 60 s, where 60000" in str(rate.give_up())
    assert rate.limit == 60
    assert "1 bytes" not in str(rate.give_up())


def test_SEC07_without_a_rate_only_single_waits_are_limited() -> None:
    rate = MinRate(60, 0)
    for _ in range(10):
        rate.count(59, 1)
        assert rate.limit == 60
    assert "nothing came for 60 s" in str(rate.give_up())
