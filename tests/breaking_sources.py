"""Sources that break off by script, and what must come of it: a serial model of failover."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self, TypeAlias

from asupplemented.abc import Served
from asupplemented.aio.retry import CLOCK
from asupplemented.blobs.hashing import HASHING, Hashing
from asupplemented.errors import (
    BlobNotFoundError,
    NetworkError,
    ServerError,
    SourceTimeoutError,
    TooManyRequestsError,
    UnauthorizedError,
)
from asupplemented.session import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from asupplemented.abc import BlobFile, RawBlob
    from asupplemented.events import CacheUse, Event
    from tests.candidates import Ledger
    from tests.clocks import FakeClock

Kind: TypeAlias = Literal[
    "serve", "reset", "fin", "stall", "long", "refuse", "down", "miss", "busy", "denied"
]
BEFORE: dict[Kind, Callable[[], Exception]] = {
    "refuse": lambda: NetworkError("nobody is there"),
    "down": lambda: ServerError("it failed", status=503),
    "miss": lambda: BlobNotFoundError("it is not here"),
    "busy": lambda: TooManyRequestsError("not now", status=429, retry_after=7.0),
    "denied": lambda: UnauthorizedError("who are you?", status=401),
}
"""What goes wrong in place of an answer."""
BREAKS: dict[Kind, Callable[[], Exception]] = {
    "reset": lambda: NetworkError("it was reset"),
    "stall": lambda: SourceTimeoutError("nothing came"),
}


class Turn(NamedTuple):
    """What becomes of one request."""

    kind: Kind = "serve"
    at: int = 0
    """Offset within the blob of the first byte that does not come."""
    etag: str | None = None
    claims: int | None = None
    """The size that is announced, None for none."""
    whole: bool = False
    """It answers with everything, whatever range was asked for."""


@dataclass
class Source:
    """A candidate on the wire that takes one turn after another; the last one goes on for ever.

    Attributes:
        data: What it has.
        turns: What becomes of the requests.
        ledger: Where it takes notes.
        name: Its reference.
        member: Its number.
        chunk: Bytes at once.
    """

    data: bytes
    turns: Sequence[Turn]
    ledger: Ledger
    name: str = "source"
    member: int | None = None
    chunk: int = 7
    asked: list[tuple[int, int | None, str | None]] = field(default_factory=list)
    """Start, end and validator of each request."""
    opened: int = 0
    closed: int = 0

    cache_use: ClassVar[CacheUse] = "miss"

    @property
    def reference(self) -> str:
        return self.name

    def open(self, start: int = 0, end: int | None = None, etag: str | None = None) -> RawBlob:
        self.ledger.asked.append((self.name, start, end))
        turn = self.turns[min(len(self.asked), len(self.turns) - 1)]
        self.asked.append((start, end, etag))
        return _Answer(self, turn, start, end)

    async def open_file(self) -> BlobFile | None:
        return None


class _Answer:
    def __init__(self, source: Source, turn: Turn, start: int, end: int | None) -> None:
        self._source = source
        self._turn = turn
        self._end = len(source.data) if end is None or turn.whole else end
        self.start = 0 if turn.whole else start
        self._position = self.start
        self._data = source.data + b"more than there is" * (turn.kind == "long")
        if turn.kind == "long":
            self._end = len(self._data)
        self.size = turn.claims
        self.etag = turn.etag

    async def __aenter__(self) -> Self:
        await asyncio.sleep(0)
        if (fault := BEFORE.get(self._turn.kind)) is not None:
            raise fault()
        self._source.opened += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._source.closed += 1
        await asyncio.sleep(0)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        assert self._source.closed < self._source.opened, "read after it was closed"
        await asyncio.sleep(0)
        stop = min(self._position + self._source.chunk, self._end)
        if self._turn.kind in {"fin", *BREAKS}:
            stop = min(stop, max(self._turn.at, self._position))
        if stop <= self._position:
            if self._position < self._end and (fault := BREAKS.get(self._turn.kind)) is not None:
                raise fault()
            raise StopAsyncIteration
        chunk = self._data[self._position : stop]
        self._position = stop
        return chunk


@contextlib.asynccontextmanager
async def session_on(
    clock: FakeClock, told: list[Event] | None = None, threads: int = 0
) -> AsyncIterator[Session]:
    """A session in which nothing waits."""
    async with Session(hooks=[] if told is None else [told.append]) as session:
        session.resource(CLOCK, lambda: clock.clock)
        session.resource(HASHING, lambda: Hashing(threads=threads))
        yield session


def claiming(turns: Sequence[Turn], size: int | None) -> list[Turn]:
    """The same turns, each announcing a size."""
    return [turn._replace(claims=size) for turn in turns]


class Expected(NamedTuple):
    """What the serial model says of a blob."""

    asked: list[tuple[str, int]]
    """Name and offset of each request, in order."""
    served: list[Served]
    served_all: bool
    """Whether the last byte came, and the end behind it."""


def serve_serially(
    size: int, sources: Sequence[tuple[str, int | None, Sequence[Turn]]]
) -> Expected:
    """What becomes of a blob that is too small for anybody to be asked a third time.

    Each source in turn is asked at the byte that is missing, and once more if it breaks off.
    """
    asked: list[tuple[str, int]] = []
    served: list[Served] = []
    position = 0
    for name, member, turns in sources:
        for attempt in range(2):
            turn = turns[min(attempt, len(turns) - 1)]
            asked.append((name, position))
            if turn.kind in BEFORE:
                break
            end = size if turn.kind == "serve" else min(size, max(turn.at, position))
            if end > position:
                if served and served[-1][:2] == (name, member):
                    served[-1] = served[-1]._replace(end=end)
                else:
                    served.append(Served(name, member, position, end))
            position = end
            if position == size:
                return Expected(asked, served, served_all=True)
    return Expected(asked, served, served_all=False)


def copy_of(source: Source, ledger: Ledger) -> Source:
    """The same source for another reading."""
    return dataclasses.replace(source, ledger=ledger, asked=[], opened=0, closed=0)
