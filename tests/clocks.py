"""A clock for tests: sleeping is instant and written down."""

from __future__ import annotations

import asyncio

from asupplemented.aio.retry import Clock


class FakeClock:
    """Time that passes only when somebody sleeps, or when a test says so.

    Attributes:
        time: Seconds, monotonic.
        epoch: What the clock on the wall showed when `time` was 0.
        slept: Every sleep, in seconds.
        chance: What the dice show.
    """

    def __init__(self, epoch: float = 1_700_000_000.0) -> None:
        self.time = 0.0
        self.epoch = epoch
        self.slept: list[float] = []
        self.chance = 1.0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)

    @property
    def clock(self) -> Clock:
        return Clock(
            now=lambda: self.time,
            wall=lambda: self.epoch + self.time,
            sleep=self.sleep,
            random=lambda: self.chance,
        )


async def let_pass(seconds: float) -> None:
    """Move the time of the event loop forward, so that what is due by then happens now."""
    loop = asyncio.get_running_loop()
    before = loop.time
    setattr(loop, "time", lambda: before() + seconds)  # noqa: B010 - a method, to a type checker
    for _ in range(5):  # a timer rings, its task runs, and the tasks that wait for it
        await asyncio.sleep(0)
