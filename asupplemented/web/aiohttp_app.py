"""The registry as an `aiohttp.web.Application`.

aiohttp keeps a connection whose body was too short, and the next answer would land in the blob
(rule SRV-36). So once the head is out, whatever goes wrong aborts the transport. aiohttp does not
tell a handler that its client has gone, either (rule SRV-38): a watch looks at the transport once a
second, and at whether the client still takes bytes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Final

from aiohttp import web

from asupplemented.errors import SupplementedError
from asupplemented.web.exchange import Limits, Service, report
from asupplemented.web.request import Request, strip_mount
from asupplemented.web.sendfile import can_send, send_file

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from asupplemented.session import Session
    from asupplemented.web.access import Authenticate
    from asupplemented.web.contract import ServedCatalog
    from asupplemented.web.exchange import Exchange, FileReader
    from asupplemented.web.ranges import Span

    Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ("registry_app", "registry_handler")

LOOK: Final = 1.0
"""Seconds between two looks at a connection."""

_TAIL: Final = "{tail}"
_TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None)
_BYTES_ACKED: Final = struct.Struct("=120xQ")
"""``tcpi_bytes_acked`` in Linux's ``struct tcp_info``."""


def registry_app(
    catalog: ServedCatalog,
    session: Session,
    *,
    authenticate: Authenticate | None = None,
    limits: Limits | None = None,
    hide_refused: bool = False,
) -> web.Application:
    """Make an application that serves a catalog as a read-only registry.

    Mount it with ``app.add_subapp("/v2/", registry_app(...))``, or run it as it is. It closes
    neither the catalog nor the session.

    Args:
        catalog: The images by their names.
        session: What they are opened with. With `authenticate`, a scoped session is made of it
            for each request.
        authenticate: Decides who a client is; None serves everyone with `session` itself.
        limits: How long clients wait.
        hide_refused: Whether what upstream refuses (401, 403) is answered with 404 rather than
            502.

    Returns:
        The application. To accept more than 8190 bytes in a header, as podman sends for images
        in zstd:chunked, run it with ``max_field_size=65536`` (rule SRV-27).
    """
    handler = registry_handler(
        catalog, session, authenticate=authenticate, limits=limits, hide_refused=hide_refused
    )
    app = web.Application()
    for path in (r"/{tail:[\s\S]*}", ""):  # also with encoded line breaks
        app.router.add_route("*", path, handler)
    return app


def registry_handler(
    catalog: ServedCatalog,
    session: Session,
    *,
    authenticate: Authenticate | None = None,
    limits: Limits | None = None,
    hide_refused: bool = False,
) -> Handler:
    """Make what handles the requests of `registry_app`, for an application with its own routes."""
    service = Service(
        catalog,
        session,
        authenticate=authenticate,
        limits=limits or Limits(),
        hide_refused=hide_refused,
    )
    watches = _Watches(service.limits.write)

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _respond(service, watches, request)

    return handle


async def _respond(service: Service, watches: _Watches, request: web.Request) -> web.StreamResponse:
    exchange = service.exchange(_read(service, request))
    if exchange.begin():
        async with exchange:
            return await _send_bytes(request, exchange)
    watch = watches.begin(request)
    try:
        async with exchange:
            if exchange.parts is None:
                return await _send_bytes(request, exchange)
            return await _send_blob(request, exchange, watch)
    finally:
        watches.end(watch)


def _read(service: Service, request: web.Request) -> Request:
    resource = request.match_info.route.resource
    mount = "" if resource is None else resource.canonical.removesuffix(_TAIL)
    target = request.raw_path
    path, base = strip_mount(target, mount)
    return Request(
        method=request.method,
        path=path,
        query=target.partition("?")[2],
        headers=tuple([(name.lower(), value) for name, value in request.headers.items()]),
        base=base,
        client=request.remote if service.names_clients else None,
        scheme=request.scheme if service.names_clients else "http",
    )


async def _send_bytes(request: web.Request, exchange: Exchange) -> web.Response:
    # Prepared here, so that no middleware compresses it (rule SRV-31).
    answer = exchange.answer
    assert isinstance(answer.body, bytes)  # noqa: S101 - parts are sent by _send_blob
    response = web.Response(status=answer.status, headers=answer.headers, body=answer.body or None)
    await response.prepare(request)
    await response.write_eof()
    exchange.add_sent(len(answer.body))
    exchange.finish()
    return response


