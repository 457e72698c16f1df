"""Connections: the aiohttp clients of a session, set up so that nothing happens by itself.

No redirects, no cookies, no decompression, no limits, no time limit on a whole body, no
environment and no ``.netrc``: all of that is decided elsewhere, or not at all (rule TLS-08).
One request goes in, the head of its answer comes out, and every failure is one of ours.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict, istr

from asupplemented.abc import AsyncResource, ResourceKey
from asupplemented.aio.closing import close_all
from asupplemented.aio.lru import LRU
from asupplemented.aio.timers import WaitTimers
from asupplemented.errors import ClosedError, ConfigurationError, SourceTimeoutError
from asupplemented.model.media_type import ACCEPT
from asupplemented.transports.registry.addresses import (
    Reach,
    origin_of,
    reach_of,
    reach_of_host,
    redact,
)
from asupplemented.transports.registry.endpoint import (
    DIRECT,
    NO_CERTIFICATES,
    Proxy,
    TLSContexts,
    find_proxy,
)
from asupplemented.transports.registry.failures import (
    FOREIGN,
    ForbiddenAddressError,
    translate,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Mapping

    from aiohttp.abc import ResolveResult
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace
    from aiohttp.typedefs import LooseCookies, LooseHeaders
    from yarl import URL

    from asupplemented.abc import Timeouts
    from asupplemented.hostconfig.certificates import Certificates
    from asupplemented.hostconfig.proxies import Proxies
    from asupplemented.transports.registry.endpoint import InThread
    from asupplemented.transports.registry.options import RegistryOptions

__all__ = ("CONNECTIONS", "Channel", "Connections", "default_user_agent")

API_VERSION: Final = (istr("Docker-Distribution-API-Version"), "registry/2.0")

MAX_HOSTS: Final = 1024
"""Hosts of which is remembered how private they are."""


@dataclass(frozen=True, slots=True)
class Channel:
    """What to send a request through: a client, how it speaks TLS, and by which proxy."""

    client: aiohttp.ClientSession
    tls: ssl.SSLContext | bool
    proxy: Proxy | None = None


class Connections(AsyncResource):
    """All connections to registries of a session.

    Args:
        borrowed: A client whose connections are used in place of our own. Only those: its
            headers, cookies and settings stay out of it, and it is never closed here. How it
            resolves names and verifies certificates is its owner's affair.
        timeouts: How long to wait.
        options: Caps, and the name that we go by.
        in_thread: Reads certificates, away from the event loop.

    Raises:
        ConfigurationError: `borrowed` cannot be used.
    """

    __slots__ = (
        "_borrowed",
        "_clients",
        "_closed",
        "_heads",
        "_loop",
        "_options",
        "_reaches",
        "_timeout",
        "_tls",
    )

    def __init__(
        self,
        borrowed: object | None,
        *,
        timeouts: Timeouts,
        options: RegistryOptions,
        in_thread: InThread,
    ) -> None:
        self._borrowed = None if borrowed is None else _check(borrowed)
        self._options = options
        self._timeout = aiohttp.ClientTimeout(total=None, connect=timeouts.connect)
        self._tls = TLSContexts(in_thread)
        self._clients: dict[Reach | None, _Client] = {}
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._reaches = LRU[str, Reach](MAX_HOSTS)
        # With connections of our own, the wait for a head begins when one is there.
        waits = (timeouts.first_byte, timeouts.connect) if self._borrowed else ()
        self._heads = WaitTimers(_sum(waits) if waits else timeouts.first_byte)

    async def open_channel(
        self,
        url: URL,
        *,
        verify: bool,
        reach: Reach | None,
        certificates: Certificates = NO_CERTIFICATES,
        proxies: Proxies = DIRECT,
    ) -> Channel:
        """The way to an origin.

        Args:
            url: Where to.
            verify: Whether certificates and host names are checked.
            reach: The most private address to connect to (rule SEC-01); None for any. A proxy
                looks names up by itself, and may be as near to us as it likes.
            certificates: What to trust and to show there, besides what the system says.
            proxies: Which proxy leads there.

        Raises:
            ConfigurationError: A client certificate cannot be used, or a proxy could not be
                verified.
            ClosedError: The session is closed.
        """
        if self._closed:
            raise ClosedError("the session is closed; make a new one")
        proxy = find_proxy(url, proxies)
        _check_proxied(url, proxy, verify=verify)
        if self._borrowed is not None or proxy is not None:
            reach = None
        client = self._clients.get(reach)
        if client is None:
            client = self._clients[reach] = self._make_client(reach)
        lenders = self._borrowed is not None and verify and certificates == NO_CERTIFICATES
        if url.scheme != "https" or lenders:
            return Channel(client.session, tls=True, proxy=proxy)
        tls = await self._tls.get(certificates, verify=verify)
        return Channel(client.session, tls, proxy)

    def reach_of(self, host: str) -> Reach | None:
        """How private the address of a host is: the least private one if it has several.

        Returns:
            None for a name that was not looked up here yet.
        """
        literal = reach_of_host(host)
        return self._reaches.get(host) if literal is None else literal

    async def send(
        self,
        channel: Channel,
        url: URL,
        *,
        method: str = "GET",
        headers: CIMultiDict[str] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """Send one request and wait for the head of its answer, which the caller closes.

        Raises:
            NetworkError: No connection, or it broke.
            SourceTimeoutError: No connection in time, or no whole head.
            MalformedResponseError: The answer is not HTTP, or leads where it must not.
            ClosedError: The session is closed.
        """
        task = _current_task(self._loop)
        cancelling = task.cancelling()
        if self._borrowed is not None:
            self._heads.begin(task)
        proxy, shown = channel.proxy, None
        if proxy is not None and proxy.authorization is not None:
            shown = {hdrs.PROXY_AUTHORIZATION: proxy.authorization}
            if url.scheme == "http":  # then the proxy is who gets the request itself
                headers, shown = CIMultiDict(headers or (), **shown), None
        try:
            return await channel.client.request(
                method,
                url,
                headers=headers,
                data=form,
                allow_redirects=False,
                ssl=channel.tls,
                proxy=None if proxy is None else proxy.url,
                proxy_headers=shown,
            )
        except asyncio.CancelledError:
            if self._heads.end(task) and task.cancelling() <= cancelling:
                raise SourceTimeoutError(f"{redact(url)} did not answer in time") from None
            raise
        except FOREIGN as error:
            failure = translate(error, url)
        except RuntimeError as error:
            if not channel.client.closed:
                raise
            raise ClosedError("the session is closed, or the client that it borrowed") from error
        finally:
            self._heads.end(task)
        # Not within the handler: what was caught there may hold secrets and would be kept.
        raise failure

    async def aclose(self) -> None:
        self._closed = True
        self._heads.close()
        clients = list(self._clients.values())
        self._clients.clear()
        await close_all(clients, "the connections to registries")

    def __repr__(self) -> str:
        return f"<Connections: {len(self._heads)} requests wait for an answer>"

    def _make_client(self, reach: Reach | None) -> _Client:
        if self._borrowed is not None:
            return _Client(self._make_session(self._borrowed.connector, self._borrowed), None)
        resolver = _Resolver(self._reaches, reach)
        connector = _Connector(self._heads, resolver, self._options.limits.keep_alive)
        return _Client(self._make_session(connector, None), resolver)

    def _make_session(
        self, connector: aiohttp.BaseConnector | None, lender: aiohttp.ClientSession | None
    ) -> aiohttp.ClientSession:
        cap = self._options.limits.header
        return aiohttp.ClientSession(
            connector=connector,
            connector_owner=lender is None,
            trace_configs=None if lender is None else list(lender.trace_configs),
            headers=_default_headers(self._options.user_agent or default_user_agent()),
            request_class=_PlainRequest,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=self._timeout,
            max_line_size=cap,
            max_field_size=cap,
        )


CONNECTIONS: Final = ResourceKey["Connections"]("connections to registries")


def default_user_agent() -> str:
    """The name and version of this library."""
    try:
        return f"asupplemented/{version('asupplemented')}"
    except PackageNotFoundError:  # it runs from a directory
        return "asupplemented"


def _default_headers(user_agent: str) -> CIMultiDict[str]:
    """What every request carries (rules HTTP-01, HTTP-02)."""
    return CIMultiDict(
        [
            *((hdrs.ACCEPT, media_type) for media_type in ACCEPT),
            (hdrs.ACCEPT_ENCODING, "identity"),
            (hdrs.USER_AGENT, user_agent),
            API_VERSION,
        ]
    )


def _check(borrowed: object) -> aiohttp.ClientSession:
    if not isinstance(borrowed, aiohttp.ClientSession):
        kind = type(borrowed).__name__
        message = f"http is an aiohttp.ClientSession to borrow, not a {kind}"
        raise ConfigurationError(message)
    if borrowed.closed:
        message = "the aiohttp.ClientSession given as http is closed; lend one that is open"
        raise ConfigurationError(message)
    return borrowed


def _check_proxied(url: URL, proxy: Proxy | None, *, verify: bool) -> None:
    """What is not verified is not verified all the way, and a proxy is not meant by that."""
    if proxy is not None and not verify and (url.scheme, proxy.url.scheme) == ("https", "https"):
        message = (
            f"{proxy.url} could not be verified on the way to {origin_of(url)}, which is insecure; "
            "trust the certificate of the registry, or speak http to the proxy"
        )
        raise ConfigurationError(message)


def _sum(seconds: tuple[float | None, ...]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if len(known) == len(seconds) else None


def _current_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[object]:
    # Without a loop it looks for one, and asks the system for that whether we were forked.
    task: asyncio.Task[object] | None = asyncio.current_task(loop)
    if task is None:
        message = "requests are sent from within a task"
        raise RuntimeError(message)
    return task


class _Client(AsyncResource):
    """One aiohttp client and what it stands on."""

    __slots__ = ("_resolver", "session")

    def __init__(self, session: aiohttp.ClientSession, resolver: _Resolver | None) -> None:
        self.session = session
        self._resolver = resolver

    async def aclose(self) -> None:
        try:
            await self.session.close()
        finally:
            if self._resolver is not None:
                await self._resolver.close()


class _PlainRequest(aiohttp.ClientRequest):
    """A request whose headers are complete when it is made.

    What it leaves out is looking for what is not there: headers to complete, cookies to add.
    That is a good part of what a small request costs. Were these methods called otherwise in
    another aiohttp, requests would be as right as before, and a little slower.
    """

    def update_headers(self, headers: LooseHeaders | None) -> None:
        host = self.url.host_port_subcomponent
        if host is None or not isinstance(headers, CIMultiDict):
            super().update_headers(headers)
            return
        self.headers: CIMultiDict[str] = CIMultiDict(((hdrs.HOST, host),))
        self.headers.extend(headers)

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Nothing is missing; see `_default_headers`."""

    def update_cookies(self, cookies: LooseCookies | None) -> None:
        """There are none; see `aiohttp.DummyCookieJar`."""


