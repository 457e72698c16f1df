"""Candidates of a blob that do as they are told: on the wire, and on disk."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Self

import pytest

from asupplemented.abc import AsyncResource
from asupplemented.aio.threads import run_opening
from asupplemented.blobs.blob_file import open_blob_file
from asupplemented.errors import SupplementedError
from asupplemented.limits import CHUNK_MAX, MIB, SMALL_BLOB
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from asupplemented.abc import BlobFile, BlobStream, Context, RawBlob
    from asupplemented.events import CacheUse

DATA = bytes(range(256)) * 4
"""A small blob."""
LARGE = random.Random(1).randbytes(SMALL_BLOB + MIB + 5)
"""A blob that is handed out before it is verified."""
WRONG = DATA[:500] + b"?" + DATA[501:]
"""`DATA` with one wrong byte."""


@dataclass
class Ledger:
    """What candidates were asked, and what of it is still open."""

    asked: list[tuple[str, int, int | None]] = field(default_factory=list)
    """Name, start and end, in order."""
    bodies: list[Body] = field(default_factory=list)
    """All that were entered with success."""
    holds: int = 0
    """Candidates that are held."""

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.asked]

    @property
    def left_open(self) -> int:
        return sum(not body.closed for body in self.bodies)


@dataclass
class Wire:
    """A candidate that streams what it has, in chunks of any size.

    Attributes:
        data: What it has.
        ledger: Where it takes notes.
        name: Its reference.
        member: Its number.
        sizes: Sizes of the chunks, taken in turn; the last one is used for the rest.
        claims: The size that it announces; None announces none, "right" that of `data`.
        refuses: Raised in place of an answer.
        breaks: Offset at which `error` is raised, None for nowhere.
        error: Makes that error.
        pause: Seconds before each chunk.
        ignores_ranges: Whether it answers with everything, whatever was asked for.
    """

    data: bytes
    ledger: Ledger
    name: str = "wire"
    member: int | None = None
    sizes: Sequence[int] = (1 << 16,)
    claims: int | str | None = "right"
    refuses: Exception | None = None
    breaks: int | None = None
    error: Callable[[], Exception] = ConnectionResetError
    pause: float = 0
    ignores_ranges: bool = False
    fails_to_close: Exception | None = None

    local: ClassVar[bool] = False
    cache_use: ClassVar[CacheUse] = "miss"

    @property
    def reference(self) -> str:
        return self.name

    def hold(self) -> AsyncResource:
        return Hold(self.ledger)

    def open(self, start: int = 0, end: int | None = None, etag: str | None = None) -> RawBlob:
        self.ledger.asked.append((self.name, start, end))
        return Body(self, 0 if self.ignores_ranges else start, None if self.ignores_ranges else end)

    async def open_file(self) -> BlobFile | None:
        return None


class Hold(AsyncResource):
    """Counts while it is open."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger: Ledger | None = ledger
        ledger.holds += 1

    async def aclose(self) -> None:
        if self.ledger is not None:
            self.ledger.holds -= 1
            self.ledger = None


class Body:
    """One answer of a `Wire`."""

    def __init__(self, wire: Wire, start: int, end: int | None) -> None:
        self.wire = wire
        self.start = start
        self.size = len(wire.data) if isinstance(wire.claims, str) else wire.claims
        self.etag: str | None = None
        self.closed = False
        self.ended = False
        """The end of the body was told."""
        self._position = start
        self._end = len(wire.data) if end is None else min(end, len(wire.data))
        self._sizes = list(wire.sizes)

    async def __aenter__(self) -> Self:
        await asyncio.sleep(0)
        if self.wire.refuses is not None:
            raise self.wire.refuses
        self.wire.ledger.bodies.append(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True
        await asyncio.sleep(0)
        if self.wire.fails_to_close is not None:
            raise self.wire.fails_to_close

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        assert not self.closed, "read after it was closed"
        await asyncio.sleep(self.wire.pause)
        size = self._sizes.pop(0) if len(self._sizes) > 1 else self._sizes[0]
        stop = min(self._position + size, self._end)
        if self.wire.breaks is not None and stop >= self.wire.breaks:
            stop = self.wire.breaks
            if self._position >= stop:
                raise self.wire.error()
        if self._position >= self._end:
            self.ended = True
            raise StopAsyncIteration
        chunk = self.wire.data[self._position : stop]
        self._position = stop
        return chunk


@dataclass
class Disk:
    """A candidate that has the blob in a file."""

    path: Path
    context: Context
    name: str = "disk"
    member: int | None = None
    offset: int = 0
    size: int | None = None

    local: ClassVar[bool] = True
    cache_use: ClassVar[CacheUse] = ""

    @property
    def reference(self) -> str:
        return self.name

    def hold(self) -> AsyncResource:
        return Hold(Ledger())

    def open(self, start: int = 0, end: int | None = None, etag: str | None = None) -> RawBlob:
        message = "there is a file"
        raise AssertionError(message)

    async def open_file(self) -> BlobFile | None:
        opener = partial(open_blob_file, self.path)
        file = await run_opening(self.context, opener, lambda late: late.close())
        file.offset = self.offset
        file.size = file.size if self.size is None else self.size
        return file


def describe(data: bytes, *, sized: bool = True, algorithm: str = "sha256") -> Descriptor:
    size = len(data) if sized else None
    return Descriptor(digest=Digest.of(data, algorithm), size=size)


async def drain(stream: BlobStream, *, turns: int = 0) -> bytes:
    """Read a stream to its end.

    Args:
        stream: It is opened and closed.
        turns: How many turns of the event loop the reader takes for a chunk.
    """
    chunks: list[bytes] = []
    async with stream:
        async for chunk in stream:
            assert 1 <= len(chunk) <= CHUNK_MAX
            chunks.append(chunk)
            for _ in range(turns):
                await asyncio.sleep(0)
    return b"".join(chunks)


async def fail(stream: BlobStream) -> tuple[bytes, SupplementedError]:
    """Read a stream that fails: what it gives before the error, and the error."""
    received = b""
    try:
        async with stream:
            async for chunk in stream:
                assert chunk
                received += chunk
    except SupplementedError as error:
        assert stream.verified is False
        return received, error
    pytest.fail("the stream ended without an error")
