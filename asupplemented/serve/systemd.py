"""Telling the service manager what the server does: the protocol of ``sd_notify`` (rule SRV-46)."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

__all__ = ("notify", "notify_reloading")


def notify(*assignments: str) -> None:
    """Send a state, such as "READY=1", to the socket that ``NOTIFY_SOCKET`` names.

    Does nothing without that variable, and where the service manager cannot be reached.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path  # an abstract socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(0)
        with suppress(OSError):
            sender.sendto("\n".join(assignments).encode(), address)


def notify_reloading() -> None:
    """Say that a reload begins; ``READY=1`` ends it. ``Type=notify-reload`` needs the time."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
