"""Clients of a server under test, and the layouts that it serves."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NamedTuple

from asupplemented.testing import build_image, write_layout

if TYPE_CHECKING:
    import ssl
    from pathlib import Path
    from typing import Self

LARGE = bytes(range(256)) * 65_536
"""16 MiB: more than the kernel takes from a server while the client reads nothing."""

IMAGE = build_image(layers=[LARGE])


def write_image(path: Path) -> str:
    """Write the image to a layout; gives its reference."""
    return write_layout(path, IMAGE, name="latest")


class Head(NamedTuple):
    """The head of an answer."""

    status: int
    length: int


class Client:
    """One connection, which reads as much as it is told to.

    Args:
        address: ``HOST:PORT``.
        tls: For a server with a certificate.
    """

    def __init__(self, address: str, tls: ssl.SSLContext | None = None) -> None:
        host, _, port = address.rpartition(":")
        family = socket.AF_UNIX if host == "unix" else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(100)  # rather than hang for ever
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
        try:
            self.socket.connect(port if host == "unix" else (host, int(port)))
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        except BaseException:
            self.socket.close()
            raise
        self._read = b""

    def ask(self, path: str, *headers: str) -> Head:
        """Send a request; gives the head of its answer."""
        self.send(path, *headers)
        return self.head()

    def send(self, path: str, *headers: str) -> None:
        lines = (f"GET {path} HTTP/1.1", "Host: registry.example", *headers, "", "")
        self.socket.sendall("\r\n".join(lines).encode())

    def head(self) -> Head:
        while b"\r\n\r\n" not in self._read:
            data = self.socket.recv(1024)
            assert data, "the server closed the connection"
            self._read += data
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = {
            name.lower(): value for name, _, value in (each.partition(": ") for each in lines)
        }
        return Head(int(first.split()[1]), int(fields["content-length"]))

    def body(self, length: int) -> bytes:
        """Read a body; what there is of it if the server cuts it."""
        body = bytearray(self._read)
        while len(body) < length:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                break
            if not data:
                break
            body += data
        self._read = bytes(body[length:])
        return bytes(body[:length])

    def is_closed(self) -> bool:
        """Wait for what comes next: is it the end?"""
        try:
            return not self._read and not self.socket.recv(1)
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def get(address: str, path: str) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    with Client(address) as client:
        head = client.ask(path)
        return head.status, client.body(head.length)


def is_refused(address: str) -> bool:
    """Whether the address does not take connections."""
    try:
        Client(address).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # it was closing just then
    return False