async def _send_blob(request: web.Request, exchange: Exchange, watch: _Watch) -> web.StreamResponse:
    answer = exchange.answer
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    complete = False
    try:
        await response.prepare(request)
        for piece in exchange.pieces():
            if isinstance(piece, bytes):
                await watch.write(response, piece)
                exchange.add_sent(len(piece))
            elif exchange.file is not None:
                await _send_file(request, response, exchange, exchange.file, piece, watch)
            else:
                async for chunk in await exchange.open_range(piece):
                    await watch.write(response, chunk)
                    exchange.add_sent(len(chunk))
        await response.write_eof()
        complete = True
        exchange.finish()
    except (SupplementedError, ConnectionError) as error:
        exchange.fail(error)  # The client sees the cut.
    except Exception as error:  # noqa: BLE001 - raised, it would be answered on this connection
        exchange.fail(error)
        report("sending a blob failed", error)
    finally:
        if not complete:
            response.force_close()
            if request.transport is not None:
                request.transport.abort()
    return response


async def _send_file(
    request: web.Request,
    response: web.StreamResponse,
    exchange: Exchange,
    file: FileReader,
    span: Span,
    watch: _Watch,
) -> None:
    start, end = span
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    if can_send(transport):
        watch.begin()
        try:
            opened, on_sent = file.file.fileno(), exchange.add_sent
            if await send_file(transport, opened, start, end, on_sent=on_sent):
                return
        finally:
            watch.end()
    while start < end:
        block = await file.read(start, end - start)
        await watch.write(response, block)
        exchange.add_sent(len(block))
        start += len(block)


class _Watch:
    """Looks at a connection: has the client gone, and does it take what it is sent?

    A client that has gone cancels the handler. One that takes no byte for too long is cut off.
    """

    __slots__ = ("_idle", "_loop", "_request", "_taken", "_task", "_writing")

    def __init__(self, request: web.Request, loop: asyncio.AbstractEventLoop) -> None:
        self._request = request
        self._task = asyncio.current_task(loop)
        self._loop = loop
        self._writing = False
        self._idle = 0.0
        self._taken = 0

    def begin(self) -> None:
        """A write begins."""
        self._writing, self._idle = True, self._loop.time()

    def end(self) -> None:
        """A write is over."""
        self._writing = False

    async def write(self, response: web.StreamResponse, chunk: bytes) -> None:
        """Write to the client, as fast as it reads."""
        self.begin()
        try:
            await response.write(chunk)
        finally:
            self.end()

    def look(self, now: float, limit: float) -> None:
        """Look at the connection once.

        Args:
            now: The time of the event loop.
            limit: Seconds without a byte taken.
        """
        transport = self._request.transport
        if transport is None or transport.is_closing():
            task, self._task = self._task, None
            if task is not None:
                task.cancel()  # once: it is closing what it used then
            return
        if not self._writing:
            return
        taken = _count_taken(transport)
        if taken != self._taken:
            self._taken, self._idle = taken, now
        elif now - self._idle >= limit:
            transport.abort()


def _count_taken(transport: asyncio.WriteTransport) -> int:
    """A number that changes when the client takes bytes.

    The kernel knows what the other side acknowledged, also within a slice that it sends by itself.
    Where it does not tell, only the buffer of the transport is seen.
    """
    connection = transport.get_extra_info("socket")
    if _TCP_INFO is not None and connection is not None:
        try:
            info: bytes = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _BYTES_ACKED.size)
        except OSError:
            info = b""
        if len(info) == _BYTES_ACKED.size:
            (acknowledged,) = _BYTES_ACKED.unpack(info)
            return int(acknowledged)
    return transport.get_write_buffer_size()


class _Watches:
    """The watches of all requests, with one timer.

    Args:
        limit: Seconds without a byte taken by a client.
    """

    __slots__ = ("_limit", "_timer", "_watches")

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._timer: asyncio.TimerHandle | None = None
        self._watches: set[_Watch] = set()

    def begin(self, request: web.Request) -> _Watch:
        """Watch the connection of a request that the running task handles."""
        loop = asyncio.get_running_loop()
        watch = _Watch(request, loop)
        self._watches.add(watch)
        if self._timer is None:
            self._timer = loop.call_later(LOOK, self._look, loop)
        return watch

    def end(self, watch: _Watch) -> None:
        """The request was answered, or was given up."""
        self._watches.discard(watch)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for watch in tuple(self._watches):
            watch.look(now, self._limit)
        if self._watches:
            self._timer = loop.call_later(LOOK, self._look, loop)
