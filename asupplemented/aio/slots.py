"""Slots: a limit on operations that run side by side, which idle ones do not use up.

Theory of operation
-------------------

Each slot has a weight, by default 1, and the slots that are held weigh no more than a limit. That
is a constant, or a `CongestionWindow` that becomes smaller when a server is overloaded. One slot is
always given, whatever it weighs.

`BlobSlots` adapt to the server (`record_first_byte`, `record_refusal`). They weigh as many bytes as
a blob has in flight. A small blob is there as a whole. A large one is not: it comes no faster than
it is read, so it weighs no more than ``SMALL_BLOB``. Every blob also weighs its share of the
capacity, so there are never too many, however small they are.

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
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.aio.congestion import CongestionWindow
from asupplemented.errors import SlotTimeoutError
from asupplemented.limits import BLOB_BYTES_AT_ONCE, BLOBS_AT_ONCE, SMALL_BLOB

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

__all__ = ("BlobSlots", "Slot", "Slots")

_LOOK_AGAIN: Final = 1.0
"""Seconds after which a window that is not whole is looked at again while operations wait."""


class _Waiter(NamedTuple):
    future: asyncio.Future[bool]
    """Whether the slot was given, and not the limit reached."""
    weight: int


class Slots:
    """Slots of one weight in all. They belong to the event loop that uses them.

    Args:
        capacity: What the slots that are held may weigh.
        idle: Seconds that a slot may rest while others wait, before it is given to one of them.
        limit: Seconds that an operation waits for a slot, None for ever.
        window: What they may weigh now, `capacity` at most; None for always `capacity`.
        now: The clock of `window`, in seconds.

    Attributes:
        in_use: What the slots weigh that operations have.
    """

    __slots__ = (
        "_capacity",
        "_idle",
        "_limit",
        "_now",
        "_resting",
        "_timer",
        "_waiting",
        "_window",
        "in_use",
    )

    def __init__(
        self,
        capacity: int,
        *,
        idle: float = 1.0,
        limit: float | None = None,
        window: CongestionWindow | None = None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.in_use = 0
        self._capacity = capacity
        self._idle = idle
        self._limit = limit
        self._window = window
        self._now = now
        self._waiting = deque[_Waiter]()
        self._resting = OrderedDict["Slot", float]()
        """Slots that rest, and since when; the one that has rested longest first."""
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Slots: {self.in_use} of {self._capacity} in use, {len(self._waiting)} wait>"

    async def acquire(self, weight: int = 1) -> Slot:
        """Take a slot, which counts as working.

        Raises:
            SlotTimeoutError: None became free in time.
        """
        await self.take(weight)
        return Slot(self, weight)

    @asynccontextmanager
    async def hold(self, weight: int = 1) -> AsyncGenerator[None]:
        """Hold a slot for the body of an ``async with``, which never rests."""
        slot = await self.acquire(weight)
        try:
            yield
        finally:
            slot.release()

    async def take(self, weight: int) -> None:
        """Wait for a slot, for `Slot`."""
        if not self._waiting and self._fits(weight):
            self.in_use += weight
            return
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), weight)
        self._waiting.append(waiter)
        self._watch()
        limit = self._limit
        timer = None if limit is None else loop.call_later(limit, self._give_up, waiter)
        try:
            given = await waiter.future
        except BaseException:  # a cancellation: the slot may have been given at the same time
            if not waiter.future.done() or waiter.future.cancelled():
                self._remove(waiter)
            elif waiter.future.result():
                self.give(weight)  # it came too late
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if given:
            return
        message = f"no slot became free for {self._limit} s; read or close what is open"
        raise SlotTimeoutError(message)

    def _give_up(self, waiter: _Waiter) -> None:
        """An operation has waited for as long as it may."""
        if not waiter.future.done():
            waiter.future.set_result(False)
            self._remove(waiter)

    def _remove(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:  # Not if it was passed over, having been cancelled.
            self._waiting.remove(waiter)
            self.admit()  # those behind it may be lighter

    def give(self, weight: int) -> None:
        """Give a slot to operations that wait, for `Slot`."""
        self.in_use -= weight
        self.admit()

    def admit(self) -> None:
        """Give slots to the operations that have waited longest, while there is room."""
        while self._waiting and (
            self._waiting[0].future.done() or self._fits(self._waiting[0].weight)
        ):
            future, weight = self._waiting.popleft()
            if not future.done():
                self.in_use += weight
                future.set_result(True)

    def _fits(self, weight: int) -> bool:
        window = self._window
        limit = self._capacity if window is None else window.limit(self._now())
        return not self.in_use or self.in_use + weight <= limit

    def note_rest(self, slot: Slot) -> None:
        """A slot begins to rest, for `Slot`."""
        self._resting[slot] = asyncio.get_running_loop().time()
        if self._waiting:
            self._watch()

    def note_work(self, slot: Slot) -> None:
        """A slot does not rest any more, for `Slot`."""
        self._resting.pop(slot, None)

    def _watch(self) -> None:
        """Look again when the slot that has rested longest may be given away, or others may."""
        if self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        if self._resting:
            due = next(iter(self._resting.values())) + self._idle
            self._timer = loop.call_at(due, self._revoke)
        elif self._window is not None and not self._window.whole:
            self._timer = loop.call_later(_LOOK_AGAIN, self._revoke)

    def _revoke(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._waiting and self._resting:
            slot, since = next(iter(self._resting.items()))
            if since + self._idle > now:
                break
            slot.revoke()
        self.admit()  # the window has grown meanwhile
        if self._waiting:
            self._watch()


class BlobSlots(Slots):
    """Slots for reading blobs, which weigh bytes.

    Args:
        count: The most blobs at the same time, however small they are.
        capacity: Their bytes, of each at most ``SMALL_BLOB``.
        idle: See `Slots`.
        limit: See `Slots`.
        now: The clock, in seconds.
    """

    __slots__ = ("_adaptive", "_least")

    def __init__(
        self,
        count: int = BLOBS_AT_ONCE,
        capacity: int = BLOB_BYTES_AT_ONCE,
        *,
        idle: float = 1.0,
        limit: float | None = None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._least = max(1, capacity // max(1, count))
        self._adaptive = CongestionWindow(capacity, self._least)
        super().__init__(capacity, idle=idle, limit=limit, window=self._adaptive, now=now)

    def weigh(self, size: int | None) -> int:
        """The weight of the slot of a blob.

        Args:
            size: Bytes of the blob, None if unknown.
        """
        return max(self._least, SMALL_BLOB if size is None else min(size, SMALL_BLOB))

    def record_first_byte(self, sent: float, weight: int) -> None:
        """A request that was sent at a time of the clock was answered."""
        self._adaptive.record_first_byte(sent, self._now(), weight)
        self.admit()

    def record_refusal(self, sent: float) -> None:
        """A request that was sent at a time of the clock met an overloaded server."""
        self._adaptive.record_refusal(sent, self._now())


class Slot:
    """The slot of one operation.

    Args:
        slots: Where it was taken from.
        weight: What it weighs.
    """

    __slots__ = ("_held", "_released", "_slots", "weight")

    def __init__(self, slots: Slots, weight: int) -> None:
        self._slots = slots
        self.weight = weight
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
        await self._slots.take(self.weight)
        if self._released:
            self._slots.give(self.weight)
        else:
            self._held = True

    def revoke(self) -> None:
        """Give the slot to another operation, for `Slots`."""
        self._slots.note_work(self)
        self._held = False
        self._slots.give(self.weight)

    def release(self) -> None:
        """The operation ends. Does nothing the second time."""
        self._released = True
        if self._held:
            self.revoke()
