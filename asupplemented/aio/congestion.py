"""How much a client may have in flight to one server, learned from how the server answers.

Theory of operation
-------------------

`CongestionWindow` decides, and does nothing else: it is told when a request was sent and what came
of it, and says how much may be in flight now. It reads no clock and waits for nothing. The rules
(rule RET-11) are additive increase and multiplicative decrease, as TCP has them:

- It begins at its maximum, because most servers never refuse.
- A refusal (429, 503, or no first byte in time) halves it. So do first bytes that come later and
  later: if each of the last eight took more than four times the least of the last minute, and a
  quarter of a second besides. One slow answer is noise, and so are eight that a busy client is slow
  to read; a server that is overloaded is slow for all of them.
- Requests that were sent before it was halved tell nothing of the smaller window. So it is halved
  at most once for each round trip.
- An answer adds its share of one step, so that a window full of answers adds a whole step.
- It also grows with time, to its maximum in half a minute. Otherwise one large blob in a small
  window, which takes long and is one answer, would keep all others waiting.
- It is never less than one step: a client that sends nothing learns nothing.

The least time to the first byte is that of the present and the last half minute. So if a server
moves away or becomes slower for good, it is compared with itself within a minute.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ("CongestionWindow",)

RECOVERY: Final = 30.0
"""Seconds in which the window grows from nothing to its maximum."""

SAMPLES: Final = 8
"""Answers that have to be late, one after the other, before that counts."""

LATE_FACTOR: Final = 4.0
"""Late is this many times the least time to the first byte,"""

LATE_MARGIN: Final = 0.25
"""and so many seconds more."""

EPOCH: Final = 30.0
"""Seconds for which the least time is kept apart; that of the last such period counts, too."""


class CongestionWindow:
    """The limit on what is in flight: at least `step`, at most `maximum`, in one unit of weight.

    Args:
        maximum: The limit to begin with, which is never exceeded.
        step: What a window full of answers adds, and the least limit; at most `maximum`.
    """

    __slots__ = (
        "_changed",
        "_epoch",
        "_halved",
        "_late",
        "_least",
        "_least_before",
        "_maximum",
        "_size",
        "_step",
    )

    def __init__(self, maximum: float, step: float) -> None:
        self._maximum = maximum
        self._step = min(step, maximum)
        self._size = maximum
        self._changed = 0.0
        """When it was made smaller, or grew last."""
        self._halved = float("-inf")
        """When it was halved last."""
        self._late = deque[float](maxlen=SAMPLES)
        """Times to the first byte of the last answers."""
        self._epoch = float("-inf")
        self._least = self._least_before = float("inf")

    @property
    def whole(self) -> bool:
        """Whether it was its maximum when it was looked at last."""
        return self._size >= self._maximum

    def limit(self, now: float) -> float:
        """What may be in flight.

        Args:
            now: The time in seconds, by a clock that never goes back.
        """
        if self._size < self._maximum:
            self._grow(self._maximum * (now - self._changed) / RECOVERY)
            self._changed = now
        return self._size

    def record_refusal(self, sent: float, now: float) -> None:
        """The server refused a request because it is busy, or did not answer in time.

        Args:
            sent: When the request was sent.
            now: The time now.
        """
        if sent > self._halved:
            self._halve(now)

    def record_first_byte(self, sent: float, now: float, weight: float) -> None:
        """A server answered.

        Args:
            sent: When the request was sent.
            now: When the first byte of its answer came.
            weight: What of the window the request takes.
        """
        seconds = now - sent
        self._note_least(seconds, now)
        if sent <= self._halved:
            return
        self._late.append(seconds)
        least = min(self._least, self._least_before)
        if len(self._late) == SAMPLES and min(self._late) > LATE_FACTOR * least + LATE_MARGIN:
            self._halve(now)
        elif self._size < self._maximum:
            self._grow(self._step * weight / self._size)

    def _note_least(self, seconds: float, now: float) -> None:
        if now - self._epoch >= EPOCH:
            # What was the least two periods ago is forgotten.
            recent = now - self._epoch < 2 * EPOCH
            self._least_before = self._least if recent else float("inf")
            self._epoch, self._least = now, seconds
        self._least = min(self._least, seconds)

    def _halve(self, now: float) -> None:
        self._size = max(self._step, self.limit(now) / 2)
        self._changed = self._halved = now
        self._late.clear()

    def _grow(self, more: float) -> None:
        self._size = min(self._maximum, self._size + more)

    def __repr__(self) -> str:
        return f"<CongestionWindow: {self._size:.0f} of {self._maximum:.0f}>"
