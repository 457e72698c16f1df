"""Faults in sending an answer, as small frozen values.

They are used and combined like those of `asupplemented.testing.faults`. Offsets count bytes of the
body that is sent; 0 is before the first byte.
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

# Framing


@dataclass(frozen=True)
class ContentLength:
    """A `claim` in place of the true ``Content-Length``.

    The body is sent unchanged, then the connection is closed.
    """

    claim: int

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return replace(answer, claim=self.claim)


@dataclass(frozen=True)
class Chunked:
    """Chunked framing without a length. A `Cut` within a chunk drops the rest of the chunk.

    Args:
        size: Bytes per chunk, None for one chunk.
    """

    size: int | None = None

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return replace(answer, framing="chunked", chunk=self.size)


@dataclass(frozen=True)
class CloseDelimited:
    """No length: the end of the connection is the end of the body."""

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return replace(answer, framing="close")


@dataclass(frozen=True)
class Endless:
    """A body that never ends: it is repeated until the client closes the connection.

    Args:
        data: The bytes to repeat; None for the body of the answer.
    """

    data: bytes | None = b" " * 65536

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        body = answer.body if self.data is None else self.data
        return replace(answer, body=body, framing="chunked", endless=True)


@dataclass(frozen=True)
class Raw:
    """Raw `data` in place of an answer, without status line and headers, then the end."""

    data: bytes

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return replace(answer, body=self.data, bare=True, framing="close")


# Timing


@dataclass(frozen=True)
class Cut:
    """The connection ends in the middle.

    Args:
        after: Body bytes that are sent before; None sends no head either.
        how: "fin" closes the connection; "rst" resets it once the client has received all bytes.
    """

    after: int | None = 0
    how: Literal["fin", "rst"] = "fin"

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return answer.with_pause(Pause(at=self.after, end=self.how))


@dataclass(frozen=True)
class Stall:
    """The server stops sending, and the connection stays open.

    Args:
        after: Body bytes that are sent before; None sends no head either.
        until: The event that ends the stall; None for never.
    """

    after: int | None = 0
    until: asyncio.Event | None = None

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        wait = _wait_for_ever if self.until is None else self.until.wait
        return answer.with_pause(Pause(at=self.after, wait=wait))


@dataclass(frozen=True)
class Hold:
    """The answer, with its head, waits until an event is set."""

    until: asyncio.Event

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return answer.with_pause(Pause(at=None, wait=self.until.wait))


@dataclass(frozen=True)
class Delay:
    """The answer waits for some seconds, by the clock of the registry."""

    seconds: float

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return answer.with_pause(Pause(at=None, seconds=self.seconds))


@dataclass(frozen=True)
class Slow:
    """A body with a pause before each part.

    Args:
        size: Bytes of a part.
        seconds: Length of a pause, by the clock of the registry.
        permits: Acquired once in each pause, so that a test releases the parts one by one.
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
