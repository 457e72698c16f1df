"""What a supervisor and its workers tell each other: a JSON object to a line, over a socket pair.

The end of the stream is a message, too: each side learns by it that the other process has ended,
however it ended.
"""

from __future__ import annotations

import asyncio
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

import msgspec

from asupplemented.web.status import Status

if TYPE_CHECKING:
    import socket

    from asupplemented.serve.config import ServeConfig

__all__ = (
    "ORDERS",
    "REPORTS",
    "Channel",
    "Done",
    "Failed",
    "Finish",
    "Order",
    "Prepare",
    "Ready",
    "Report",
    "Running",
    "Start",
    "Stop",
    "open_channel",
    "pack",
    "unpack",
)

LONGEST: Final = 16 * 1024 * 1024
"""Bytes of a message, and of messages that wait to be sent."""


class Start(msgspec.Struct, frozen=True, tag=True):
    """To a new worker: serve this."""

    number: int
    """The number of the worker, from 0; a replacement has that of its predecessor."""
    config: bytes
    """See `pack`."""


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """To a worker: open a new configuration, and go on with the old one."""

    config: bytes


class Finish(msgspec.Struct, frozen=True, tag=True):
    """To a worker: use the configuration that it prepared, or close it."""

    use: bool


class Stop(msgspec.Struct, frozen=True, tag=True):
    """To a worker: stop listening, finish what is being answered, and end."""

    within: float
    """Seconds; what is being answered after that is cut."""


Order: TypeAlias = Start | Prepare | Finish | Stop
"""What a supervisor says."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it serves."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it cannot go on, and ends."""

    message: str


class Done(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it has done what `Prepare` or `Finish` said, unless there is an error."""

    error: str | None = None


class Running(msgspec.Struct, frozen=True, tag=True):
    """From a worker, each second: it is alive, and this is what it does."""

    status: Status | None
    """None if it could not be told."""


Report: TypeAlias = Ready | Failed | Done | Running
"""What a worker says."""

ORDERS: Final[msgspec.json.Decoder[Order]] = msgspec.json.Decoder(Order)
REPORTS: Final[msgspec.json.Decoder[Report]] = msgspec.json.Decoder(Report)

M = TypeVar("M")


class Channel(Generic[M]):
    """One end of the connection between a supervisor and a worker.

    Args:
        reader: Where messages of the other side come from.
        writer: Where messages to it go.
        decoder: Reads the messages of the other side.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: msgspec.json.Decoder[M],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = decoder

    def send(self, message: Order | Report) -> None:
        """Send a message. One that the other side has no room for is dropped.

        Only a process that reads nothing for long has no room, and it is replaced, or has ended.
        """
        line = msgspec.json.encode(message)
        waiting = self._writer.transport.get_write_buffer_size()
        if waiting + len(line) < LONGEST and not self._writer.is_closing():
            self._writer.write(line + b"\n")

    async def receive(self) -> M | None:
        """The next message; None if the other side has ended."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        return self._decoder.decode(line) if line.endswith(b"\n") else None

    async def flush(self) -> None:
        """Wait until what was sent is on its way."""
        with suppress(ConnectionError):
            await self._writer.drain()

    def close(self) -> None:
        """Close this end; what was sent still arrives."""
        self._writer.close()


async def open_channel(end: socket.socket, decoder: msgspec.json.Decoder[M]) -> Channel[M]:
    """Use one end of a socket pair, which the channel closes.

    Args:
        end: Of this process.
        decoder: Reads the messages of the other side.
    """
    reader, writer = await asyncio.open_connection(sock=end, limit=LONGEST)
    return Channel(reader, writer, decoder)


def pack(config: ServeConfig) -> bytes:
    """A configuration as a supervisor sends it to its own workers."""
    return pickle.dumps(config)


def unpack(data: bytes) -> ServeConfig:
    """The configuration that the supervisor sent."""
    config: ServeConfig = pickle.loads(data)  # noqa: S301 - from the process that started this one
    return config
