"""Many clients of one URL in a process of their own, as cheap as clients can be.

``python -m benchmarks.clients --clients 64 URL`` connects all of them, has all of them ask at the
same moment, and prints one JSON line: how long it took, and when the first byte of each body came.
Where the kernel can throw bodies away (Linux), nothing is copied to them: what is measured is the
server, not the memory of the clients. `ask` does that for a benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("Outcome", "ask", "ask_again", "crowd", "main", "repeat")

BUFFER = bytearray(256 * 1024)
"""Where all bytes of all clients go, over one another, if they go anywhere. Its size is what
asyncio reads at once; who reads more lets the connection run dry."""
DISCARD = socket.MSG_TRUNC if sys.platform == "linux" else 0
HEAD_END = b"\r\n\r\n"
HEAD = 1024
"""Bytes of the first readings: a head, and little of the body."""
PAUSE = 0.05
"""Seconds between two readings of a client that reads slowly."""
PATIENCE = 120.0
"""Seconds after which a server is broken."""


@dataclass(frozen=True)
class Outcome:
    """What all clients together have seen."""

    seconds: float
    """From the moment of asking to the last byte of the last one."""
    received: int
    """Bytes of all bodies."""
    first_bytes: tuple[float, ...]
    """For each client the seconds until the first byte of the body, ascending."""

    def first_byte(self, share: float) -> float:
        """Seconds in which that share of the clients had its first byte."""
        return self.first_bytes[max(0, -int(-share * len(self.first_bytes) // 1) - 1)]


class _Client:
    """One GET; it counts what comes.

    Args:
        address: Whom to ask.
        request: What to send.
        size: Bytes to read at most at once.
    """

    def __init__(self, address: tuple[str, int], request: bytes, size: int) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setblocking(False)  # noqa: FBT003 - as sockets have it
        self.received = 0
        """Bytes of the body."""
        self.first_byte: float | None = None
        """Seconds until the first one of them."""
        self._request = request
        self._size = size
        self._head = b""
        self._length: int | None = None
        self._asked = 0.0

    def ask(self) -> None:
        """Send the request."""
        self._asked = time.perf_counter()
        self.socket.sendall(self._request)

    @property
    def done(self) -> bool:
        """Whether everything came."""
        return self.received == self._length

    def read(self) -> None:
        """Read what is there."""
        if self._length is None:
            size = self._read_head()
        else:
            size = self.socket.recv_into(BUFFER, self._size, DISCARD)
            if not size:
                message = f"{self.received} bytes came of {self._length}"
                raise RuntimeError(message)
        if size and self.first_byte is None:
            self.first_byte = time.perf_counter() - self._asked
        self.received += size

    def _read_head(self) -> int:
        """Read of the head what is there; returns how much of the body came along."""
        data = self.socket.recv(HEAD)
        self._head += data
        head, separator, body = self._head.partition(HEAD_END)
        status, *lines = head.lower().split(b"\r\n")
        if not data or not status.startswith(b"http/1.1 200"[: len(status)]):
            message = f"the server answered {status.decode(errors='replace')!r}"
            raise RuntimeError(message)
        if not separator:
            return 0
        fields = dict(line.split(b": ", 1) for line in lines)
        self._length = int(fields[b"content-length"])
        return len(body)


class _Crowd:
    """All clients, each read when there is something, or when it is its turn.

    Args:
        clients: They have not asked yet.
        slow: Whether each pauses after reading.
        stalled: Whether none reads more than the beginning.
    """

    def __init__(self, clients: Sequence[_Client], *, slow: bool, stalled: bool) -> None:
        self._left = len(clients)
        self._slow = slow
        self._stalled = stalled
        self._selector = selectors.DefaultSelector()
        self._pausing: deque[tuple[float, _Client]] = deque()
        for client in clients:
            self._listen(client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._selector.close()

    def run(self, until: float) -> bool:
        """Read; returns whether every client has everything."""
        while self._left and (left := until - time.perf_counter()) > 0:
            for key, _ in self._selector.select(min(left, PAUSE)):
                self._read(key.data)
            while self._pausing and self._pausing[0][0] <= time.perf_counter():
                self._listen(self._pausing.popleft()[1])
        return not self._left

    def _listen(self, client: _Client) -> None:
        self._selector.register(client.socket, selectors.EVENT_READ, client)

    def _read(self, client: _Client) -> None:
        client.read()
        if client.done:
            self._selector.unregister(client.socket)
            self._left -= 1
        elif client.received and (self._slow or self._stalled):
            self._selector.unregister(client.socket)
            if self._slow:
                self._pausing.append((time.perf_counter() + PAUSE, client))


def crowd(
    url: str, clients: int, *, rate: int | None = None, leave_after: float | None = None
) -> Outcome:
    """Have so many clients ask for a URL at the same moment.

    Args:
        url: ``http://HOST:PORT/PATH``.
        clients: How many.
        rate: Bytes per second that each reads at most; 0 reads nothing but the beginning, None
            as much as comes.
        leave_after: Seconds after which those hang up who are not done; None waits for all.
    """
    parts = urlsplit(url)
    head = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    address = (parts.hostname or "", parts.port or 80)
    size = len(BUFFER) if rate is None else max(1, int(rate * PAUSE))
    asking: list[_Client] = []
    with ExitStack() as scope:
        for _ in range(clients):
            asking.append(_Client(address, head.encode(), size))
            scope.callback(asking[-1].socket.close)
        all_clients = scope.enter_context(_Crowd(asking, slow=bool(rate), stalled=rate == 0))
        started = time.perf_counter()
        for client in asking:
            client.ask()
        patience = PATIENCE if leave_after is None else leave_after
        if not all_clients.run(started + patience) and leave_after is None:
            message = f"the server did not finish in {PATIENCE:g} s"
            raise RuntimeError(message)
        seconds = time.perf_counter() - started
    first_bytes = sorted(each.first_byte for each in asking if each.first_byte is not None)
    return Outcome(seconds, sum(client.received for client in asking), tuple(first_bytes))


def repeat(url: str, times: int, connections: int = 1) -> float:
    """Ask for something small again and again, each connection once its answer is there.

    Args:
        url: ``http://HOST:PORT/PATH``.
        times: How often each connection asks.
        connections: How many there are.

    Returns:
        Requests per second.
    """
    parts = urlsplit(url)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    address = (parts.hostname or "", parts.port or 80)
    with ExitStack() as scope, selectors.DefaultSelector() as selector:
        for _ in range(connections):
            connection = scope.enter_context(socket.create_connection(address))
            selector.register(connection, selectors.EVENT_READ, _Repetition(connection, times))
            connection.sendall(request)
        started = time.perf_counter()
        while selector.get_map():
            for key, _ in selector.select():
                repetition: _Repetition = key.data
                if not repetition.read():
                    continue
                if repetition.left:
                    repetition.connection.sendall(request)
                else:
                    selector.unregister(key.fileobj)
        return times * connections / (time.perf_counter() - started)


class _Repetition:
    """A connection that asks for the same again."""

    def __init__(self, connection: socket.socket, times: int) -> None:
        self.connection = connection
        self.left = times
        """Answers that are to come."""
        self._data = b""

    def read(self) -> bool:
        """Read what is there; returns whether an answer is complete."""
        piece = self.connection.recv(len(BUFFER))
        self._data += piece
        head, separator, body = self._data.partition(HEAD_END)
        if not piece or not head.startswith(b"HTTP/1.1 200"[: len(head)]):
            message = f"the server answered {head[:HEAD].decode(errors='replace')!r}"
            raise RuntimeError(message)
        at = head.lower().find(b"content-length: ") + len(b"content-length: ")
        if not separator or len(body) < int(head[at:].split(b"\r\n", 1)[0]):
            return False
        self._data = b""
        self.left -= 1
        return True


def ask_again(url: str, times: int, connections: int = 1) -> float:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.clients", f"--times={times}", url]
    command.append(f"--clients={connections}")
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=2 * PATIENCE)
    return float(said.stdout)


def keep_to_one_core() -> None:
    """Stay on the last core, so that no scheduler puts clients and a server on the same one."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def ask(
    url: str, clients: int, *, rate: int | None = None, leave_after: float | None = None
) -> Outcome:
    """The same in a process of its own; arguments as `crowd`."""
    command = [sys.executable, "-m", "benchmarks.clients", f"--clients={clients}", url]
    command += [] if rate is None else [f"--rate={rate}"]
    command += [] if leave_after is None else [f"--leave-after={leave_after}"]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=2 * PATIENCE)
    outcome = json.loads(said.stdout)
    return Outcome(**outcome | {"first_bytes": tuple(outcome["first_bytes"])})


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask, and print the outcome."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients")
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rate", type=int, help="bytes per second that each reads at most")
    parser.add_argument("--leave-after", type=float, help="seconds after which all hang up")
    parser.add_argument("--times", type=int, help="ask so often on each connection")
    options = parser.parse_args(arguments)
    keep_to_one_core()
    if options.times is not None:
        print(repeat(options.url, options.times, options.clients))
        return
    outcome = crowd(
        options.url, options.clients, rate=options.rate, leave_after=options.leave_after
    )
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
