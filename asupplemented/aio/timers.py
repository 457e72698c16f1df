"""Stall timing: end waits that last too long, and bodies that come too slowly.

Theory of operation
-------------------

`asyncio.timeout` sets and cancels one timer for each wait. A body has one wait for each chunk, and
a client has one for each request, so timers are set rarely here and looked at when they fire:

- `WaitTimer` serves one task at a time, for waits of any length, one after another. The end of a
  wait leaves the timer as it is. When it fires, it is set again for the wait of now.
- `WaitTimers` serves many tasks at once, for waits of one length. They end in the order in which
  they begin, so they form a queue, and one timer watches its head.

Both cancel the task that waits, and take the cancellation back when the task says that its wait
is over, exactly as `asyncio.timeout` does: a cancellation from elsewhere is never swallowed.

`MinRate` says how long the next wait of a body may last, and when a body is too slow.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asupplemented.errors import SourceTimeoutError, SupplementedError
from asupplemented.remedies import MIN_RATE, STALL_TIMEOUT, advise

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ("MinRate", "WaitTimer", "WaitTimers", "running_task", "time_limit")


def running_task(loop: asyncio.AbstractEventLoop | None = None) -> asyncio.Task[object]:
    """The task that runs.

    Args:
        loop: Its event loop; passing it saves a look-up.

    Raises:
        RuntimeError: No task is running.
    """
    task: asyncio.Task[object] | None = asyncio.current_task(loop)
    if task is None:
        message = "send requests from within a task"
        raise RuntimeError(message)
    return task


class time_limit:  # noqa: N801 - it is used as a function, like `asyncio.timeout`
    """Limit the time of the body of an ``async with``.

    A class and no generator, for it is entered for each manifest.

    Args:
        seconds: The limit, None for none.
        what: What it does, for the error: "the list of tags".
        scrub: Called with each `SupplementedError` that leaves the body, None for nothing.
        advise: Gives what the error advises, None for nothing.

    Raises:
        SourceTimeoutError: It took longer.
    """

    __slots__ = ("_advise", "_scrub", "_seconds", "_timeout", "_what")

    def __init__(
        self,
        seconds: float | None,
        what: str,
        scrub: Callable[[SupplementedError], None] | None = None,
        advise: Callable[[], str] | None = None,
    ) -> None:
        self._advise = advise
        self._seconds = seconds
        self._what = what
        self._scrub = scrub

    async def __aenter__(self) -> None:
        self._timeout = asyncio.timeout(self._seconds)
        await self._timeout.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            message = f"{self._what} took longer than {self._seconds} s"
            if self._advise is not None:
                message += self._advise()
            raise SourceTimeoutError(message) from late
        if self._scrub is not None and isinstance(error, SupplementedError):
            self._scrub(error)


class WaitTimer:
    """Ends the waits of one task that last too long."""

    __slots__ = ("_cancelling", "_due", "_expired", "_loop", "_task", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        """The task that waits."""
        self._due = 0.0
        self._cancelling = 0
        self._expired = False

    def begin(self, seconds: float | None) -> None:
        """The running task begins to wait.

        Args:
            seconds: How long the wait may last; None for ever.
        """
        if seconds is None or (task := asyncio.current_task(self._loop)) is None:
            return
        self._task, self._cancelling = task, task.cancelling()
        self._due = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._due:
            self.close()
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._fire)

    def end(self) -> bool:
        """The wait is over. Call it whatever became of the wait; again does no harm.

        Returns:
            Whether the task was cancelled here, and nothing else wants it to end. The
            cancellation is taken back then.
        """
        task, self._task = self._task, None
        if not self._expired:
            return False
        self._expired = False
        return task is not None and task.uncancel() <= self._cancelling

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._fire)
        else:
            self._expired = True
            self._task.cancel()


class WaitTimers:
    """Ends the waits of many tasks that last too long.

    Args:
        seconds: How long each wait may last; None for ever.
    """

    __slots__ = ("_due", "_expired", "_seconds", "_timer")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._due: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Waits that are watched."""
        return len(self._due)

    def begin(self, task: asyncio.Task[object]) -> None:
        """The running task begins to wait; if it waits already, that wait starts anew."""
        if self._seconds is None:
            return
        self._due.pop(task, None)
        loop = task.get_loop()
        self._due[task] = due = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._fire)

    def end(self, task: asyncio.Task[object]) -> bool:
        """The wait of a task is over. Again, or without a wait, does no harm.

        Returns:
            Whether the task was cancelled here. That cancellation is taken back: if the task is
            cancelled no more than before the wait, nothing else wanted it to end.
        """
        self._due.pop(task, None)
        if task not in self._expired:
            return False
        self._expired.discard(task)
        task.uncancel()
        return True

    def give_up(self, what: str) -> SourceTimeoutError:
        """The error for a wait that lasted too long."""
        return SourceTimeoutError(f"{what} took longer than {self._seconds} s")

    def close(self) -> None:
        """Cancel the timer, and watch no wait any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due.clear()

    def _fire(self) -> None:
        self._timer = None
        while self._due:
            task, due = next(iter(self._due.items()))
            loop = task.get_loop()
            if due > loop.time():
                self._timer = loop.call_at(due, self._fire)
                return
            del self._due[task]
            self._expired.add(task)
            task.cancel()


class MinRate:
    """The least rate at which a body has to come (rule SEC-07).

    Only the time spent waiting for the body counts, so a slow reader is not held against it. The
    rate is judged in windows of waiting: in each, so many bytes per second have to come. Once they
    have, only a wait as long as a whole window is too long.

    Args:
        window: Seconds of a window; None for no limit at all.
        rate: Bytes per second; 0 limits single waits only.

    Attributes:
        limit: Seconds that the next wait may last; None for any time.
    """

    __slots__ = ("_came", "_quota", "_waited", "_window", "limit")

    def __init__(self, window: float | None, rate: float) -> None:
        self._window = window
        self._quota = 0.0 if window is None else rate * window
        self._waited = 0.0
        self._came = 0
        self.limit = window

    def count(self, seconds: float, size: int) -> None:
        """Record a wait, and the bytes that it gave.

        Raises:
            SourceTimeoutError: The window is over, and too few bytes came.
        """
        if self._window is None:
            return
        self._waited += seconds
        self._came += size
        if self._waited >= self._window:
            if self._came < self._quota:
                raise self.give_up()
            self._waited, self._came = 0.0, 0
        self.limit = self._window if self._came >= self._quota else self._window - self._waited

    def give_up(self) -> SourceTimeoutError:
        """The error for a wait that lasted too long. A new window begins, for a resumption."""
        if self._came >= self._quota:
            message = f"the body stalled: nothing came for {self._window} s"
            message += advise("to wait for longer, set {}", STALL_TIMEOUT)
        else:
            message = (
                f"the body is too slow: {self._came} bytes in {self._window} s, where "
                f"{self._quota:.0f} were due"
            ) + advise("to accept that, set {}", MIN_RATE)
        self._waited, self._came = 0.0, 0
        self.limit = self._window
        return SourceTimeoutError(message)
