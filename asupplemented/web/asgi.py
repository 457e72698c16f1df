"""The registry as an ASGI application: Starlette, FastAPI, uvicorn, hypercorn, granian.

Servers close the connection of an application that raises before the end of its body (rule
SRV-37), so that is how a blob is cut. ``send`` does not fail after a client has gone; a watch
receives until the server says so, and cancels what is being done for that client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote

from asupplemented.errors import SourceTimeoutError, UnsupportedOperationError
from asupplemented.web.exchange import Limits, Service
from asupplemented.web.request import Request, strip_mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asupplemented.session import Session
    from asupplemented.web.access import Authenticate
    from asupplemented.web.answers import Answer
    from asupplemented.web.contract import ServedCatalog
    from asupplemented.web.exchange import Exchange, FileReader
    from asupplemented.web.ranges import Span

__all__ = ("ASGIApplication", "asgi_app")

_Scope: TypeAlias = MutableMapping[str, Any]
_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
ASGIApplication: TypeAlias = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

LOOK: Final = 1.0
"""Seconds until a request that is not answered yet is watched."""

SLICE: Final = 256 * 1024
"""The most bytes of one message, so that a slow reader shows its progress."""

_PATHSEND: Final = "http.response.pathsend"
_OK: Final = 200


def asgi_app(
    catalog: ServedCatalog,
    session: Session,
    *,
    authenticate: Authenticate | None = None,
    limits: Limits | None = None,
    hide_refused: bool = False,
) -> ASGIApplication:
    """Make an ASGI application that serves a catalog as a read-only registry.

    Mount it with ``app.mount("/v2", asgi_app(...))`` or ``app.mount("/", ...)``, or run it as it
    is. It closes neither the catalog nor the session, and runs on the event loop of the session.

    Args:
        catalog: The images by their names.
        session: What they are opened with. With `authenticate`, a scoped session is made of it
            for each request.
        authenticate: Decides who a client is; None serves everyone with `session` itself.
        limits: How long clients wait.
        hide_refused: Whether what upstream refuses (401, 403) is answered with 404 rather than
            502.
    """
    service = Service(
        catalog,
        session,
        authenticate=authenticate,
        limits=limits or Limits(),
        hide_refused=hide_refused,
    )

    async def app(scope: _Scope, receive: _Receive, send: _Send) -> None:
        match scope["type"]:
            case "http":
                await _respond(service, scope, receive, send)
            case "lifespan":
                await _live(receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1000})
            case other:
                message = f"the registry does not serve ASGI scopes of the type {other!r}"
                raise UnsupportedOperationError(message)

    return app


async def _live(receive: _Receive, send: _Send) -> None:
    """There is nothing to start or stop: catalog and session belong to the caller."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _respond(service: Service, scope: _Scope, receive: _Receive, send: _Send) -> None:
    watch = _Watch(receive)
    try:
        request = _read(scope)
        exchange = service.exchange(request)
        exchange.begin()
        async with exchange:
            await send(_start(exchange.answer, request))
            await _send_body(service, scope, send, exchange)
            exchange.finish()
    except asyncio.CancelledError:
        if not watch.take_back():
            raise
    finally:
        await watch.aclose()


def _read(scope: _Scope) -> Request:
    raw: bytes | None = scope.get("raw_path")
    path = scope["path"] if raw is None else raw.decode("latin-1")
    if raw is None:
        path = quote(path, safe="/:@!$&'()*+,;=~")
    rest, base = strip_mount(path, scope.get("root_path", ""))
    client = scope.get("client")
    return Request(
        method=scope["method"],
        path=rest,
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in scope["headers"]
        ),
        base=base,
        client=client[0] if client else None,
        scheme=scope.get("scheme", "http"),
    )


def _start(answer: Answer, request: Request) -> _Message:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers]
    if answer.header("ETag") is not None and "gzip" in (request.header("accept-encoding") or ""):
        # Stops middlewares that compress, which would keep the strong tag (rule SRV-31).
        headers.append((b"content-encoding", b"identity"))
    return {"type": "http.response.start", "status": answer.status, "headers": headers}


async def _send_body(service: Service, scope: _Scope, send: _Send, exchange: Exchange) -> None:
    answer = exchange.answer
    if isinstance(answer.body, bytes):
        await send({"type": "http.response.body", "body": answer.body})
        exchange.add_sent(len(answer.body))
        return
    offered = _PATHSEND in (scope.get("extensions") or {})
    if offered and exchange.path is not None and answer.status == _OK:
        # Sent later, perhaps: the rest is up to the server (rule SRV-41).
        await send({"type": _PATHSEND, "path": str(exchange.path)})
        exchange.add_sent(answer.length)
        return
    limit = service.limits.write
    for piece in exchange.pieces():
        if isinstance(piece, bytes):
            await _send_chunk(send, exchange, piece, limit)
        elif exchange.file is not None:
            await _send_file(service, send, exchange, exchange.file, piece)
        else:
            async for chunk in await exchange.open_range(piece):
                for block in _split(chunk):
                    await _send_chunk(send, exchange, block, limit)
    await send({"type": "http.response.body", "body": b""})


async def _send_file(
    service: Service, send: _Send, exchange: Exchange, file: FileReader, span: Span
) -> None:
    start, end = span
    while start < end:
        block = await file.read(start, min(SLICE, end - start))
        await _send_chunk(send, exchange, block, service.limits.write)
        start += len(block)


async def _send_chunk(send: _Send, exchange: Exchange, chunk: bytes, limit: float) -> None:
    try:
        async with asyncio.timeout(limit):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except TimeoutError:
        message = f"the client took no byte for {limit} s"
        raise SourceTimeoutError(message) from None
    exchange.add_sent(len(chunk))


def _split(chunk: bytes) -> Iterator[bytes]:
    if len(chunk) <= SLICE:
        yield chunk
        return
    for at in range(0, len(chunk), SLICE):
        yield chunk[at : at + SLICE]


class _Watch:
    """Cancels the running task when the server says that its client has gone.

    It begins to receive after a second: most requests are answered by then, and pay nothing.
    """

    __slots__ = ("_cancelling", "_receive", "_receiving", "_task", "_timer", "gone")

    def __init__(self, receive: _Receive) -> None:
        self.gone = False
        self._receive = receive
        self._receiving: asyncio.Task[None] | None = None
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(LOOK, self._begin)

    def _begin(self) -> None:
        self._receiving = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass  # The body of the request, which is ignored.
        self.gone = True
        if self._task is not None:
            self._task.cancel()

    def take_back(self) -> bool:
        """Whether the task was cancelled here, and nothing else wants it to end."""
        return self.gone and self._task is not None and self._task.uncancel() <= self._cancelling

    async def aclose(self) -> None:
        """Stop receiving."""
        self._timer.cancel()
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.wait((self._receiving,))
