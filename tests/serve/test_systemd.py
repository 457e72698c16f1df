"""Telling a service manager, which listens on a datagram socket."""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING

import pytest

from asupplemented.serve.systemd import notify, notify_reloading

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("abstract", [False, True])
def test_SRV46_states_reach_the_service_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, abstract: bool
) -> None:
    name = f"@asupplemented-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        notify("READY=1")
        notify_reloading()
        assert manager.recv(4096) == b"READY=1"
        assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=[0-9]+", manager.recv(4096))


@pytest.mark.parametrize("name", [None, "", "relative", "/no/such/socket", "@no-such-socket"])
def test_without_a_service_manager_nothing_happens(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", name)
    notify("READY=1")
