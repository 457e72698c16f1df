"""What several hosts share: a Redis, and an S3 server, ended when their scope ends."""

from __future__ import annotations

import re
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asupplemented.cache.remote.object_store import ObjectStore
from tests.interop.programs import find
from tests.interop.servers import HOST, run_server

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_READY: Final = re.compile(r"([Rr]eady) to accept connections")
_LISTENING: Final = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")
_SHELL: Final = "/bin/sh"

KEYS: Final = {"access_key_id": "clara", "secret_access_key": "hunter2", "region": "us-east-1"}
"""The server takes any."""


@contextmanager
def run_redis(socket: Path, password: str) -> Generator[str]:
    """Serve a Redis that keeps nothing, on a socket; gives its URL."""
    settings = f'--port 0 --unixsocket "{socket}" --save "" --appendonly no --dir "{socket.parent}"'
    # It tells how it is on its stdout.
    command = f'exec "{find("redis-server")}" {settings} --requirepass "{password}" >&2'
    with run_server([_SHELL, "-c", command]) as server:
        server.wait_for(_READY)
        yield f"unix://:{password}@{socket}"


@dataclass(frozen=True)
class Bucket:
    """A bucket of a server that speaks S3."""

    endpoint: str
    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}/cache"

    @property
    def options(self) -> dict[str, str]:
        return {**KEYS, "endpoint": self.endpoint}

    def open(self) -> ObjectStore:
        return ObjectStore.from_url(self.url, self.options, allow_http=True)

    def ask(self, query: str = "", method: str = "GET") -> str:
        """Ask the server about the bucket, by its protocol and not by what is tested."""
        url = f"{self.endpoint}/{self.name}{query}"
        request = urllib.request.Request(url, method=method)  # noqa: S310 - it is http
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            text: str = answer.read().decode()
        return text

    def keys(self) -> list[str]:
        """The names of all objects."""
        return re.findall("<Key>cache/(.+?)</Key>", self.ask("?list-type=2"))

    def uploads(self) -> list[str]:
        """The names of all objects whose upload has begun, and has neither ended nor failed."""
        return re.findall("<Key>(.+?)</Key>", self.ask("?uploads"))


@contextmanager
def run_s3() -> Generator[str]:
    """Serve S3 in memory; gives the endpoint."""
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", "0"]
    with run_server(command) as server:
        yield server.wait_for(_LISTENING)
