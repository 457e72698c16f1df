"""Large bodies, received past aiohttp: `take_over`.

Theory of operation
-------------------

aiohttp makes an object of each piece that the network gives, parses it, and wakes the reader for
it. Over a fast network that costs more than the receiving. So for a large body whose end is known,
a `BodyReceiver` takes the place of aiohttp's protocol after the head
(`asyncio.BaseTransport.set_protocol`, which asyncio has for upgrades of a connection). It receives
into one buffer, which is used again and again. A full buffer becomes a chunk; the receiver stops
when two chunks wait for the reader beside the buffer, so it holds three chunks at most. A reader
that waits is woken when there is enough for it, or a moment after the first byte: it passes
through the whole stream for each chunk, and on a fast network small pieces follow closely.

The steps of `take_over` have an order:

1. Whatever is unusual leaves the body to aiohttp: no length, an encoding, a connection that is gone
   because the body is complete, one that is closing, or another protocol than aiohttp's own.
2. What aiohttp has read is taken from it. That may resume a paused transport, whose next bytes
   would go to aiohttp. So nothing is awaited between this step and the next one.
3. The receiver is set. aiohttp's protocol hears of nothing but the end of the connection, for
   which ``ClientSession.close()`` waits. A read timer that it has set may still fire, and sets an
   exception that is not looked at any more.

The receiver counts, and offers no room for more bytes than were announced, so surplus bytes are
left unread, as aiohttp ignores them. Such a connection cannot be used for another request, since
aiohttp's parser did not see the end of the body. It is closed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import hdrs

from asupplemented.limits import KIB, MIB

if TYPE_CHECKING:
    from aiohttp.connector import Connection

__all__ = ("BodyReceiver", "take_over")

WAITING: Final = 2
"""Full chunks that may wait for the reader."""

ENOUGH: Final = 256 * KIB
"""Bytes for which a reader that waits is woken at once."""

DELAY: Final = 0.001
"""Seconds after which it is woken for fewer."""

KEPT_FREE: Final = 31 * MIB
"""Bytes of a block whose release has glibc keep twice as much free memory; more has no effect."""


def take_over(response: aiohttp.ClientResponse, chunk: int) -> BodyReceiver | None:
    """Receive the body of a response directly from now on. Nothing of it may have been read.

    Args:
        response: A response of which only the head was read.
        chunk: The most bytes to read at once.

    Returns:
        None if the body is left to aiohttp, because something about it is unusual.
    """
    connection, content = response.connection, response.content
    if connection is None or content.is_eof() or content.exception() is not None:
        return None
    if not _is_plain(response):
        return None
    transport, protocol = connection.transport, connection.protocol
    if transport is None or protocol is None or transport.get_protocol() is not protocol:
        return None
    if transport.is_closing():  # TLS may have chosen already which protocol it tells of the end.
        return None
    _keep_freed_memory()
    receiver = BodyReceiver(connection, transport, protocol, response.content_length or 0, chunk)
    while data := content.read_nowait():
        receiver.put(data)
    if not receiver.complete:
        transport.set_protocol(receiver)
    return receiver


@cache  # for the process, like the allocator
def _keep_freed_memory() -> None:
    """Have the allocator keep freed chunks for the next ones.

    By default glibc returns the memory of a few chunks to the kernel and gets it anew, cleared, for
    the next ones. That costs as much as receiving them. How much it keeps depends on the largest
    block that was freed. This one is never touched, so it takes no memory.
    """
    bytes(KEPT_FREE)


def _is_plain(response: aiohttp.ClientResponse) -> bool:
    """Whether the bytes of the body are those on the wire, and their number is known."""
    return (
        response.content_length is not None
        and hdrs.TRANSFER_ENCODING not in response.headers
        and hdrs.CONTENT_ENCODING not in response.headers
    )


class BodyReceiver(asyncio.BufferedProtocol):
    """Receives a body whose length is known. One task reads it. Made by `take_over`.

    Args:
        connection: The connection, which is closed after the body.
        transport: Its transport.
        former: The protocol that the transport had, which is told when the connection is lost.
        size: Bytes of the body.
        chunk: The most bytes to read at once.
    """

    __slots__ = (
        "_buffer",
        "_chunks",
        "_connection",
        "_failure",
        "_filled",
        "_former",
        "_left",
        "_loop",
        "_paused",
        "_timer",
        "_transport",
        "_waiter",
    )

    def __init__(
        self,
        connection: Connection,
        transport: asyncio.Transport,
        former: asyncio.BaseProtocol,
        size: int,
        chunk: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._transport = transport
        self._former = former
        self._left = size
        """Bytes of the body that did not come yet."""
        self._buffer = memoryview(bytearray(min(chunk, size)))
        self._filled = 0
        """Bytes in the buffer."""
        self._chunks: deque[bytes] = deque()
        """What came before those."""
        self._paused = False
        self._failure: aiohttp.ClientPayloadError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def complete(self) -> bool:
        """Whether all bytes have come."""
        return not self._left

    def put(self, data: bytes) -> None:
        """Add bytes that were received before it was the protocol."""
        size = len(self._buffer)
        self._chunks.extend(data[at : at + size] for at in range(0, len(data), size))
        self._left -= len(data)

    async def read(self) -> bytes:
        """The next bytes, as many as are there; none at the end.

        Raises:
            aiohttp.ClientPayloadError: The body broke off before its end.
        """
        while not self._chunks and not self._filled:
            if self._failure is not None:
                raise self._failure
            if not self._left:
                return b""
            await self._wait()
        if self._chunks:
            chunk = self._chunks.popleft()
        else:
            chunk = bytes(self._buffer[: self._filled])
            self._filled = 0
        if self._left:
            if self._paused and len(self._chunks) < WAITING:
                self._paused = False
                self._transport.resume_reading()
        elif not self._chunks and not self._filled:
            self._connection.close()
        return chunk

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Close the connection. What did not come by then is a failure. May be called again."""
        if self._left:
            self._transport.abort()  # A graceful end of TLS would wait for the rest of the body.
        self._connection.close()

    # Called by the transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - as the base class has it
        """Room for more bytes, but for none behind the end of the body."""
        end = min(len(self._buffer), self._filled + self._left)
        if self._filled < end:
            return self._buffer[self._filled : end]
        return memoryview(bytearray(1))  # A transport that was paused in time does not ask for it.

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        if not self._left or self._filled == len(self._buffer):
            return
        self._left -= nbytes
        self._filled += nbytes
        if self._filled == len(self._buffer):
            self._chunks.append(bytes(self._buffer))
            self._filled = 0
        if not self._left or len(self._chunks) >= WAITING:
            self._paused = True
            self._transport.pause_reading()
        if self._waiter is None:
            return
        if self._chunks or self._filled >= ENOUGH or not self._left:
            self._wake()
        elif self._timer is None:
            self._timer = self._loop.call_later(DELAY, self._wake)

    def eof_received(self) -> None:
        """The server sends no more; the transport closes itself."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._end(exc)
        self._former.connection_lost(exc)

    def _end(self, cause: Exception | None) -> None:
        if self._left and self._failure is None:
            # As aiohttp calls it, so that it is translated in the same way.
            message = f"the response payload is not completed: {self._left} bytes are missing"
            self._failure = aiohttp.ClientPayloadError(message)
            self._failure.__cause__ = cause
        self._wake()
