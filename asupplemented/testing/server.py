"""An HTTP/1.1 server on 127.0.0.1 that sends exactly the bytes that an `Answer` describes.

It uses `asyncio.Protocol` and no HTTP library, so that it can send malformed answers, and so that
the client under test shares no code with it.
"""

from __future__ import annotations

import abc
import asyncio
import fcntl
import socket
import struct
import termios
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from asupplemented.abc import AsyncResource
from asupplemented.errors import UsageError
from asupplemented.testing.exchange import BODILESS, Pause, Request, fail
from asupplemented.testing.recorder import Recorder
from asupplemented.testing.steps import sit_out, take_steps

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from typing import Self

    from asupplemented.testing.exchange import Answer
    from asupplemented.testing.steps import Sleep

__all__ = ("BadRequestError", "Connection", "Exchange", "Server")

MAX_HEAD: Final = 256 * 1024
TLS_RECORD: Final = b"\x16"
"""The first byte of a TLS handshake."""
MAX_BODY: Final = 1024 * 1024
WRITE_SIZE: Final = 256 * 1024
POLL_SECONDS: Final = 0.001
REFUSAL: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


Exchange: TypeAlias = "Callable[[Connection, Request], Awaitable[bool]]"
"""Answers a request; returns whether the connection can be used again."""


class BadRequestError(Exception):
    """The client sent bytes that are not a request, or one that is too large."""


class Connection(asyncio.Protocol):
    """One connection: a buffer of received bytes, and a task that answers requests.

    If the client closes its side, the answer in progress is cancelled.

    Args:
        opened: Called with the connection when it opens; returns its number.
        closed: Called with the connection when it ends.
        exchange: Answers a request.
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
        """Abort the connection.

        Returns:
            The task of the connection, to await its end.
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
            # A TLS handshake to a plain server is refused at once, as real servers do.
            if len(self._buffer) > MAX_HEAD or self._buffer.startswith(TLS_RECORD):
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
        """Send an answer with all its pauses.

        Returns:
            Whether the connection can be used again. If not, it is closed, or closes when all
            bytes are sent.
        """
        close = not self._reusable or _ends_connection(answer)
        head = b"" if answer.bare else answer.encode_head(close=close)
        bodiless = request.method == "HEAD" or answer.status in BODILESS
        for step in take_steps(answer, head, bodiless=bodiless):
            if not isinstance(step, Pause):
                await self._write(step)
            elif not await self._pause(step, sleep):
                return False
        await self._flush()
        return not close

    async def _write(self, data: bytes | memoryview) -> None:
        """Buffer small writes, so that an answer without pauses is sent in one write."""
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

    async def _pause(self, pause: Pause, sleep: Sleep) -> bool:
        """Wait as a pause says; return whether the connection stays open."""
        await self._flush()
        await sit_out(pause, sleep)
        if pause.end == "rst":
            await self._reset()
        return pause.end is None

    async def _reset(self) -> None:
        """Send RST once the client's system has acknowledged all bytes."""
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


def _unacknowledged(raw: socket.socket) -> int:
    """Bytes that the system of the client has not acknowledged."""
    answer = fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    count: int = struct.unpack("i", answer)[0]
    return count


LOCAL: Final = "127.0.0.1"
HANDSHAKE_SECONDS: Final = 5.0


class Server(Recorder, AsyncResource):
    """Listens on 127.0.0.1, logs requests, and sends the answers that a subclass makes.

    It belongs to the event loop that enters it. Leaving it aborts every connection.

    Args:
        tls: The TLS context; None for plain HTTP.
        sleep: Sleeps for a number of seconds; inject another one to make pauses short.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, sleep: Sleep = asyncio.sleep) -> None:
        super().__init__()
        self._tls = tls
        self._sleep = sleep
        self._listener: asyncio.Server | None = None
        self._port: int | None = None
        self._live: set[Connection] = set()
        self._failures: list[Exception] = []
        self.connections = 0
        """Connections accepted so far; with TLS, those that finished the handshake."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def start(self, port: int = 0) -> None:
        """Start to listen; entering the server does the same.

        Args:
            port: The TCP port; 0 for any free one.

        Raises:
            UsageError: It listens already.
        """
        if self._listener is not None:
            raise UsageError(f"the server is already listening on {self.host}")
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._note_opened, self._note_closed, self._exchange),
            LOCAL,
            port,
            ssl=self._tls,
            ssl_handshake_timeout=None if self._tls is None else HANDSHAKE_SECONDS,
        )
        self._port = self._listener.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Stop listening and abort every connection. May be called again.

        Raises:
            ExceptionGroup: Errors that scripts raised while requests were answered.
        """
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.close()
        tasks = [connection.abort() for connection in self._live]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.wait_until(lambda: not self._live)
        await listener.wait_closed()
        failures, self._failures = self._failures, []
        if failures:
            raise ExceptionGroup("a server for tests could not answer", failures)

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``, as in a reference. It stays valid after the server is closed.

        Raises:
            UsageError: The server was never entered.
        """
        if self._port is None:
            raise UsageError("the server has no port yet: enter it first, or await start()")
        return f"{LOCAL}:{self._port}"

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, or https, without a trailing slash."""
        return f"{'http' if self._tls is None else 'https'}://{self.host}"

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._live)

    @abc.abstractmethod
    async def respond(self, request: Request) -> Answer:
        """Make the answer to a request."""

    def _note_opened(self, connection: Connection) -> int:
        self.connections += 1
        self._live.add(connection)
        self._pulse()
        return self.connections

    def _note_closed(self, connection: Connection) -> None:
        self._live.discard(connection)
        self._pulse()

    async def _exchange(self, connection: Connection, request: Request) -> bool:
        with self._counted(request):
            answer = await self._try_to_respond(request)
            try:
                return await connection.send(answer, request, self._sleep)
            except Exception as error:  # noqa: BLE001  # a pause awaits what a test has given it
                self._failures.append(error)
                return False

    async def _try_to_respond(self, request: Request) -> Answer:
        try:
            return await self.respond(request)
        except Exception as error:  # noqa: BLE001  # raised when the server is closed
            self._failures.append(error)
            return fail(500, "UNKNOWN", f"the server for tests failed: {type(error).__name__}")
