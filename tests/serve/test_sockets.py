"""Sockets of a server: shared out to workers, and refused with a remedy if an address is taken."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import ConfigurationError
from asupplemented.serve import sockets
from asupplemented.serve.config import Address
from asupplemented.serve.sockets import Listeners

if TYPE_CHECKING:
    from pathlib import Path

LOCAL = Address("127.0.0.1", 0)


def connect(listeners: Listeners) -> socket.socket:
    bound = listeners.of_worker[0][0]
    client = socket.socket(bound.family, socket.SOCK_STREAM)
    client.connect(bound.getsockname())
    return client


def test_SRV45_each_worker_has_a_socket_of_its_own_at_one_port() -> None:
    with Listeners([LOCAL, LOCAL], workers=3) as listeners:
        ports = [[each.getsockname()[1] for each in mine] for mine in listeners.of_worker]
        assert ports[0] == ports[1] == ports[2]
        assert ports[0][0] != ports[0][1]
        assert len({each.fileno() for mine in listeners.of_worker for each in mine}) == 6
        assert listeners.names == tuple(f"127.0.0.1:{port}" for port in ports[0])


def test_workers_share_one_socket_where_ports_cannot_be_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sockets, "_REUSE_PORT", None)
    with Listeners([LOCAL], workers=3) as listeners:
        assert len({each.fileno() for mine in listeners.of_worker for each in mine}) == 1
        connect(listeners).close()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("others", [1, 2], ids=["by one process", "by several"])
def test_SRV45_an_address_that_is_taken_is_an_error_and_nothing_stays_bound(
    workers: int, others: int
) -> None:
    with Listeners([LOCAL], workers=others) as first:
        port = first.of_worker[0][0].getsockname()[1]
        with Listeners([LOCAL]) as free:
            other = free.of_worker[0][0].getsockname()[1]
        taken = Address("127.0.0.1", port)
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}: another program listens"):
            Listeners([Address("127.0.0.1", other), taken], workers=workers)
        Listeners([Address("127.0.0.1", other)], workers=workers).close()
    Listeners([taken], workers=workers).close()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (Address("203.0.113.7", 5000), "cannot listen on 203.0.113.7:5000: this host has no such"),
        (Address("no.such.host.invalid", 1), "cannot listen on no.such.host.invalid:1: no address"),
    ],
)
def test_an_address_that_this_host_does_not_have_is_an_error(
    address: Address, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Listeners([address], workers=2)


def test_localhost_is_bound_where_it_is_there_all_at_one_port() -> None:
    with Listeners([Address("localhost", 0)]) as listeners:
        names = listeners.names
        assert names
        assert len({name.rpartition(":")[2] for name in names}) == 1
        connect(listeners).close()


def test_a_path_is_replaced_if_its_server_is_gone_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "registry.sock"
    address = Address(path=path)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    with Listeners([address], workers=2) as listeners:
        connect(listeners).close()
        assert listeners.names == (f"unix:{path}",)
        with pytest.raises(ConfigurationError, match="another program listens there"):
            Listeners([address])
    assert not path.exists()
    path.write_text("a file")
    with pytest.raises(ConfigurationError, match="cannot listen on"):
        Listeners([address])
    assert path.read_text() == "a file"


def test_a_path_that_another_server_took_over_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "registry.sock"
    first = Listeners([Address(path=path)])
    path.rename(tmp_path / "moved")
    with Listeners([Address(path=path)]):
        first.close()
        assert path.exists()
