"""Waits end when they last too long, and cost a timer only now and then (rule SEC-07)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asupplemented.blobs.patience import Watch

if TYPE_CHECKING:
    from collections.abc import Callable


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
        for _ in range(3):  # the timer rings, who waits hears of it, and what waits for that
            await asyncio.sleep(0)


@pytest.fixture
async def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(asyncio.get_running_loop(), monkeypatch)


async def wait(watch: Watch, seconds: float | None, nothing: asyncio.Future[None]) -> str:
    """One wait, as bodies have them."""
    watch.begin(seconds)
    try:
        await nothing
    except asyncio.CancelledError:
        if watch.end():
            return "too long"
        raise
    finally:
        watch.end()
    return "came"


def begin(watch: Watch, seconds: float | None) -> tuple[asyncio.Task[str], asyncio.Future[None]]:
    nothing = asyncio.get_running_loop().create_future()
    return asyncio.create_task(wait(watch, seconds, nothing)), nothing


async def test_SEC07_a_wait_that_lasts_too_long_is_ended(time: Time) -> None:
    task, _ = begin(Watch(), 5)
    await time.passes(0)
    await time.passes(4.9)
    assert not task.done()
    await time.passes(0.1)
    assert task.result() == "too long"
    assert task.cancelling() == 0


async def test_SEC07_a_wait_may_take_as_long_as_it_may_however_many_came_before(
    time: Time,
) -> None:
    watch = Watch()
    for _ in range(10):
        task, nothing = begin(watch, 5)
        await time.passes(0)
        await time.passes(4)
        assert not task.done()
        nothing.set_result(None)
        assert await task == "came"
    task, _ = begin(watch, 5)
    await time.passes(0)
    await time.passes(4.9)
    assert not task.done()
    await time.passes(0.1)
    assert task.result() == "too long"


async def test_a_shorter_wait_is_not_as_long_as_the_one_before(time: Time) -> None:
    watch = Watch()
    task, nothing = begin(watch, 60)
    await time.passes(0)
    nothing.set_result(None)
    assert await task == "came"
    task, _ = begin(watch, 1)
    await time.passes(0)
    await time.passes(1)
    assert task.result() == "too long"


async def test_one_timer_is_for_many_waits(time: Time) -> None:
    watch = Watch()
    for _ in range(1000):
        watch.begin(5)
        watch.end()
        time.now += 0.001
    assert len(time.timers) == 1


async def test_between_waits_nobody_is_ended(time: Time) -> None:
    watch = Watch()
    watch.begin(5)
    assert not watch.end()
    await time.passes(100)
    assert len(time.timers) == 1  # nothing waits, so it is not set again
    task, _ = begin(watch, 5)
    await time.passes(0)
    await time.passes(5)
    assert task.result() == "too long"


async def test_a_wait_for_ever_needs_no_timer(time: Time) -> None:
    task, nothing = begin(Watch(), None)
    await time.passes(1e9)
    nothing.set_result(None)
    assert await task == "came"
    assert time.timers == []


async def test_who_is_cancelled_by_somebody_else_stays_cancelled(time: Time) -> None:
    for together in (False, True):
        task, _ = begin(Watch(), 5)
        await time.passes(0)
        if together:
            asyncio.get_running_loop().call_soon(task.cancel)
            await time.passes(5)
        else:
            task.cancel()
            await time.passes(0)
        assert task.cancelled()
        assert task.cancelling() == 1


async def test_a_closed_watch_keeps_no_timer(time: Time) -> None:
    watch = Watch()
    watch.begin(5)
    watch.end()
    watch.close()
    watch.close()
    assert [timer.cancelled() for timer in time.timers] == [True]
