"""The sockets that a server listens on.

Several workers get one socket each, bound to the same address with ``SO_REUSEPORT``: on a single
shared socket one worker accepts whole bursts (rule SRV-45). The kernel then gives each connection
to the queue of one socket, and a queue ends when the last process closes its socket. So the
supervisor keeps all of them open, and what waits at the socket of a worker that died is answered by
its replacement.

A second server that binds with ``SO_REUSEPORT`` takes half of the connections of the first one, and
neither is told. So each address is bound plainly first, which fails if anything listens there.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from asupplemented.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from asupplemented.serve.config import Address

__all__ = ("BACKLOG", "Listeners", "show_address")

BACKLOG: Final = 1024
"""Connections that may wait at a socket, if the kernel allows so many (``somaxconn``)."""

_REUSE_PORT: Final[int | None] = getattr(socket, "SO_REUSEPORT", None)
"""None where the system has no such option: all workers share one socket then."""

_WHY: Final = {
    errno.EADDRINUSE: "another program listens there; stop it, or choose another address",
    errno.EACCES: "this user may not listen there; choose a port from 1024 on",
    errno.EPERM: "this user may not listen there; choose a port from 1024 on",
    errno.EADDRNOTAVAIL: "this host has no such address; choose one of its own, or 0.0.0.0",
}
"""What to do about the errors of `socket.socket.bind`."""


class Listeners:
    """Bound sockets, some for each worker, all of them open until `close`.

    Args:
        addresses: Where to listen. A port of 0 is replaced with a free one.
        workers: How many processes share each address.

    Raises:
        ConfigurationError: An address cannot be listened on; nothing stays bound.
    """

    def __init__(self, addresses: Sequence[Address], workers: int = 1) -> None:
        self._paths: list[tuple[Path, int]] = []
        self.of_worker: list[list[socket.socket]] = [[] for _ in range(workers)]
        """For each worker the sockets that it accepts connections on."""
        with ExitStack() as stack:
            stack.callback(self.close)
            for address in addresses:
                self._bind(address)
            stack.pop_all()

    @property
    def names(self) -> tuple[str, ...]:
        """The addresses that were bound, with the ports in use."""
        return tuple(dict.fromkeys(show_address(each) for each in self.of_worker[0]))

    def _bind(self, address: Address) -> None:
        try:
            if address.path is not None:
                self._add([_bind_path(address.path)])
                self._paths.append((address.path, address.path.stat().st_ino))
            else:
                for sockets in _bind_host(address.host, address.port, len(self.of_worker)):
                    self._add(sockets)
        except OSError as error:
            reason = _WHY.get(error.errno or 0, error.strerror or str(error))
            message = f"cannot listen on {address}: {reason}"
            raise ConfigurationError(message) from error

    def _add(self, sockets: Sequence[socket.socket]) -> None:
        """Share sockets out: each worker gets one, or all get the only one."""
        for number, mine in enumerate(self.of_worker):
            mine.append(sockets[number % len(sockets)])
        for each in sockets:
            each.listen(BACKLOG)
            each.settimeout(0)

    def close(self) -> None:
        """Close the sockets. What waits at them is refused if no other process has them."""
        for mine in self.of_worker:
            while mine:
                mine.pop().close()
        while self._paths:
            path, inode = self._paths.pop()
            try:
                if path.stat().st_ino == inode:  # Another server may have taken its place.
                    path.unlink()
            except OSError:
                pass  # It is gone already, or its directory is.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def show_address(bound: socket.socket) -> str:
    """The address of a socket, as it is written in a configuration."""
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind_host(host: str, port: int, count: int) -> list[list[socket.socket]]:
    """Bind all addresses of a host, each `count` times, all to one port."""
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise OSError(0, f"no address is known for it ({error.strerror})") from error
    bound: list[list[socket.socket]] = []
    absent: OSError | None = None
    with ExitStack() as stack:
        for family, address in dict.fromkeys((each[0], each[4]) for each in found):
            try:
                sockets = _bind_shared(family, (address[0], port, *address[2:]), count, stack)
            except OSError as error:
                # "localhost" names ::1 on hosts that have no IPv6, too.
                if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                    raise
                absent = error
                continue
            bound.append(sockets)
            port = sockets[0].getsockname()[1]
        if absent is not None and not bound:
            raise absent
        stack.pop_all()
    return bound


def _bind_shared(
    family: int, address: tuple[object, ...], count: int, stack: ExitStack
) -> list[socket.socket]:
    if count == 1 or _REUSE_PORT is None:
        return [stack.enter_context(_bind_one(family, address))]
    with _bind_one(family, address) as probe:
        probe.listen(1)  # Two sockets may be bound plainly to one address, but not listen there.
        address = probe.getsockname()
    return [
        stack.enter_context(_bind_one(family, address, reuse_port=_REUSE_PORT))
        for _ in range(count)
    ]


def _bind_one(
    family: int, address: tuple[object, ...], *, reuse_port: int | None = None
) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port is not None:
            made.setsockopt(socket.SOL_SOCKET, reuse_port, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made


def _bind_path(path: Path) -> socket.socket:
    """Bind a Unix socket. One that a server left behind when it was killed is replaced."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
        path.unlink()
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(os.fspath(path))
    except BaseException:
        made.close()
        raise
    return made


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        return True
