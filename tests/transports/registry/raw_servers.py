"""Servers that speak no protocol: they send bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serve_bytes(
    data: bytes,
    *,
    then: bytes | None = None,
    every: float = 0.0,
    size: int | None = None,
    deaf_to: bytes | None = None,
) -> AsyncIterator[str]:
    """Answer the first bytes of every connection with the same bytes, and hang up.

    Args:
        data: What the first connection gets.
        then: What the others get; None for the same.
        every: Seconds between two pieces.
        size: Bytes of a piece, None for all at once.
        deaf_to: Who begins like this gets no answer, until he leaves.

    Yields:
        ``127.0.0.1:PORT``.
    """
    answers = iter((data,))
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            asked = await reader.read(65536)
            if deaf_to is not None and asked.startswith(deaf_to):
                await reader.read()
                return
            body = next(answers, data if then is None else then)
            step = size or max(len(body), 1)
            for start in range(0, len(body), step):
                writer.write(body[start : start + step])
                await writer.drain()
                await asyncio.sleep(every)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(answer(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        port: int = server.sockets[0].getsockname()[1]
        yield f"127.0.0.1:{port}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
