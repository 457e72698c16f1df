"""A registry on sockets that stay, with configurations that follow one another.

A `Generation` is one configuration in use: its session, catalog and cache. A request belongs to the
generation that is current when it begins, and keeps it to its end, so a stream never notices a
reload. A generation that has been replaced is closed when its last request has ended.

Sockets are accepted on through duplicates. New certificates come with new duplicates, and the old
ones are closed after that, so no connection is refused meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Final

from aiohttp import web

from asupplemented.abc import AsyncResource
from asupplemented.aio.closing import close_all
from asupplemented.aio.lru import LRU
from asupplemented.cache.layout.layout_cache import CacheStats
from asupplemented.events import Warned
from asupplemented.serve.access_log import AccessLog, LineWriter
from asupplemented.serve.config import open_config
from asupplemented.serve.connections import HEAD_BYTES, HEAD_SECONDS, HeadLimits
from asupplemented.serve.sockets import BACKLOG
from asupplemented.web.aiohttp_app import registry_handler
from asupplemented.web.exchange import report
from asupplemented.web.status import StatusBoard

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Iterable, Sequence

    from asupplemented.abc import Hook
    from asupplemented.events import Event
    from asupplemented.serve.config import Opened, ServeConfig
    from asupplemented.telemetry.prometheus import PrometheusMetrics
    from asupplemented.web.status import Status

__all__ = ("Generation", "RegistryServer")

IDLE_SECONDS: Final = 75.0
"""How long a connection is kept without a request."""

CUT_WITHIN: Final = 2.0
"""Seconds in which requests end whose connections were cut."""

MEASURE_EVERY: Final = 5.0
"""Seconds between two looks at what the cache holds."""

WARN_AGAIN: Final = 60.0
"""Seconds in which the same warning is logged once."""

_log: Final = logging.getLogger(__name__)


class Generation(AsyncResource):
    """One configuration in use. Made by `open`.

    Args:
        opened: What it opened.
        tls: The certificate, None for plain http.
        scope: Closes what was opened.
    """

    def __init__(self, opened: Opened, tls: ssl.SSLContext | None, scope: AsyncExitStack) -> None:
        self.opened = opened
        self.tls = tls
        self._scope = scope
        self._handler = registry_handler(
            opened.catalog, opened.session, authenticate=opened.authenticate
        )
        self._requests = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @classmethod
    async def open(cls, config: ServeConfig, hooks: Sequence[Hook]) -> Generation:
        """Open what a configuration describes.

        Raises:
            SupplementedError: It cannot be used; nothing stays open.
        """
        tls = None if config.tls is None else await asyncio.to_thread(config.tls.load)
        async with AsyncExitStack() as scope:
            opened = await scope.enter_async_context(open_config(config, hooks=hooks))
            return cls(opened, tls, scope.pop_all())

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        self._requests += 1
        self._unused.clear()
        try:
            return await self._handler(request)
        finally:
            self._requests -= 1
            if not self._requests:
                self._unused.set()

    async def wait_unused(self) -> None:
        """Wait until no request uses it."""
        await self._unused.wait()

    async def aclose(self) -> None:
        await self._scope.aclose()


class RegistryServer(AsyncResource):
    """Serves a catalog on sockets that were bound before.

    Args:
        sockets: Where connections come from. They stay open.
        metrics: What is counted, None for nothing.
    """

    def __init__(
        self, sockets: Sequence[socket.socket], metrics: PrometheusMetrics | None = None
    ) -> None:
        self._sockets = sockets
        self._metrics = metrics
        self._measuring: asyncio.Task[None] | None = None
        self._board = StatusBoard()
        # Without a standard output its number may be that of another file by now.
        self._lines = LineWriter(None if sys.__stdout__ is None else sys.__stdout__.fileno())
        self._hooks: list[Hook] = [self._board, _Warnings()]
        if metrics is not None:
            self._hooks.append(metrics)
        self._servers: list[asyncio.Server] = []
        self._connections: dict[object, HeadLimits] = {}
        """By aiohttp's protocols."""
        self._runner: web.AppRunner | None = None
        self._current: Generation | None = None
        self._prepared: Generation | None = None
        self._retired: dict[asyncio.Task[None], Generation] = {}
        self._stopping = False

    async def start(self, config: ServeConfig) -> None:
        """Open a configuration and accept connections.

        Raises:
            SupplementedError: The configuration cannot be used.
        """
        self._current = await Generation.open(config, self._hooks_of(config))
        app = web.Application()
        for path in ("", r"/{tail:[\s\S]*}"):  # also with encoded line breaks
            app.router.add_route("*", path, self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=IDLE_SECONDS, max_field_size=HEAD_BYTES
        )
        await self._runner.setup()
        await self._listen(self._current.tls)
        if self._metrics is not None:
            self._measuring = asyncio.create_task(self._measure(self._metrics))

    async def prepare(self, config: ServeConfig) -> None:
        """Open a configuration, and go on with the old one until `finish`.

        Raises:
            SupplementedError: The configuration cannot be used; nothing has changed.
        """
        await self.finish(use=False)
        self._prepared = await Generation.open(config, self._hooks_of(config))

    async def finish(self, *, use: bool) -> None:
        """Use what was prepared for all requests from now on, or close it.

        Raises:
            OSError: New certificates could not be used; the old configuration stays.
        """
        prepared, old = self._prepared, self._current
        if prepared is None or old is None:
            return
        if use and (old.tls is not None or prepared.tls is not None):
            await self._listen(prepared.tls)
        self._prepared = None
        if not use:
            await prepared.aclose()
            return
        self._current = prepared
        task = asyncio.create_task(self._retire(old))
        self._retired[task] = old
        task.add_done_callback(self._retired.pop)

    def status(self) -> Status:
        """What the server does at the moment."""
        if self._current is None:
            return self._board.snapshot()
        opened = self._current.opened
        generations = (self._current, *self._retired.values())
        sessions = [each.opened.session for each in generations]
        return self._board.snapshot(opened.catalog, opened.cache, sessions)

    async def stop(self, within: float) -> None:
        """Accept nothing more, and wait for the requests that are being answered.

        Args:
            within: Seconds; connections that are open after that are cut (rule SRV-44).
        """
        self._stopping = True
        for each in self._servers:
            each.close()
        if self._runner is None or self._runner.server is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        timer = loop.call_at(deadline, self.abort)
        try:
            async with asyncio.timeout_at(deadline + CUT_WITHIN):
                self._runner.server.pre_shutdown()
                await self._runner.server.shutdown(within)
        except TimeoutError:
            _log.warning("requests did not end %g s after they were cut", CUT_WITHIN)
        finally:
            timer.cancel()

    def abort(self) -> None:
        """Cut all connections. The requests end within a second."""
        for each in tuple(self._connections.values()):
            each.abort()

    async def aclose(self) -> None:
        self._stopping = True
        for each in self._servers:
            each.close()
        generations = [self._prepared, self._current, *self._retired.values()]
        for task in (*self._retired, self._measuring):
            if task is not None:
                task.cancel()
        self._prepared = self._current = None
        try:
            await close_all((each for each in generations if each is not None), "the registry")
        finally:
            if self._runner is not None:
                await self._runner.cleanup()
            await asyncio.to_thread(self._lines.close)

    def _hooks_of(self, config: ServeConfig) -> list[Hook]:
        if config.access_log == "off":
            return self._hooks
        return [*self._hooks, AccessLog(self._lines, config.access_log)]

    async def _listen(self, tls: ssl.SSLContext | None) -> None:
        """Accept connections; those that come from now on are shown this certificate."""
        loop = asyncio.get_running_loop()
        servers: list[asyncio.Server] = []
        with ExitStack() as stack:
            for each in self._sockets:
                server = await loop.create_server(
                    self._connect,
                    sock=each.dup(),
                    ssl=tls,
                    backlog=BACKLOG,
                    ssl_handshake_timeout=None if tls is None else HEAD_SECONDS,
                )
                stack.callback(server.close)
                servers.append(server)
            stack.pop_all()
        before, self._servers = self._servers, servers
        for server in before:
            server.close()

    def _connect(self) -> asyncio.Protocol:
        if self._stopping or self._runner is None or self._runner.server is None:
            return _Refused()  # a handshake that was under way when the server was stopped
        return HeadLimits(self._runner.server(), connections=self._connections)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        connection = self._connections.get(request.protocol)
        if connection is not None:
            connection.end_head()
        assert self._current is not None  # noqa: S101 - requests come between start and aclose
        try:
            return await self._current.handle(request)
        finally:
            if connection is not None and not request.body_exists:
                connection.begin_head()

    async def _measure(self, metrics: PrometheusMetrics) -> None:
        """Show what the cache holds, which no event tells."""
        while True:
            cache = self.status().cache
            if cache is not None:
                stats = CacheStats(
                    bytes=cache.bytes,
                    entries=cache.entries,
                    pins=cache.pins,
                    hits=cache.hits,
                    misses=cache.misses,
                    limit=cache.limit,
                )
                metrics.set_cache(stats)
            await asyncio.sleep(MEASURE_EVERY)

    async def _retire(self, generation: Generation) -> None:
        await generation.wait_unused()
        try:
            await generation.aclose()
        except Exception as error:  # noqa: BLE001 - it was replaced, and the server goes on
            report("closing a configuration that was replaced failed", error)


class _Refused(asyncio.Protocol):
    """Cuts a connection that comes too late."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Warnings:
    """A hook that logs warnings, each once a minute."""

    def __init__(self) -> None:
        self._logged = LRU[Warned, float](256)

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Warned):
            return
        now = asyncio.get_running_loop().time()
        before = self._logged.get(event)
        if before is None or now - before >= WARN_AGAIN:
            self._logged.put(event, now)
            # Registries write some of them: control characters must not reach a terminal.
            _log.warning("%s", _printable((event.reference, event.message)))


def _printable(parts: Iterable[str]) -> str:
    text = ": ".join(part for part in parts if part)
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