class _Connector(aiohttp.TCPConnector):
    """Tells when a connection is there: from then on the answer is waited for."""

    def __init__(self, heads: WaitTimers, resolver: _Resolver, keep_alive: float) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType] - aiohttp types it in part
            limit=0, limit_per_host=0, resolver=resolver, keepalive_timeout=keep_alive
        )
        self._heads = heads

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        self._heads.begin(_current_task(self._loop))
        return connection


class _Resolver(AbstractResolver):
    """Remembers how private the addresses of a name are, and keeps back those that are too much.

    The addresses that pass are the ones that are connected to: nothing is looked up again in
    between (rule SEC-01).
    """

    def __init__(self, reaches: LRU[str, Reach], limit: Reach | None) -> None:
        self._inner = aiohttp.DefaultResolver()
        self._reaches = reaches
        self._limit = limit

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        reaches = [_reach_of_result(result) for result in found]
        if self._limit is None:
            self._reaches.put(host.lower(), min(reaches, default=Reach.PUBLIC))
            return found
        admitted = [r for r, reach in zip(found, reaches, strict=True) if reach <= self._limit]
        if not admitted:
            message = f"{host} leads to an address that is not for those who were sent there"
            raise ForbiddenAddressError(message)
        return admitted

    async def close(self) -> None:
        await self._inner.close()


def _reach_of_result(result: ResolveResult) -> Reach:
    try:
        return reach_of(ipaddress.ip_address(result["host"].partition("%")[0]))
    except ValueError:
        return Reach.NEVER
