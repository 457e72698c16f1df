"""Event loops for tests: cancel at any await, and let time pass without waiting."""

from __future__ import annotations

import asyncio
import selectors
import types
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

T = TypeVar("T")


@types.coroutine
def _cancelled_at(
    coroutine: Coroutine[object, object, object], turn: int
) -> Generator[object, object, bool]:
    """Run a coroutine; cancel the task that runs it when it suspends for the `turn`-th time.

    Returns:
        Whether it was cancelled, and came to its end all the same.
    """
    sent: object = None
    thrown: BaseException | None = None
    while True:
        try:
            waiting = coroutine.send(sent) if thrown is None else coroutine.throw(thrown)
        except StopIteration:
            return turn <= 0
        turn -= 1
        if turn == 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            sent, thrown = (yield waiting), None
        except BaseException as error:  # noqa: BLE001 - it is passed on
            thrown = error


async def cancel_at_every_await(
    run: Callable[[], Coroutine[object, object, object]],
    check: Callable[[], Awaitable[None]],
    most: int = 500,
) -> int:
    """Run something again and again, cancelled at its first await, its second, and so on.

    Args:
        run: Makes a fresh coroutine.
        check: Called after each run that was cancelled.
        most: Awaits at which something must be wrong.

    Returns:
        How many awaits there were.
    """
    for turn in range(1, most):
        try:
            swallowed = await asyncio.create_task(_as_coroutine(_cancelled_at(run(), turn)))
        except asyncio.CancelledError:
            await check()
        else:
            assert not swallowed, f"the cancellation at await {turn} was swallowed"
            return turn - 1
    message = f"it awaits more than {most} times"
    raise AssertionError(message)


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def wait_until(condition: Callable[[], bool], *, every: float = 0) -> None:
    """Give way to others, threads and processes too, until something is so.

    Args:
        condition: What is looked at.
        every: Seconds between two looks; not 0 where another process needs the processor.
    """
    async with asyncio.timeout(60):  # for something that never happens
        while not condition():  # noqa: ASYNC110 - threads and processes set no event
            await asyncio.sleep(every)


async def settle(turns: int = 5) -> None:
    """Let callbacks that are due run, and what they make due."""
    for _ in range(turns):
        await asyncio.sleep(0)


def count_open_files() -> int:
    """File descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class _LeapingSelector(selectors.DefaultSelector):
    """Waits for nothing: when nothing is ready, time leaps to the next timer."""

    def __init__(self, grace: float) -> None:
        super().__init__()
        self.now = 0.0
        self._grace = grace

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and self._grace and timeout != 0:
            ready = super().select(self._grace)
        if not ready:
            assert timeout is not None, "nothing will ever happen any more"
            self.now += max(timeout, 1e-6)
        return ready


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop in which hours pass at once.

    Args:
        grace: Seconds of real time for sockets and threads to become ready before time leaps.
    """

    def __init__(self, grace: float = 0.0) -> None:
        self._leaping = _LeapingSelector(grace)
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.now


def run_leaping(main: Callable[[], Coroutine[object, object, T]], grace: float = 0.0) -> T:
    """Run an async function in a `LeapingLoop`."""
    with asyncio.Runner(loop_factory=partial(LeapingLoop, grace)) as runner:
        return runner.run(main())
