"""A worker: one process of several that serve the same addresses. `supervisor` starts it.

A worker obeys its supervisor alone. It ignores the signals that a terminal or a service manager
sends to every process of the server, and ends when the supervisor says so or has ended.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final

from asupplemented.errors import SupplementedError
from asupplemented.serve.channel import (
    ORDERS,
    Channel,
    Done,
    Failed,
    Finish,
    Order,
    Prepare,
    Ready,
    Running,
    Start,
    Stop,
    open_channel,
    unpack,
)
from asupplemented.serve.config import in_settings
from asupplemented.serve.metrics import count_as_worker
from asupplemented.serve.server import RegistryServer
from asupplemented.web.exchange import report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from asupplemented.serve.config import ServeConfig

__all__ = ("main",)

REPORT_EVERY: Final = 1.0
"""Seconds between two reports to the supervisor."""

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a worker leaves to its supervisor. They are blocked until the worker ignores them."""


def main() -> None:
    """Serve until the supervisor says otherwise. The arguments are numbers of inherited files."""
    for each in SIGNALS:
        # Not SIG_IGN, which the programs that a worker starts would inherit.
        signal.signal(each, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    control, *sockets = (_adopt(int(each)) for each in sys.argv[1:])
    with in_settings():
        sys.exit(asyncio.run(_work(control, sockets)))


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing about a signal."""


def _adopt(fd: int) -> socket.socket:
    adopted = socket.socket(fileno=fd)
    adopted.set_inheritable(False)
    return adopted


async def _work(control: socket.socket, sockets: Sequence[socket.socket]) -> int:
    channel = await open_channel(control, ORDERS)
    start = await channel.receive()
    if not isinstance(start, Start):
        return 0
    logging.basicConfig(format=f"asupplemented[{start.number}]: %(message)s")
    config = unpack(start.config)
    async with RegistryServer(sockets, count_as_worker(start.number)) as server:
        reports = asyncio.create_task(_report(channel, server))
        try:
            await server.start(config)
            channel.send(Ready())
            within = await _obey(channel, server, config)
            for each in sockets:
                each.close()  # What waits there is refused, once the supervisor has closed them.
            await server.stop(within)
        except (SupplementedError, OSError) as error:
            channel.send(Failed(str(error)))
            await channel.flush()
            return 1
        finally:
            reports.cancel()
    return 0


async def _obey(channel: Channel[Order], server: RegistryServer, config: ServeConfig) -> float:
    """Follow orders until one says to stop; gives the seconds that this may take."""
    while True:
        match await channel.receive():
            case Prepare(packed):
                channel.send(Done(await _prepare(server, unpack(packed))))
            case Finish(use):
                await server.finish(use=use)
                channel.send(Done())
            case Stop(within):
                return within
            case _:
                return config.shutdown_timeout  # The supervisor has ended.


async def _prepare(server: RegistryServer, config: ServeConfig) -> str | None:
    try:
        await server.prepare(config)
    except (SupplementedError, OSError) as error:
        return str(error)
    return None


async def _report(channel: Channel[Order], server: RegistryServer) -> None:
    while True:
        try:
            status = server.status()
        except Exception as error:  # noqa: BLE001 - without a status, the server still serves
            report("the status could not be told", error)
            status = None
        channel.send(Running(status))
        await asyncio.sleep(REPORT_EVERY)
