"""Slots: a limit on operations that run side by side, which idle ones do not use up.

Theory of operation
-------------------

An operation acquires a `Slot` before it begins, and releases it at its end. In between it says
when it works (`Slot.resume`) and when it waits for its own caller (`Slot.rest`). As long as no
other operation waits, resting costs nothing. If one waits, the slot that has rested longest is
given to it, once it has rested for a while: pauses between two reads are no reason to switch. The
operation that lost its slot gets one again, in its turn, when it resumes.

So no caller that opens operations and then does not use them keeps others waiting for ever, and
the wait for a slot has a limit besides. Waiters are served in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asupplemented.errors import SlotTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ("Slot", "Slots")


class Slots:
    """A number of slots. They belong to the event loop that uses them.

    Args:
        count: How many there are.
        idle: Seconds that a slot may rest while others wait, before it is given to one of them.
        limit: Seconds that an operation waits for a slot, None for ever.

    Attributes:
        free: Slots that no operation has.
    """

    __slots__ = ("_count", "_idle", "_limit", "_resting", "_timer", "_waiting", "free")

    def __init__(self, count: int, *, idle: float = 1.0, limit: float | None = None) -> None:
        self.free = count
        self._count = count
        self._idle = idle
        self._limit = limit
        self._waiting = deque[asyncio.Future[None]]()
        self._resting = OrderedDict["Slot", float]()
        """Slots that rest, and since when; the one that has rested longest first."""
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Slots: {self.free} of {self._count} free, {len(self._waiting)} wait>"

    async def acquire(self) -> Slot:
        """Take a slot, which counts as working.

        Raises:
            SlotTimeoutError: None became free in time.
        """
        await self.take()
        return Slot(self)

    @asynccontextmanager
    async def hold(self) -> AsyncGenerator[None]:
        """Hold a slot for the body of an ``async with``, which never rests."""
        slot = await self.acquire()
        try:
            yield
        finally:
            slot.release()

    async def take(self) -> None:
        """Wait for a slot, for `Slot`."""
        if self.free:
            self.free -= 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._watch()
        try:
            async with asyncio.timeout(self._limit):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self.give()  # it came too late
            else:
                self._waiting.remove(waiter)
            if not isinstance(error, TimeoutError):
                raise
        else:
            return
        message = (
            f"all {self._count} slots were in use for {self._limit} s; read or close what is open"
        )
        raise SlotTimeoutError(message)

    def give(self) -> None:
        """Give a slot to the operation that has waited longest, for `Slot`."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.free += 1

    def note_rest(self, slot: Slot) -> None:
        """A slot begins to rest, for `Slot`."""
        self._resting[slot] = asyncio.get_running_loop().time()
        if self._waiting:
            self._watch()

    def note_work(self, slot: Slot) -> None:
        """A slot does not rest any more, for `Slot`."""
        self._resting.pop(slot, None)

    def _watch(self) -> None:
        """Look again when the slot that has rested longest may be given away."""
        if self._timer is None and self._resting:
            due = next(iter(self._resting.values())) + self._idle
            self._timer = asyncio.get_running_loop().call_at(due, self._revoke)

    def _revoke(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._waiting and self._resting:
            slot, since = next(iter(self._resting.items()))
            if since + self._idle > now:
                break
            slot.revoke()
        if self._waiting:
            self._watch()


class Slot:
    """The slot of one operation.

    Args:
        slots: Where it was taken from.
    """

    __slots__ = ("_held", "_released", "_slots")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held = True
        self._released = False

    def rest(self) -> None:
        """The operation waits for its caller from now on."""
        if self._held:
            self._slots.note_rest(self)

    def resume(self) -> bool:
        """The operation goes on; False if it has to `regain` a slot first."""
        self._slots.note_work(self)
        return self._held

    async def regain(self) -> None:
        """Take a slot again, after `resume` has returned False.

        Raises:
            SlotTimeoutError: None became free in time.
        """
        await self._slots.take()
        if self._released:
            self._slots.give()
        else:
            self._held = True

    def revoke(self) -> None:
        """Give the slot to another operation, for `Slots`."""
        self._slots.note_work(self)
        self._held = False
        self._slots.give()

    def release(self) -> None:
        """The operation ends. Does nothing the second time."""
        self._released = True
        if self._held:
            self.revoke()
