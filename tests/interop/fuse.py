"""A connection to a registry that kills the registry after so many bytes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, closing, suppress
from typing import TYPE_CHECKING

from tests.interop.servers import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.interop.servers import MortalRegistry

BLOCK = 65536


class Fuse:
    """Forwards connections to a registry.

    Args:
        registry: Where to.
        after: Bytes of one connection after which the registry is killed, the first time.
        restart: Whether to restart it then. Until it serves again, connections break off.
    """

    def __init__(self, registry: MortalRegistry, after: int, *, restart: bool) -> None:
        self._registry = registry
        self._after = after
        self._restart = restart
        self._killed: asyncio.Future[None] | None = None
        self._connections: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        """Yields its ``host:port``."""
        server = await asyncio.start_server(self._accept, HOST, 0)
        try:
            yield f"{HOST}:{server.sockets[0].getsockname()[1]}"
            assert self._killed is not None, "the registry was not killed"
            await self._killed
        finally:
            server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.append(asyncio.ensure_future(self._forward(reader, writer)))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = int(self._registry.registry.address.rpartition(":")[2])
        with closing(writer), suppress(ConnectionError):
            answers, requests = await asyncio.open_connection(HOST, port)
            with closing(requests):
                sending = asyncio.ensure_future(self._copy(reader, requests))
                try:
                    await self._copy(answers, writer, limit=self._after)
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None = None
    ) -> None:
        copied = 0
        while block := await reader.read(BLOCK):
            writer.write(block)
            await writer.drain()
            copied += len(block)
            if limit is not None and copied >= limit and self._killed is None:
                self._registry.kill()
                self._killed = asyncio.ensure_future(self._revive())
                return

    async def _revive(self) -> None:
        if self._restart:
            await asyncio.to_thread(self._registry.restart)
