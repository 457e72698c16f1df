"""Limits on the heads of requests, over a transport in memory."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from asupplemented.serve.connections import HEAD_BYTES, HeadLimits

HEAD = b"GET /v2/ HTTP/1.1\r\nHost: registry.example\r\n\r\n"


class Handler:
    """What aiohttp's protocol would be: it keeps what it is given."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: object) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)

    def data_received(self, data: bytes) -> None:
        self.received += data


class Transport:
    """Keeps what is written, and says when it is closed."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed.set()

    def is_closing(self) -> bool:
        return self.closed.is_set()


class Connection:
    """A connection whose heads are limited."""

    def __init__(self, seconds: float) -> None:
        self.handler = Handler()
        self.transport = Transport()
        self.open: dict[object, HeadLimits] = {}
        self.limits = HeadLimits(cast("Any", self.handler), seconds=seconds, connections=self.open)
        self.limits.connection_made(cast("Any", self.transport))

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.limits.data_received(piece)

    async def wait_closed(self) -> bytes:
        """What the client is told when the connection is closed."""
        async with asyncio.timeout(60):
            await self.transport.closed.wait()
        return self.transport.written.partition(b"\r\n")[0]


@pytest.fixture
async def patient() -> Connection:
    """A connection that waits long for heads."""
    return Connection(3600)


@pytest.fixture
async def hurried() -> Connection:
    """A connection that waits for no head."""
    return Connection(0)


@pytest.mark.parametrize("begin", [b"G", b"\r\n\r\nGET /", HEAD[:-1]])
async def test_SRV43_a_head_that_does_not_end_is_refused(begin: bytes) -> None:
    connection = Connection(0)
    connection.send(begin)
    assert await connection.wait_closed() == b"HTTP/1.1 408 Request Timeout"
    connection.send(HEAD)
    assert connection.handler.received == begin


@pytest.mark.parametrize(
    "pieces", [(HEAD,), tuple(bytes([byte]) for byte in HEAD), (b"\r\n\r\n", HEAD)]
)
async def test_a_head_that_ends_has_no_time_limit(pieces: tuple[bytes, ...]) -> None:
    connection = Connection(0)
    connection.send(*pieces)
    connection.send(b"a body", b" of any length")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not connection.transport.is_closing()
    assert connection.handler.received == b"".join(pieces) + b"a body of any length"


async def test_a_head_that_was_handled_needs_no_end(patient: Connection) -> None:
    patient.send(HEAD[:-4])
    patient.limits.end_head()  # a parser may take other line breaks for its end
    patient.send(bytes(2 * HEAD_BYTES))
    assert not patient.transport.is_closing()


@pytest.mark.parametrize("size", [1, 1000, 10 * HEAD_BYTES])
@pytest.mark.parametrize("excess", [0, 1])
async def test_SRV43_the_size_of_a_head_is_limited(
    patient: Connection, size: int, excess: int
) -> None:
    head = HEAD[:-4] + b"\r\nx: "
    head += b"x" * (HEAD_BYTES - len(head) + excess) + b"\r\n\r\n"
    pieces = [head[at : at + size] for at in range(0, len(head), size)]
    patient.send(*pieces)
    if excess:
        assert await patient.wait_closed() == b"HTTP/1.1 431 Request Header Fields Too Large"
        assert len(patient.handler.received) <= HEAD_BYTES + 3
    else:
        patient.send(b"a body")
        assert patient.handler.received == head + b"a body"
        assert not patient.transport.is_closing()


async def test_the_next_head_is_limited_too() -> None:
    connection = Connection(0)
    for _ in range(3):
        connection.send(HEAD)
        connection.limits.begin_head()
    await asyncio.sleep(0)
    assert not connection.transport.is_closing(), "no head has begun"
    connection.send(b"GET")
    assert await connection.wait_closed() == b"HTTP/1.1 408 Request Timeout"


async def test_a_connection_that_ends_is_forgotten_with_its_timer(hurried: Connection) -> None:
    hurried.send(b"GET")
    assert hurried.open == {hurried.handler: hurried.limits}
    error = ConnectionResetError()
    hurried.limits.connection_lost(error)
    assert hurried.handler.lost == [error]
    assert not hurried.open
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not hurried.transport.written
