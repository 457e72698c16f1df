"""An answer as a sequence of steps: bytes to write, and pauses to wait for."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Protocol, TypeAlias

from asupplemented.testing.exchange import Pause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from asupplemented.testing.exchange import Answer

__all__ = ("Sleep", "Step", "sit_out", "take_steps")

Step: TypeAlias = bytes | memoryview | Pause


class Sleep(Protocol):
    """Sleeps for a number of seconds, like `asyncio.sleep`."""

    def __call__(self, seconds: float, /) -> Awaitable[object]: ...


def take_steps(answer: Answer, head: bytes = b"", *, bodiless: bool = False) -> Iterator[Step]:
    """The steps that send an answer, in order; a pause that ends the connection is the last one.

    Args:
        answer: The answer.
        head: Status line and headers.
        bodiless: Whether to leave the body out, as for HEAD.
    """
    pauses = _schedule(answer, bodiless=bodiless)
    yield from _due(pauses, None)
    yield head
    yield from _due(pauses, 0)
    sent = 0
    for data, is_content in () if bodiless else _frame(answer):
        if not is_content:
            yield data
            continue
        view = memoryview(data)
        while view:
            stop = (pauses[0].at or 0) - sent if pauses else len(view)
            yield view[:stop]
            sent += len(view[:stop])
            view = view[stop:]
            yield from _due(pauses, sent)


async def sit_out(pause: Pause, sleep: Sleep) -> None:
    """Sleep and then wait, as a pause says."""
    if pause.seconds > 0:
        await sleep(pause.seconds)
    if pause.wait is not None:
        await pause.wait()


def _schedule(answer: Answer, *, bodiless: bool) -> deque[Pause]:
    """The pauses in order; those after the end of the body are moved to the end."""
    end = 0 if bodiless else sys.maxsize if answer.endless else len(answer.body)
    early = [pause for pause in answer.pauses if pause.at is None]
    late = [replace(p, at=min(p.at, end)) for p in answer.pauses if p.at is not None]
    return deque((*early, *sorted(late, key=lambda pause: pause.at or 0)))


def _due(pauses: deque[Pause], sent: int | None) -> Iterator[Pause]:
    while pauses:
        at = pauses[0].at
        if at is not None and (sent is None or at > sent):
            return
        yield pauses.popleft()


def _frame(answer: Answer) -> Iterator[tuple[bytes | memoryview, bool]]:
    """The body in parts, each with whether it is content rather than framing."""
    for body in repeat(answer.body) if answer.endless else (answer.body,):
        if answer.framing != "chunked":
            yield body, True
            continue
        size = answer.chunk or max(1, len(body))
        for at in range(0, len(body), size):
            chunk = memoryview(body)[at : at + size]
            yield b"%x\r\n" % len(chunk), False
            yield chunk, True
            yield b"\r\n", False
    if answer.framing == "chunked":
        yield b"0\r\n\r\n", False
