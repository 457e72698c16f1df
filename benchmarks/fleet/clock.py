"""An event loop with virtual time and without threads."""

from __future__ import annotations

import asyncio
import selectors
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from asupplemented.aio.retry import Clock
from asupplemented.aio.threads import Workers
from asupplemented.blobs.hashing import Hashing

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Generator

__all__ = ("StalledError", "run", "virtual_clock")

T = TypeVar("T")

EPOCH: Final = 4_102_444_800.0
"""What the clock on the wall shows at 0: the year 2100. The files of caches are older than that, so
none of them counts as changed a moment ago."""


class StalledError(Exception):
    """Every task waits for another one, and no timer is set."""


class _Selector(selectors.DefaultSelector):
    """Has no events to report: where the loop would wait for one, time passes instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StalledError("no task can run, and no timer is set")
        self.now += max(timeout, 0.0)
        return []


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that does not wait for its timers. It begins at 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def _write_to_self(self) -> None:
        """Do nothing: the loop never sleeps, so no thread has to wake it."""


def run(main: Coroutine[object, object, T]) -> T:
    """Run a coroutine in virtual time.

    Raises:
        StalledError: It waits for what cannot happen.
    """
    with _without_threads(), asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main)


def virtual_clock(rng: random.Random) -> Clock:
    """The clock of a session on the running loop, with the chance of a simulation."""
    loop = asyncio.get_running_loop()
    return Clock(now=loop.time, wall=lambda: EPOCH + loop.time(), random=rng.random)


@contextmanager
def _without_threads() -> Generator[None]:
    """Have the event loop do what threads would do.

    Threads end in an order of their own, and virtual time does not wait for them.
    """
    submit, choose = Workers.submit, Hashing.choose_thread
    setattr(Workers, "submit", _call)  # noqa: B010 - a method, to a type checker
    setattr(Hashing, "choose_thread", _choose_none)  # noqa: B010
    try:
        yield
    finally:
        setattr(Workers, "submit", submit)  # noqa: B010
        setattr(Hashing, "choose_thread", choose)  # noqa: B010


def _choose_none(_: Hashing) -> None:
    """There is no thread for a body, so it is hashed on the event loop."""


def _call(_: Workers, func: Callable[[], T]) -> Future[T]:
    """Call a function from the event loop, after the caller has gone on, as a thread would."""
    future = Future[T]()
    asyncio.get_running_loop().call_soon(_set_outcome, future, func)
    return future


def _set_outcome(future: Future[T], func: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(func())
    except Exception as error:  # noqa: BLE001 - raised where the result is awaited
        future.set_exception(error)
