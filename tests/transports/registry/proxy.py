"""A proxy on loopback: tunnels and forwards to where names are said to be, and logs who asks."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Asked(NamedTuple):
    """What the proxy was asked, and told."""

    method: str
    target: str
    headers: dict[str, str]


class Proxy:
    """Speaks HTTP/1.1 as proxies do.

    Attributes:
        hosts: ``host:port`` that is asked for to the one that is connected to instead.
        asked: Every request, in order.
        answer: What it answers in place of what it should, None to do it right.
    """

    def __init__(self, hosts: Mapping[str, str]) -> None:
        self.hosts = dict(hosts)
        self.asked: list[Asked] = []
        self.answer: bytes | None = None
        self.host = ""

    def url(self, user: str = "") -> str:
        """Its URL, with what stands before the host in it."""
        return f"http://{user}{self.host}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, which is for one destination."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            line, *fields = head.decode("latin-1").split("\r\n")[:-2]
            method, target, _ = line.split(" ")
            headers = dict(field.split(": ", 1) for field in fields)
            self.asked.append(Asked(method, target, {k.lower(): v for k, v in headers.items()}))
            if self.answer is not None:
                writer.write(self.answer)
                await writer.drain()
                return
            await self._lead(method, target, head, (reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _lead(
        self,
        method: str,
        target: str,
        head: bytes,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        origin = target if method == "CONNECT" else urlsplit(target).netloc
        host, _, port = self.hosts.get(origin, origin).rpartition(":")
        far = await asyncio.open_connection(host, int(port))
        try:
            if method == "CONNECT":
                near[1].write(ESTABLISHED)
            else:  # each request takes a connection of its own, so that all are seen
                once = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
                far[1].write(once)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(near[0], far[1]))
                group.create_task(_pump(far[0], near[1]))
        finally:
            far[1].close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def run_proxy(
    hosts: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Proxy]:
    """A proxy that listens; at the end nobody is connected any more."""
    proxy = Proxy(hosts or {})
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(proxy.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    host, port = server.sockets[0].getsockname()
    proxy.host = f"{host}:{port}"
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tuple(tasks), return_exceptions=True)
        await server.wait_closed()
