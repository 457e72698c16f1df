"""Listening: connections, counters, the request log, and an end that leaves nothing behind."""

from __future__ import annotations

import abc
import asyncio
from typing import TYPE_CHECKING, Final

from asupplemented.abc import AsyncResource
from asupplemented.errors import UsageError
from asupplemented.testing.exchange import fail
from asupplemented.testing.recorder import Recorder
from asupplemented.testing.wire import Connection

if TYPE_CHECKING:
    import ssl
    from typing import Self

    from asupplemented.testing.exchange import Answer, Request
    from asupplemented.testing.steps import Sleep

__all__ = ("Server",)

LOCAL: Final = "127.0.0.1"
HANDSHAKE_SECONDS: Final = 5.0


class Server(Recorder, AsyncResource):
    """Listens on 127.0.0.1, logs requests, and sends the answers that a subclass makes.

    It belongs to the event loop that enters it. Leaving it ends every connection at once.

    Args:
        tls: Speak TLS with this context; None for plain HTTP.
        sleep: What pauses by the clock; inject another one to make pauses short.
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
        """Connections accepted so far; over TLS, those that finished the handshake."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def start(self, port: int = 0) -> None:
        """Start to listen; entering the server does the same.

        Args:
            port: TCP port, 0 for any free one.
        """
        if self._listener is not None:
            raise UsageError(f"the server listens already, on {self.host}")
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._note_opened, self._note_closed, self._exchange),
            LOCAL,
            port,
            ssl=self._tls,
            ssl_handshake_timeout=None if self._tls is None else HANDSHAKE_SECONDS,
        )
        self._port = self._listener.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Stop listening and end every connection. May be called again.

        Raises:
            ExceptionGroup: What a script was given raised; the clients were told 500, or nothing.
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
        """``127.0.0.1:PORT``, as a reference names it. It stays the same after the end.

        Raises:
            UsageError: The server was never entered.
        """
        if self._port is None:
            raise UsageError("the server has no port yet: enter it first, or await start()")
        return f"{LOCAL}:{self._port}"

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, or https, without a slash at the end."""
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
            except Exception as error:  # noqa: BLE001  # a pause waits for whatever it is given
                self._failures.append(error)
                return False

    async def _try_to_respond(self, request: Request) -> Answer:
        try:
            return await self.respond(request)
        except Exception as error:  # noqa: BLE001  # shown to the test when the server is left
            self._failures.append(error)
            return fail(500, "UNKNOWN", f"the server for tests failed: {type(error).__name__}")
