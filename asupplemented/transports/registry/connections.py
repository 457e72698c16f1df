"""Connections: the aiohttp clients of a session, with everything automatic turned off.

They follow no redirects, keep no cookies, decompress nothing, limit neither connections nor the
time of a whole body, and read neither the environment nor ``.netrc`` (rule TLS-08): other modules
decide all that. `Connections.send` sends one request, returns the head of its response, and
raises only errors of this package.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final, TypeAlias

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict, istr

from asupplemented._version import __version__
from asupplemented.abc import AsyncResource, ResourceKey
from asupplemented.aio.closing import close_all
from asupplemented.aio.lru import LRU
from asupplemented.aio.timers import WaitTimers
from asupplemented.errors import (
    ClosedError,
    ConfigurationError,
    MalformedResponseError,
    SourceTimeoutError,
    SupplementedError,
)
from asupplemented.events import UpstreamResponded
from asupplemented.remedies import PRIVATE_TARGETS
from asupplemented.transports.registry.addresses import (
    AddressScope,
    classify_host,
    classify_target,
    origin_of,
    redact,
)
from asupplemented.transports.registry.endpoint import (
    DIRECT,
    NO_CERTIFICATES,
    Endpoint,
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
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from aiohttp.abc import ResolveResult
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace
    from aiohttp.typedefs import LooseCookies, LooseHeaders
    from yarl import URL

    from asupplemented.abc import Timeouts
    from asupplemented.events import Event
    from asupplemented.hostconfig.certificates import Certificates
    from asupplemented.hostconfig.proxies import Proxies
    from asupplemented.remedies import Remedy
    from asupplemented.transports.registry.endpoint import InThread, Proxy
    from asupplemented.transports.registry.options import RegistryOptions

__all__ = ("CONNECTIONS", "USER_AGENT", "AddressGate", "Connections")

USER_AGENT: Final = f"asupplemented/{__version__}"
"""The name and version of this library."""

API_VERSION: Final = (istr("Docker-Distribution-API-Version"), "registry/2.0")

MAX_HOSTS: Final = 1024
"""Hosts whose address scope is kept."""


class Connections(AsyncResource):
    """All connections to registries of a session.

    Args:
        borrowed: A client whose connector is used in place of our own. Its headers, cookies and
            settings are not used, and it is never closed here. It resolves names and verifies
            certificates in its own way.
        timeouts: How long to wait.
        options: Caps, and the ``User-Agent``.
        in_thread: Runs a blocking function, which reads certificates, in a worker thread.
        emit: Told of every request; None if there is no hook.

    Raises:
        ConfigurationError: `borrowed` cannot be used.
    """

    __slots__ = (
        "_borrowed",
        "_clients",
        "_closed",
        "_emit",
        "_heads",
        "_loop",
        "_options",
        "_scopes",
        "_timeout",
        "_tls",
        "head_limit",
    )

    def __init__(
        self,
        borrowed: object | None,
        *,
        timeouts: Timeouts,
        options: RegistryOptions,
        in_thread: InThread,
        emit: Callable[[Event], None] | None = None,
    ) -> None:
        self._emit = emit
        self._borrowed = None if borrowed is None else _check(borrowed)
        self._options = options
        self._timeout = aiohttp.ClientTimeout(total=None, connect=timeouts.connect)
        self._tls = TLSContexts(in_thread)
        self._clients: dict[AddressScope | None, _Client] = {}
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._scopes = LRU[str, AddressScope](MAX_HOSTS)
        # With our own connector, the wait for a head begins when a connection is ready.
        self.head_limit = _sum((timeouts.first_byte, timeouts.connect))
        """Seconds from the beginning of a request to the head of its response, None for ever."""
        self._heads = WaitTimers(self.head_limit if self._borrowed else timeouts.first_byte)

    @property
    def owned(self) -> bool:
        """Whether the connector is our own, and no borrowed one, which may be of any kind."""
        return self._borrowed is None

    async def open_endpoint(
        self,
        url: URL,
        *,
        verify: bool,
        max_scope: AddressScope | None,
        certificates: Certificates = NO_CERTIFICATES,
        proxies: Proxies = DIRECT,
        registry: str | None = None,
        own: bool = False,
    ) -> Endpoint:
        """How requests to the origin of a URL are sent.

        Args:
            url: A URL at that origin.
            verify: Whether certificates and host names are checked.
            max_scope: The most private address to connect to (rule SEC-01); None for any. It
                does not apply to proxies, which resolve names themselves.
            certificates: What to trust and to send there, besides the system's.
            proxies: The proxies to choose from.
            registry: The registry that requests are for; None is the server of the URL.
            own: See `Endpoint`.

        Raises:
            ConfigurationError: A client certificate cannot be used, or a proxy could not be
                verified.
            ClosedError: The session is closed.
        """
        if self._closed:
            raise ClosedError("the session is closed; make a new one")
        proxy = find_proxy(url, proxies)
        _check_proxied(url, proxy, verify=verify)
        if self._options.public_only:
            self._check_public(url)
            max_scope = AddressScope.PUBLIC
        if self._borrowed is not None or proxy is not None:
            max_scope = None
        client = self._clients.get(max_scope)
        if client is None:
            client = self._clients[max_scope] = self._make_client(max_scope)
        # A borrowed connector takes True for the settings of its own.
        tls: ssl.SSLContext | bool = True
        if url.scheme == "https":
            tls = await self._tls.get(certificates, verify=verify)
        registry = registry or url.raw_authority
        return Endpoint(url, origin_of(url), client.session, tls, proxy, registry, own)

    def _check_public(self, url: URL) -> None:
        """Refuse what is no public address already by the look of it, also behind a proxy.

        Raises:
            ConfigurationError: Addresses cannot be checked, since the client is borrowed.
            MalformedResponseError: The host is such an address.
        """
        if self._borrowed is not None:
            message = (
                "the setting public_only cannot be kept with a borrowed HTTP client; leave out http"
            )
            raise ConfigurationError(message)
        if classify_target(url.raw_host or "") not in {None, AddressScope.PUBLIC}:
            message = f"refused to connect to {origin_of(url)}, {_NOT_PUBLIC}"
            raise MalformedResponseError(message, url=redact(url))

    def find_scope(self, host: str) -> AddressScope | None:
        """The address scope of a host: the least private one if it has several addresses.

        Returns:
            None for a name that was not resolved here yet.
        """
        literal = classify_host(host)
        return self._scopes.get(host) if literal is None else literal

    def send(
        self,
        endpoint: Endpoint,
        url: URL,
        *,
        method: str = "GET",
        headers: CIMultiDict[str] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Coroutine[object, object, aiohttp.ClientResponse]:
        """Send one request and wait for the head of its response, which the caller closes.

        Raises:
            NetworkError: There is no connection, or it broke.
            SourceTimeoutError: There was no connection in time, or no complete head.
            MalformedResponseError: The response is not HTTP, or the name has only addresses
                that are too private.
            ClosedError: The session is closed.
        """
        sending = self._send(endpoint, url, method, headers, form)
        return sending if self._emit is None else self._tell(self._emit, endpoint, method, sending)

    async def _tell(
        self,
        emit: Callable[[Event], None],
        endpoint: Endpoint,
        method: str,
        sending: Coroutine[object, object, aiohttp.ClientResponse],
    ) -> aiohttp.ClientResponse:
        began = self._loop.time()
        status = error = None
        try:
            response = await sending
            status = response.status
        except SupplementedError as failure:
            error = type(failure).__name__
            raise
        finally:
            seconds, origin = self._loop.time() - began, str(endpoint.origin)
            emit(UpstreamResponded(endpoint.registry, method, status, seconds, error, origin))
        return response

    async def _send(
        self,
        endpoint: Endpoint,
        url: URL,
        method: str,
        headers: CIMultiDict[str] | None,
        form: Mapping[str, str] | None,
    ) -> aiohttp.ClientResponse:
        task = _current_task(self._loop)
        cancelling = task.cancelling()
        if self._borrowed is not None:
            self._heads.begin(task)
        proxy, shown = endpoint.proxy, None
        if proxy is not None and proxy.authorization is not None:
            shown = {hdrs.PROXY_AUTHORIZATION: proxy.authorization}
            if url.scheme == "http":  # without a tunnel, the proxy reads the request itself
                headers, shown = CIMultiDict(headers or (), **shown), None
        try:
            return await endpoint.client.request(
                method,
                url,
                headers=headers,
                data=form,
                allow_redirects=False,
                ssl=endpoint.tls,
                proxy=None if proxy is None else proxy.url,
                proxy_headers=shown,
            )
        except asyncio.CancelledError:
            if self._heads.end(task) and task.cancelling() <= cancelling:
                raise SourceTimeoutError(f"{redact(url)} did not answer in time") from None
            raise
        except FOREIGN as error:
            failure = translate(error, url, own=endpoint.own)
        except RuntimeError as error:
            if not endpoint.client.closed:
                raise
            raise ClosedError("the session is closed, or the client that it borrowed") from error
        finally:
            self._heads.end(task)
        # Raised outside the handler: what was caught there may hold secrets, and would be kept as
        # the context of this error.
        raise failure

    def __repr__(self) -> str:
        return f"<Connections: {len(self._heads)} requests wait for an answer>"

    async def aclose(self) -> None:
        self._closed = True
        self._heads.close()
        clients = list(self._clients.values())
        self._clients.clear()
        await close_all(clients, "the connections to registries")

    def _make_client(self, max_scope: AddressScope | None) -> _Client:
        if self._borrowed is not None:
            return _Client(self._make_session(self._borrowed.connector, self._borrowed), None)
        why = _NOT_PUBLIC if self._options.public_only else _TOO_PRIVATE
        remedy = None if why is _NOT_PUBLIC else PRIVATE_TARGETS
        gate = AddressGate(max_scope, why, remedy)
        resolver = _Resolver(self._scopes, gate)
        connector = _Connector(self._heads, resolver, gate, self._options.limits.keep_alive)
        return _Client(self._make_session(connector, None), resolver)

    def _make_session(
        self, connector: aiohttp.BaseConnector | None, lender: aiohttp.ClientSession | None
    ) -> aiohttp.ClientSession:
        cap = self._options.limits.header
        return aiohttp.ClientSession(
            connector=connector,
            connector_owner=lender is None,
            trace_configs=None if lender is None else list(lender.trace_configs),
            headers=_default_headers(self._options.user_agent or USER_AGENT),
            request_class=_PlainRequest,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=self._timeout,
            max_line_size=cap,
            max_field_size=cap,
        )


CONNECTIONS: Final = ResourceKey["Connections"]("connections to registries")
"""The connections of a session."""


def _default_headers(user_agent: str) -> CIMultiDict[str]:
    """The headers of every request (rule HTTP-01); each request says what it accepts."""
    return CIMultiDict(
        [
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
    """Refuse an https proxy for an insecure registry.

    aiohttp has one TLS setting for both, so the proxy would not be verified either.
    """
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
    # Passing the loop saves a look-up, which makes a system call to detect forks.
    task: asyncio.Task[object] | None = asyncio.current_task(loop)
    if task is None:
        message = "send requests from within a task"
        raise RuntimeError(message)
    return task


class _Client(AsyncResource):
    """One aiohttp client and its resolver."""

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

    It skips the search for missing headers and for cookies, a good part of the cost of a small
    request. If another aiohttp names these methods differently, requests are still right, and a
    little slower.
    """

    def update_headers(self, headers: LooseHeaders | None) -> None:
        host = self.url.host_port_subcomponent
        if host is None or not isinstance(headers, CIMultiDict):
            super().update_headers(headers)
            return
        self.headers: CIMultiDict[str] = CIMultiDict(((hdrs.HOST, host),))
        self.headers.extend(headers)

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Do nothing: `_default_headers` has them all."""

    def update_cookies(self, cookies: LooseCookies | None) -> None:
        """Do nothing: `aiohttp.DummyCookieJar` has none."""


class _Connector(aiohttp.TCPConnector):
    """Starts the wait for the head of a response once its connection is ready."""

    def __init__(
        self, heads: WaitTimers, resolver: _Resolver, gate: AddressGate, keep_alive: float
    ) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType] - aiohttp types it in part
            limit=0,
            limit_per_host=0,
            resolver=resolver,
            keepalive_timeout=keep_alive,
            socket_factory=gate.make_socket,
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


_AddrInfo: TypeAlias = tuple[
    int | socket.AddressFamily,
    int | socket.SocketKind,
    int,
    str,
    tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
]
"""What `socket.getaddrinfo` returns for one address."""

_TOO_PRIVATE: Final = "which is more private than the server that named it"
_NOT_PUBLIC: Final = "which is not public, and the setting public_only is on"


class AddressGate:
    """Decides which addresses are connected to (rule SEC-01).

    Names are checked when they are looked up, and every address once more when its socket is
    made: no second look-up, and no spelling of a number, leads to one that was not checked.

    Args:
        limit: The most private scope that passes, None for any.
        why: Why others do not, for errors; it completes "an address ...".
        remedy: The setting that lets others pass, None if there is none to advise.
    """

    __slots__ = ("_remedy", "_why", "limit")

    def __init__(self, limit: AddressScope | None, why: str, remedy: Remedy | None = None) -> None:
        self.limit = limit
        self._why = why
        self._remedy = remedy

    def admits(self, scope: AddressScope | None) -> bool:
        """Whether an address of a scope is connected to; None is what is no address."""
        return self.limit is None or (scope is not None and scope <= self.limit)

    def refuse(self, host: str) -> ForbiddenAddressError:
        """The error for a host."""
        return ForbiddenAddressError(f"{host} has an address {self._why}", self._remedy)

    def make_socket(self, addr_info: _AddrInfo) -> socket.socket:
        """Make the socket for one address.

        Raises:
            ForbiddenAddressError: It is not connected to.
        """
        family, kind, protocol, _, address = addr_info
        if not self.admits(classify_host(str(address[0]))):
            raise self.refuse(str(address[0]))
        return socket.socket(family=family, type=kind, proto=protocol)


class _Resolver(AbstractResolver):
    """Resolves names, records their address scope, and drops addresses that are too private."""

    def __init__(self, scopes: LRU[str, AddressScope], gate: AddressGate) -> None:
        self._inner = aiohttp.DefaultResolver()
        self._scopes = scopes
        self._gate = gate

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        scopes = [classify_host(result["host"]) or AddressScope.PUBLIC for result in found]
        if self._gate.limit is None:
            self._scopes.put(host.lower(), min(scopes, default=AddressScope.PUBLIC))
            return found
        admitted = [r for r, scope in zip(found, scopes, strict=True) if self._gate.admits(scope)]
        if not admitted:
            raise self._gate.refuse(host)
        return admitted

    async def close(self) -> None:
        await self._inner.close()
