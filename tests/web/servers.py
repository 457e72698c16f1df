"""Both applications behind real servers, in the event loop of the test."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from aiohttp.web import AppRunner, SockSite, TCPSite

from asupplemented import web
from tests.suspending import wait_until
from tests.testing.raw_client import RawClient

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from aiohttp.web import Application

    from asupplemented import Session
    from asupplemented.web.contract import ServedCatalog

    Run = Callable[..., AbstractAsyncContextManager[int]]
    """Serves a catalog, and gives the port."""

MAX_FIELD = 65536
"""Bytes of a header, for many ranges (rule SRV-27)."""


@asynccontextmanager
async def run_aiohttp(
    app: Application, listening: socket.socket | None = None
) -> AsyncIterator[int]:
    """Serve an application of aiohttp.

    Args:
        app: The application.
        listening: Where; None for a free port of loopback.

    Yields:
        The port.
    """
    runner = AppRunner(app, max_field_size=MAX_FIELD, shutdown_timeout=5)
    await runner.setup()
    try:
        if listening is None:
            await TCPSite(runner, "127.0.0.1", 0).start()
        else:
            await SockSite(runner, listening).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def run_uvicorn(app: Any, listening: socket.socket | None = None) -> AsyncIterator[int]:
    """Serve an ASGI application under uvicorn.

    Args:
        app: The application.
        listening: Where; None for a free port of loopback.

    Yields:
        The port.
    """
    config = uvicorn.Config(
        app, port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    # Signals are the business of the program that runs the tests.
    serving = asyncio.ensure_future(server._serve(None if listening is None else [listening]))
    try:
        await wait_until(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def aiohttp_port(
    catalog: ServedCatalog, session: Session, **options: Any
) -> AsyncIterator[int]:
    async with run_aiohttp(web.registry_app(catalog, session, **options)) as port:
        yield port


@asynccontextmanager
async def uvicorn_port(
    catalog: ServedCatalog, session: Session, **options: Any
) -> AsyncIterator[int]:
    async with run_uvicorn(web.asgi_app(catalog, session, **options)) as port:
        yield port


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
