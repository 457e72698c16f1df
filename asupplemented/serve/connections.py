"""Limits on the heads of requests, which aiohttp does not have (rule SRV-43).

aiohttp closes a connection that is idle, also in the middle of a head, after one time limit for
both, and its limits of size are for each line. `HeadLimits` stands between the transport and
aiohttp's protocol, and sees where a head begins and ends. A head that begins must end within
`HEAD_SECONDS`, and within `HEAD_BYTES`. Bodies pass it unseen.

A head begins with the first byte that comes while no request is handled. What a client sends while
its request is handled is not looked at; the limit for idle connections ends that.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from aiohttp import web

__all__ = ("HEAD_BYTES", "HEAD_SECONDS", "HeadLimits")

HEAD_BYTES: Final = 64 * 1024
"""The largest head of a request, without its last line break."""

HEAD_SECONDS: Final = 10.0
"""From the first byte of a head to its last."""

_END: Final = b"\r\n\r\n"

_REFUSALS: Final = {408: "Request Timeout", 431: "Request Header Fields Too Large"}


class HeadLimits(asyncio.Protocol):
    """A protocol that passes everything on to another one, and limits heads of requests.

    Args:
        protocol: What handles the connection.
        seconds: From the first byte of a head to its last.
        connections: Has this as the value of `protocol` as long as the connection lives.
    """

    __slots__ = (
        "_connections",
        "_protocol",
        "_reading",
        "_seconds",
        "_size",
        "_tail",
        "_timer",
        "_transport",
    )

    def __init__(
        self,
        protocol: web.RequestHandler,
        *,
        seconds: float = HEAD_SECONDS,
        connections: MutableMapping[object, HeadLimits],
    ) -> None:
        self._protocol = protocol
        self._seconds = seconds
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reading = True
        self._size = 0
        self._tail = b""
        """The last bytes of a head that goes on, in which its end may have begun."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # Not before: a handshake that fails ends without `connection_lost`.
        self._connections[self._protocol] = self
        self._protocol.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end_head()
        self._transport = None
        self._connections.pop(self._protocol, None)
        self._protocol.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._reading or self._look(data):
            self._protocol.data_received(data)

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def begin_head(self) -> None:
        """The request was answered, and has no body to come: a head is next."""
        self._reading = True
        self._size = 0
        self._tail = b""

    def end_head(self) -> None:
        """The head was read."""
        self._reading = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, data: bytes) -> bool:
        """Look at a piece of a head; gives whether it is within the limits."""
        if not self._size:
            data = data.lstrip(b"\r\n")  # Line breaks before a head are allowed (RFC 9112, 2.2).
        window = self._tail + data
        end = window.find(_END)
        self._size += len(data) if end < 0 else end - len(self._tail)
        # The last bytes of a head that goes on may belong to its end.
        if self._size > HEAD_BYTES + (len(_END) - 1 if end < 0 else 0):
            self._refuse(431)
            return False
        if end >= 0:
            self.end_head()
        else:
            self._tail = window[1 - len(_END) :]
            if self._timer is None and self._size:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._seconds, self._refuse, 408)
        return True

    def _refuse(self, status: int) -> None:
        self.end_head()
        self._reading, self._size = True, HEAD_BYTES + len(_END)  # What comes yet is refused, too.
        transport = self._transport
        if transport is not None and not transport.is_closing():
            head = f"HTTP/1.1 {status} {_REFUSALS[status]}"
            transport.write(f"{head}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
            transport.close()
