"""A client that sends bytes and shows bytes: what a test of the wire needs, and no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from ssl import SSLContext

    from asupplemented.testing import FakeRegistry

SECONDS = 10.0


class RawClient:
    """One connection to a registry for tests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def get(self, target: str, *headers: str, method: str = "GET") -> None:
        lines = [f"{method} {target} HTTP/1.1", "Host: registry", *headers, "", ""]
        self.send("\r\n".join(lines).encode("latin-1"))

    async def read_exactly(self, count: int) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.readexactly(count)

    async def read_head(self) -> tuple[str, list[tuple[str, str]]]:
        """The status line, and the headers in order."""
        async with asyncio.timeout(SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        pairs = [line.partition(": ") for line in lines]
        return status, [(name, value) for name, _, value in pairs]

    async def read_to_end(self) -> tuple[bytes, str]:
        """All that comes, and how it ends: "fin" or "rst"."""
        data = bytearray()
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    piece = await self.reader.read(65536)
                except ConnectionResetError:
                    return bytes(data), "rst"
                if not piece:
                    return bytes(data), "fin"
                data += piece


@contextlib.asynccontextmanager
async def connect(
    registry: FakeRegistry, tls: SSLContext | None = None
) -> AsyncGenerator[RawClient]:
    address, _, port = registry.host.partition(":")
    reader, writer = await asyncio.open_connection(address, int(port), ssl=tls)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
