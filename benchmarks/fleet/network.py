"""Links and machines: how long bytes take, and which machines are alive.

A link shares its rate equally among the transfers that cross it at the same time, as TCP does among
connections of equal round-trip times (egalitarian processor sharing). That is exact and cheap: let
``work`` be the bytes that a transfer which is always there would have been given so far. It grows
by ``rate / transfers`` per second, and a transfer of `size` bytes that begins at work ``w`` ends
when ``work`` reaches ``w + size``, whatever begins and ends meanwhile.

A block that crosses several links arrives when the slowest one is done with it.
"""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field
from itertools import count
from typing import Final

__all__ = ("Link", "Machine", "transfer")

_EPSILON: Final = 1e-3
"""Bytes that rounding may leave over."""


class Link:
    """One direction of a connection to the network.

    Args:
        rate: Bytes per second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._work = 0.0
        self._updated = 0.0
        self._ends: list[tuple[float, int, asyncio.Future[None]]] = []
        """For each transfer the work at which it ends, as a heap."""
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None

    def send(self, size: int) -> asyncio.Future[None]:
        """Begin to transfer some bytes; done when they are through."""
        loop = asyncio.get_running_loop()
        self._update(loop)
        done = loop.create_future()
        heapq.heappush(self._ends, (self._work + size, next(self._numbers), done))
        self._arm(loop)
        return done

    def _update(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        if self._ends:
            self._work += (now - self._updated) * self._rate / len(self._ends)
        self._updated = now

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer for the next end. It may fire too early, and is then set again."""
        due = self._updated + (self._ends[0][0] - self._work) * len(self._ends) / self._rate
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._update(loop)
        while self._ends and self._ends[0][0] <= self._work + _EPSILON:
            _, _, done = heapq.heappop(self._ends)
            if not done.done():  # The task that waited may have been cancelled.
                done.set_result(None)
        if self._ends:
            self._arm(loop)


@dataclass(eq=False)
class Machine:
    """A host with a link in each direction."""

    name: str
    rx: Link
    tx: Link
    alive: bool = field(default=True)

    @classmethod
    def of(cls, name: str, rate: float) -> Machine:
        """A machine whose links have the same rate, in bytes per second."""
        return cls(name, Link(rate), Link(rate))


async def transfer(size: int, sender: Machine, receiver: Machine) -> None:
    """Bring a block from one machine to another.

    Raises:
        ConnectionResetError: One of them died meanwhile.
    """
    waits = (sender.tx.send(size), receiver.rx.send(size))
    for wait in waits:
        await wait
    for machine in (sender, receiver):
        if not machine.alive:
            message = f"{machine.name} died"
            raise ConnectionResetError(message)
