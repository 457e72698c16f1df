"""Both applications behind real servers, for tests of the wire."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from aiohttp.test_utils import TestServer

from asupplemented import web
from tests.suspending import wait_until
from tests.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from asupplemented import Session
    from asupplemented.web.contract import ServedCatalog

    Run = Callable[..., AbstractAsyncContextManager[int]]
    """Serves a catalog, and gives the port."""


class Server(uvicorn.Server):
    """uvicorn in the event loop of the test."""

    @property
    def port(self) -> int:
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port


@asynccontextmanager
async def run_uvicorn(app: Any) -> AsyncIterator[Server]:
    """Run an ASGI application."""
    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off")
    server = Server(config)
    # Signals are the business of the program that runs the tests.
    serving = asyncio.ensure_future(server._serve())
    try:
        await wait_until(lambda: server.started)
        yield server
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def aiohttp_port(
    catalog: ServedCatalog, session: Session, **options: Any
) -> AsyncIterator[int]:
    server = TestServer(web.registry_app(catalog, session, **options))
    await server.start_server(max_field_size=65536)  # for many ranges (rule SRV-27)
    async with server:
        assert server.port is not None
        yield server.port


@asynccontextmanager
async def uvicorn_port(
    catalog: ServedCatalog, session: Session, **options: Any
) -> AsyncIterator[int]:
    async with run_uvicorn(web.asgi_app(catalog, session, **options)) as server:
        yield server.port


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
