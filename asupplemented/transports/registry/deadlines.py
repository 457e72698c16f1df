"""Deadlines by the dozen: waits of one length, watched with one timer for all of them.

A timer for each request would cost several microseconds of its hundred. Waits of one length
end in the order in which they begin, so a queue does, and one timer for its head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ("Deadlines",)


class Deadlines:
    """Cancels tasks that wait for too long, in the way of `asyncio.timeout`.

    Args:
        seconds: How long a wait may last; None for ever.
    """

    __slots__ = ("_ends", "_expired", "_seconds", "_timer")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._ends: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Waits that are being watched."""
        return len(self._ends)

    def begin(self, task: asyncio.Task[object]) -> None:
        """Watch a wait of this task, which is the running one; if it waits already, start anew."""
        if self._seconds is None:
            return
        ends = self._ends
        ends.pop(task, None)
        loop = task.get_loop()
        ends[task] = end = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(end, self._tick)

    def end(self, task: asyncio.Task[object]) -> bool:
        """The wait of this task is over; ending it twice, or one that never began, is fine.

        Returns:
            Whether the task was cancelled here. That cancellation is taken back: if the task is
            cancelled no more than it was before the wait, nobody else wanted it to end.
        """
        self._ends.pop(task, None)
        if task not in self._expired:
            return False
        self._expired.discard(task)
        task.uncancel()
        return True

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ends.clear()

    def _tick(self) -> None:
        self._timer = None
        while self._ends:
            task, end = next(iter(self._ends.items()))
            loop = task.get_loop()
            if end > loop.time():
                self._timer = loop.call_at(end, self._tick)
                return
            del self._ends[task]
            self._expired.add(task)
            task.cancel()
