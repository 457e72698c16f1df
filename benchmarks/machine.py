"""What a run is measured on: the machine, the date, and the versions of all programs."""

from __future__ import annotations

import os
import platform
import re
import ssl
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from asupplemented.aio.threads import usable_cores
from benchmarks.peers.python import PEERS
from benchmarks.programs import find_program

__all__ = ("describe_machine",)

PROGRAMS: Final = {
    "curl": ("curl", "--version"),
    "openssl": ("openssl", "version"),
    "nginx": ("nginx", "-v"),
    "skopeo": ("skopeo", "--version"),
    "docker-registry": ("docker-registry", "--version"),
}
"""Program to the command that tells its version."""

SOURCES: Final = ("golang-github-containers-common-dev", "golang-github-containers-image-dev")
"""The packages of Debian that the Go package is built from."""


def describe_machine(scale: str) -> dict[str, str]:
    """Name to value, in the order to show."""
    about = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _say("git", "rev-parse", "--short", "HEAD") or "unknown",
        "run": scale,
        "processor": f"{usable_cores()} cores, {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "OpenSSL of Python": ssl.OPENSSL_VERSION.split()[1],
    }
    for name in ("asupplemented", "aiohttp", *(peer.name for peer in PEERS)):
        if found := _version(name):
            about[name] = found
    for name, (program, argument) in PROGRAMS.items():
        if (path := find_program(program)) and (said := _say(path, argument)):
            match = re.search(r"\d+(\.\d+)+\S*", said)
            about[name] = match[0] if match else said
    for name in SOURCES:
        if said := _say("dpkg-query", "--show", "--showformat=${Version}", name):
            about[name] = said
    return about


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text("utf-8") if cpuinfo.exists() else ""
    match = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return match[1] if match else platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _say(*command: str) -> str | None:
    """The first line that a command prints; None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return next(iter((done.stdout or done.stderr).splitlines()), "").strip()
