"""Proxies: machines that run the library, serve nodes, die, and are started again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from asupplemented import (
    Catalog,
    LayoutCache,
    ObjectStore,
    RedisLease,
    RedisValues,
    RequestBudget,
    Session,
    TieredCache,
)
from asupplemented.web import asgi_app
from benchmarks.fleet.network import transfer
from benchmarks.fleet.servers import BucketClient, RedisConnection, RegistryReference

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from asupplemented.aio.retry import Clock
    from asupplemented.web.asgi import ASGIApplication
    from benchmarks.fleet.network import Machine
    from benchmarks.fleet.servers import Bucket, Redis, Registry

__all__ = ("NAME", "Body", "Proxy", "Reply", "Services")

NAME: Final = "team/app"

LATENCY: Final = 0.002
"""Seconds from a node to a proxy and back."""

FIRST: Final = 16 * 1024
"""Bytes of a body that the first packets bring."""

BLOCK: Final = 2**20
"""Bytes of a body that are sent at once, after the first ones."""

CACHE_BYTES: Final = 2**40
STORE_TIMEOUT: Final = 60.0


@dataclass(frozen=True)
class Services:
    """What all proxies use."""

    registries: Sequence[Registry]
    """The top first."""
    bucket: Bucket
    redis: Redis
    clock: Clock


class Body(Protocol):
    """Where a node puts what comes."""

    def begin(self, status: int) -> None:
        """The head of an answer has come."""
        ...

    def take(self, part: memoryview) -> None:
        """A part of its body has come."""
        ...


class Reply:
    """An answer, as a node gets it.

    Args:
        proxy: The sender.
        node: The receiver.
        body: Told of the status, and of each part of the body when it has arrived.

    Attributes:
        status: The status.
        headers: The headers, lower-case names.
    """

    def __init__(self, proxy: Proxy, node: Machine, body: Body) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._proxy = proxy
        self._node = node
        self._body = body
        self._sent = 0

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """One message of the application."""
        match message["type"]:
            case "http.response.start":
                self.status = message["status"]
                self.headers = {key.decode(): value.decode() for key, value in message["headers"]}
                self._body.begin(self.status)
            case "http.response.pathsend":
                await self._send(self._proxy.read_file(message["path"]))
            case _:
                await self._send(message["body"])

    async def _send(self, body: bytes) -> None:
        view, at = memoryview(body), 0
        while at < len(view):
            part = view[at : at + (BLOCK if self._sent else FIRST)]
            await transfer(len(part), self._proxy.machine, self._node)
            self._body.take(part)
            at += len(part)
            self._sent += len(part)
            self._proxy.served += len(part)


class Proxy:
    """A machine with a catalog, a session, a cache and the ASGI application.

    Args:
        machine: Its machine.
        services: What it uses.
        directory: Of its cache, which outlives it.

    Attributes:
        served: Bytes of bodies that nodes got.
    """

    def __init__(self, machine: Machine, services: Services, directory: Path) -> None:
        self.machine = machine
        self.served = 0
        self._services = services
        self._directory = directory
        self._stack = AsyncExitStack()
        self._app: ASGIApplication | None = None
        self._running: dict[asyncio.Task[None], None] = {}
        """The requests under way; a dict, for it keeps their order."""
        self._files: dict[str, bytes] = {}

    async def start(self) -> None:
        """Begin to serve."""
        services, enter = self._services, self._stack.enter_async_context
        redis = RedisConnection(services.redis, self.machine)
        store: Any = BucketClient(services.bucket, self.machine)
        cache = await enter(
            TieredCache(
                await enter(LayoutCache(self._directory, CACHE_BYTES, fills=True)),
                ObjectStore(store, timeout=STORE_TIMEOUT),
                lease=RedisLease(redis),
            )
        )
        session = await enter(Session(cache=cache, settings=[services.clock]))
        members = [RegistryReference(each, self.machine) for each in services.registries]
        budget = RequestBudget(shared=RedisValues(redis))
        catalog = await enter(Catalog({NAME: members}, budget=budget))
        self._app = asgi_app(catalog, session)
        self.machine.alive = True

    async def die(self) -> None:
        """Break all connections at once, then free what a dead process would not hold either.

        Nothing of that reaches another machine: no lease is released, and nothing is uploaded.
        """
        self.machine.alive = False
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        await self.aclose()

    async def aclose(self) -> None:
        """Stop serving."""
        self._app = None
        self._files.clear()
        await self._stack.aclose()

    async def ask(
        self,
        node: Machine,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Body,
    ) -> Reply:
        """Answer a request of a node.

        Raises:
            ConnectionError: The proxy is dead, or the connection was cut.
        """
        await asyncio.sleep(LATENCY)
        if not self.machine.alive or self._app is None:
            message = f"{self.machine.name} refused the connection"
            raise ConnectionRefusedError(message)
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
            "client": (node.name, 0),
            "extensions": {"http.response.pathsend": {}},
        }
        reply = Reply(self, node, body)
        task = asyncio.ensure_future(self._app(scope, _wait_for_ever, reply.send))
        self._running[task] = None
        await asyncio.wait((task,))
        del self._running[task]
        if task.cancelled() or task.exception() is not None:
            message = f"{self.machine.name} cut the connection"
            raise ConnectionResetError(message)
        return reply

    def read_file(self, path: str) -> bytes:
        """A verified file of the cache; all requests get the same object."""
        found = self._files.get(path)
        if found is None:
            found = self._files[path] = Path(path).read_bytes()
        return found


async def _wait_for_ever() -> MutableMapping[str, Any]:
    """What a server tells of a client that has sent its request, and does not leave."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError
