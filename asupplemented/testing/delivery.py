"""Everything that can go wrong while an answer is sent, as small frozen values.

They are used, and combined, as those of `asupplemented.testing.faults` are. Offsets count bytes
of the body that is sent; 0 is before the first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from asupplemented.testing.exchange import Pause

if TYPE_CHECKING:
    from asupplemented.testing.exchange import Answer, Request

__all__ = (
    "Chunked",
    "CloseDelimited",
    "ContentLength",
    "Cut",
    "Delay",
    "Endless",
    "Hold",
    "Raw",
    "Slow",
    "Stall",
)

# How the body is framed.


@dataclass(frozen=True)
class ContentLength:
    """A ``Content-Length`` that lies; the body is sent as it is, then the connection closed."""

    claim: int

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return replace(answer, claim=self.claim)


@dataclass(frozen=True)
class Chunked:
    """Chunked framing, without a length. A `Cut` in it leaves out the rest of a chunk.

    Args:
        size: Bytes per chunk, None for one chunk.
    """

    size: int | None = None

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return replace(answer, framing="chunked", chunk=self.size)


@dataclass(frozen=True)
class CloseDelimited:
    """No length at all: the body ends where the connection does."""

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return replace(answer, framing="close")


@dataclass(frozen=True)
class Endless:
    """A body that never ends: chunks of it, again and again, until the client leaves.

    Args:
        data: What is repeated; None for the body of the answer.
    """

    data: bytes | None = b" " * 65536

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        body = answer.body if self.data is None else self.data
        return replace(answer, body=body, framing="chunked", endless=True)


@dataclass(frozen=True)
class Raw:
    """Any bytes in place of an answer: no status line, no headers; then the connection ends."""

    data: bytes

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return replace(answer, body=self.data, bare=True, framing="close")


# When, and how far.


@dataclass(frozen=True)
class Cut:
    """The connection ends in the middle.

    Args:
        after: Body bytes sent before; None for none and no head either.
        how: "fin" closes it; "rst" resets it, once the client's system has all that was sent.
    """

    after: int | None = 0
    how: Literal["fin", "rst"] = "fin"

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return answer.with_pause(Pause(at=self.after, end=self.how))


@dataclass(frozen=True)
class Stall:
    """Nothing more comes, and the connection stays open.

    Args:
        after: Body bytes sent before; None for none and no head either.
        until: Go on when it is set; None for never.
    """

    after: int | None = 0
    until: asyncio.Event | None = None

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        wait = _wait_for_ever if self.until is None else self.until.wait
        return answer.with_pause(Pause(at=self.after, wait=wait))


@dataclass(frozen=True)
class Hold:
    """The answer waits, head and all, until the event is set."""

    until: asyncio.Event

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return answer.with_pause(Pause(at=None, wait=self.until.wait))


@dataclass(frozen=True)
class Delay:
    """The answer waits so many seconds, by the clock of the registry."""

    seconds: float

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return answer.with_pause(Pause(at=None, seconds=self.seconds))


@dataclass(frozen=True)
class Slow:
    """A body that trickles.

    Args:
        size: Bytes between two pauses.
        seconds: Length of a pause, by the clock of the registry.
        permits: Acquired once in each pause, so that a test lets pieces through one by one.
    """

    size: int = 1
    seconds: float = 0.0
    permits: asyncio.Semaphore | None = None

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        wait = None if self.permits is None else self.permits.acquire
        pauses = [
            Pause(at=at, seconds=self.seconds, wait=wait)
            for at in range(0, len(answer.body), self.size)
        ]
        return replace(answer, pauses=(*answer.pauses, *pauses))


async def _wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()
