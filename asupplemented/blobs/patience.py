"""Patience with bodies: each wait for the next chunk may last so long, and no longer."""

from __future__ import annotations

import asyncio

__all__ = ("Watch",)


class Watch:
    """Ends waits that last too long, one after the other, in the way of `asyncio.timeout`.

    A body has a wait for every chunk, and few last long. So there is one timer for all of them:
    a wait that is over leaves it as it is, and when it rings it is set again for the wait of now.
    """

    __slots__ = ("_cancelling", "_due", "_expired", "_loop", "_task", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        """Who waits."""
        self._due = 0.0
        self._cancelling = 0
        self._expired = False

    def begin(self, seconds: float | None) -> None:
        """The running task begins to wait, for so long at most; None is for ever."""
        task = asyncio.current_task()
        if seconds is None or task is None:
            return
        self._task, self._cancelling = task, task.cancelling()
        self._due = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._due:
            self.close()
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._ring)

    def end(self) -> bool:
        """The wait is over; to be called whatever became of it, and may be called again.

        Returns:
            Whether the task was cancelled here, and nobody else wants it to end: the
            cancellation is taken back then.
        """
        task, self._task = self._task, None
        expired, self._expired = self._expired, False
        return expired and task is not None and task.uncancel() <= self._cancelling

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._ring)
        else:
            self._expired = True
            self._task.cancel()
