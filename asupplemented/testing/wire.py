"""One HTTP/1.1 connection, byte for byte: reads requests, sends answers as they are told to be.

It stands on `asyncio.Protocol` alone, so that what it sends is what an `Answer` says, and so
that a client under test never meets a server that shares its HTTP code.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections import deque
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

from asupplemented.testing.exchange import BODILESS, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from asupplemented.testing.exchange import Answer, Pause

__all__ = ("BadRequestError", "Connection", "Exchange", "Sleep")

MAX_HEAD: Final = 256 * 1024
MAX_BODY: Final = 1024 * 1024
WRITE_SIZE: Final = 256 * 1024
POLL_SECONDS: Final = 0.001
REFUSAL: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Sleep(Protocol):
    """Pauses by a clock, as `asyncio.sleep` does."""

    def __call__(self, seconds: float, /) -> Awaitable[object]: ...


Exchange: TypeAlias = "Callable[[Connection, Request], Awaitable[bool]]"
"""Answers a request; returns whether the connection may carry another one."""


class BadRequestError(Exception):
    """Bytes that are no request, or one too large to be wanted."""


class Connection(asyncio.Protocol):
    """A buffer that requests are read from, and a task that has them answered.

    A client that closes its side has left: what it was being sent is cancelled.

    Args:
        opened: Takes note of the connection and numbers it.
        closed: Takes note of its end.
        exchange: Answers its requests.
    """

    def __init__(
        self,
        opened: Callable[[Connection], int],
        closed: Callable[[Connection], None],
        exchange: Exchange,
    ) -> None:
        self._opened = opened
        self._closed = closed
        self._exchange = exchange
        self._buffer = bytearray()
        self._out = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._reusable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._peer: tuple[str, int] | None = transport.get_extra_info("peername")
        self._number = self._opened(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._arrived.set()

    def eof_received(self) -> bool:
        self._task.cancel()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # a fixed name
        self._task.cancel()
        self._closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def abort(self) -> asyncio.Task[None]:
        """End the connection now.

        Returns:
            The task to await until that is done.
        """
        self._task.cancel()
        self._transport.abort()
        return self._task

    async def _serve(self) -> None:
        try:
            while self._reusable:
                request = await self._read_request()
                if not await self._exchange(self, request):
                    break
            self._transport.close()
        except BadRequestError:
            self._transport.write(REFUSAL)
            self._transport.close()
        except BaseException:
            self._transport.abort()
            raise

    async def _read_request(self) -> Request:
        head = await self._take_head()
        request_line, *lines = head.decode("latin-1").split("\r\n")
        try:
            method, target, version = request_line.split(" ")
            headers = tuple(_split_header(line) for line in lines)
        except ValueError as error:
            raise BadRequestError from error
        request = Request(method, target, headers, peer=self._peer, connection=self._number)
        options = (request.header("Connection") or "").lower()
        self._reusable = version == "HTTP/1.1" and "close" not in options
        return await self._with_body(request)

    async def _take_head(self) -> bytes:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise BadRequestError
            await self._more()
        return self._take(end + 4)[:-4]

    async def _with_body(self, request: Request) -> Request:
        length = request.header("Content-Length") or "0"
        chunked = request.header("Transfer-Encoding") is not None
        if chunked or not length.isdecimal() or int(length) > MAX_BODY:
            raise BadRequestError
        while len(self._buffer) < int(length):
            await self._more()
        now = asyncio.get_running_loop().time()
        return replace(request, body=self._take(int(length)), time=now)

    async def _more(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def send(self, answer: Answer, request: Request, sleep: Sleep) -> bool:
        """Put an answer on the wire, with all its pauses.

        Returns:
            Whether the connection may carry another one. If not, it is closed, or will be when
            what was written is out.
        """
        close = not self._reusable or _ends_connection(answer)
        bodiless = request.method == "HEAD" or answer.status in BODILESS
        pauses = _schedule(answer, bodiless=bodiless)
        if not await self._pause(pauses, None, sleep):
            return False
        if not answer.bare:
            await self._write(answer.encode_head(close=close))
        if not await self._pause(pauses, 0, sleep):
            return False
        if not bodiless and not await self._send_body(answer, pauses, sleep):
            return False
        await self._flush()
        return not close

    async def _send_body(self, answer: Answer, pauses: deque[Pause], sleep: Sleep) -> bool:
        sent = 0
        for data, is_content in _frame(answer):
            view = memoryview(data)
            while view:
                stop = len(view)
                if is_content and pauses and pauses[0].at is not None:
                    stop = min(stop, pauses[0].at - sent)
                await self._write(view[:stop])
                view = view[stop:]
                sent += stop if is_content else 0
                if is_content and not await self._pause(pauses, sent, sleep):
                    return False
        return True

    async def _write(self, data: bytes | memoryview) -> None:
        """Gather what is small, so that an answer without pauses leaves in one piece."""
        for at in range(0, len(data), WRITE_SIZE):
            self._out += data[at : at + WRITE_SIZE]
            if len(self._out) >= WRITE_SIZE:
                await self._flush()
                await asyncio.sleep(0)

    async def _flush(self) -> None:
        if self._out:
            self._transport.write(bytes(self._out))
            self._out.clear()
        await self._writable.wait()

    async def _pause(self, pauses: deque[Pause], sent: int | None, sleep: Sleep) -> bool:
        """Go through the pauses that are due; return whether the connection lives on."""
        while pauses and _is_due(pauses[0], sent):
            pause = pauses.popleft()
            await self._flush()
            if pause.seconds > 0:
                await sleep(pause.seconds)
            if pause.wait is not None:
                await pause.wait()
            if pause.end == "rst":
                await self._reset()
            if pause.end is not None:
                return False
        return True

    async def _reset(self) -> None:
        """Send RST once the client's system has acknowledged all that was written."""
        raw: socket.socket = self._transport.get_extra_info("socket")
        while self._transport.get_write_buffer_size() or _unacknowledged(raw):  # noqa: ASYNC110  # polled
            await asyncio.sleep(POLL_SECONDS)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


def _split_header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name:
        raise ValueError(line)
    return name, value.strip(" \t")


def _ends_connection(answer: Answer) -> bool:
    lies = answer.claim is not None and answer.claim != len(answer.body)
    return answer.bare or answer.framing == "close" or answer.endless or lies


def _schedule(answer: Answer, *, bodiless: bool) -> deque[Pause]:
    """The pauses in order, those past the end of the body moved to it."""
    end = 0 if bodiless else sys.maxsize if answer.endless else len(answer.body)
    early = [pause for pause in answer.pauses if pause.at is None]
    late = [replace(p, at=min(p.at, end)) for p in answer.pauses if p.at is not None]
    return deque((*early, *sorted(late, key=lambda pause: pause.at or 0)))


def _is_due(pause: Pause, sent: int | None) -> bool:
    return pause.at is None or (sent is not None and pause.at <= sent)


def _frame(answer: Answer) -> Iterator[tuple[bytes | memoryview, bool]]:
    """The body in pieces, each with whether it is content rather than framing."""
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


def _unacknowledged(raw: socket.socket) -> int:
    """Bytes that the other side's system has not acknowledged."""
    answer = fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    count: int = struct.unpack("i", answer)[0]
    return count
