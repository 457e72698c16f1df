"""Clients of both applications: one request, one whole answer."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from asupplemented import web
from tests.web.servers import aiohttp_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asupplemented import Session
    from asupplemented.web.contract import ServedCatalog

Headers: TypeAlias = tuple[tuple[str, str], ...]


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is true that no event tells of."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """The code of an error in the form of the specification."""
        ((error),) = self.json()["errors"]
        assert set(error) == {"code", "message", "detail"}
        assert self.headers["Content-Type"] == "application/json"
        return error["code"]


@dataclass
class Client:
    """Sends requests to one of the applications."""

    fetch: Callable[[str, str, Headers, bytes], Awaitable[Reply]]

    async def get(self, target: str, *headers: tuple[str, str], body: bytes = b"") -> Reply:
        return await self.fetch("GET", target, headers, body)

    async def head(self, target: str, *headers: tuple[str, str]) -> Reply:
        return await self.fetch("HEAD", target, headers, b"")

    async def send(self, method: str, target: str, *headers: tuple[str, str]) -> Reply:
        return await self.fetch(method, target, headers, b"")


@asynccontextmanager
async def aiohttp_client(
    catalog: ServedCatalog, session: Session, **options: Any
) -> AsyncIterator[Client]:
    async with (
        aiohttp_port(catalog, session, **options) as port,
        aiohttp.ClientSession(auto_decompress=False) as http,
    ):

        async def fetch(method: str, target: str, headers: Headers, body: bytes) -> Reply:
            url = URL(f"http://127.0.0.1:{port}{target}", encoded=True)
            async with http.request(
                method, url, headers=CIMultiDict(headers), data=body or None
            ) as response:
                return Reply(response.status, CIMultiDict(response.headers), await response.read())

        yield Client(fetch)


class Exchange:
    """One request to an ASGI application, and the messages that it sent."""

    def __init__(self, method: str, target: str, headers: Headers = (), **scope: Any) -> None:
        path, _, query = target.partition("?")
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": URL(path, encoded=True).path if path else "",
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers],
            "client": ("127.0.0.1", 1),
            **scope,
        }
        self.messages: list[Any] = []
        self.gone = asyncio.Event()
        """The client has gone."""
        self.gate: asyncio.Event | None = None
        """What `send` waits for once the head is out."""
        self._received = False

    async def receive(self) -> dict[str, Any]:
        if not self._received:
            self._received = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self.gate is not None and self.messages:
            await self.gate.wait()
        self.messages.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(each.get("body", b"") for each in self.messages[1:])

    @property
    def is_complete(self) -> bool:
        return bool(self.messages) and self.messages[-1].get("more_body", False) is False

    def reply(self) -> Reply:
        assert self.is_complete
        start = self.messages[0]
        headers = CIMultiDict((k.decode(), v.decode("latin-1")) for k, v in start["headers"])
        return Reply(start["status"], headers, self.body)


@asynccontextmanager
async def asgi_client(
    catalog: ServedCatalog, session: Session, **options: Any
) -> AsyncIterator[Client]:
    app = web.asgi_app(catalog, session, **options)

    async def fetch(method: str, target: str, headers: Headers, body: bytes) -> Reply:
        exchange = Exchange(method, target, headers)
        await app(exchange.scope, exchange.receive, exchange.send)
        return exchange.reply()

    yield Client(fetch)
