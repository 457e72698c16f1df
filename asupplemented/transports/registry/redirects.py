"""Redirects: which ones are followed, and with what (rules REDIR-02 to REDIR-05).

No URL is re-quoted: a pre-signed location works only as it was written.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, urljoin

from aiohttp import hdrs
from yarl import URL

from asupplemented.aio.timers import time_limit
from asupplemented.errors import MalformedResponseError
from asupplemented.remedies import PRIVATE_TARGETS, TLS_VERIFY, advise
from asupplemented.transports.registry.addresses import (
    AddressScope,
    classify_target,
    origin_of,
    redact,
)
from asupplemented.transports.registry.endpoint import DIRECT, NO_CERTIFICATES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import aiohttp

    from asupplemented.hostconfig.certificates import Certificates
    from asupplemented.hostconfig.proxies import Proxies
    from asupplemented.transports.registry.addresses import Origin
    from asupplemented.transports.registry.connections import Connections
    from asupplemented.transports.registry.endpoint import Endpoint, EndpointConfig
    from asupplemented.transports.registry.options import RegistryOptions
    from asupplemented.transports.registry.request import Request

__all__ = ("REDIRECTS", "RedirectClient", "Response", "join_url", "next_url", "parse_url")

REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))

_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*+:", re.ASCII)


def next_url(
    visited: Sequence[URL], location: str | None, *, limit: int, insecure: bool, own: bool = False
) -> URL:
    """The URL that a redirect leads to, if it may be followed.

    Args:
        visited: Every URL asked so far for this request, the redirecting one last.
        location: The ``Location`` header, None if there is none.
        limit: Redirects that are followed.
        insecure: Whether https may be left for http.
        own: Whether the setting ``tls_verify`` would change that.

    Raises:
        MalformedResponseError: The redirect must not be followed. The message and URL of the
            error have no query, since that may be a secret.
    """
    current = visited[-1]
    if not location:
        raise _refuse(current, "without a location")
    try:
        target = join_url(current, location)
    except ValueError as error:
        raise _refuse(current, f"to a location that {error}") from None
    if current.scheme == "https" and target.scheme == "http" and not insecure:
        advice = advise("if that is right, allow it with {}", TLS_VERIFY) if own else ""
        raise _refuse(current, f"from https to plain http at {redact(target)}{advice}")
    if target in visited:
        raise _refuse(current, f"in a circle, to {redact(target)} again")
    if len(visited) > limit:
        raise _refuse(current, f"once more, and {limit} redirects are followed at most")
    return target


def parse_url(text: str) -> URL:
    """Read an absolute http or https URL as a server wrote it, without re-quoting it.

    Blanks and characters beyond ASCII are quoted, since no request could carry them.

    Raises:
        ValueError: It is not one; the message completes "a URL that ..." and quotes nothing.
    """
    _check_characters(text)
    url = _read(quote(text, safe=_VISIBLE, errors="replace"))
    if url is None:
        message = "is no http or https URL"
        raise ValueError(message)
    if "@" in url.raw_authority:
        message = "holds a user or password"
        raise ValueError(message)
    return url


def join_url(current: URL, text: str) -> URL:
    """Read a URL that may be relative to another one, like `parse_url`.

    Raises:
        ValueError: See `parse_url`.
    """
    _check_characters(text)  # before urljoin, which drops some of them
    # urljoin changes details of absolute URLs, so those are read as they are.
    return parse_url(text if _ABSOLUTE.match(text) else urljoin(str(current), text))


def _check_characters(text: str) -> None:
    if any(ord(character) < 0x20 or character in "\x7f\\" for character in text):  # noqa: PLR2004
        message = "holds control characters or backslashes"
        raise ValueError(message)


def _read(text: str) -> URL | None:
    try:
        url = URL(text, encoded=True).with_fragment(None)
        return url if url.scheme in {"http", "https"} and origin_of(url) else None
    except ValueError:
        return None


def _refuse(current: URL, how: str) -> MalformedResponseError:
    place = redact(current)
    return MalformedResponseError(f"{place} redirects {how}", url=place)


class Response(NamedTuple):
    """The head of the last response to a request. The caller closes it."""

    http: aiohttp.ClientResponse
    same_origin: bool
    """Whether no redirect has left the origin that was asked first."""


class RedirectClient:
    """Sends requests, and follows redirects under our rules.

    Credentials stay at the origin that they are for. Once a request has left it they are not
    sent again, even if a redirect leads back (rules REDIR-02, CRED-03, SEC-02).

    Args:
        connections: What requests are sent through.
        options: How many redirects are followed, and whether to private addresses.
        endpoint: The server whose redirects are followed, such as a registry.
        insecure: Whether https may be left for http.
        proxies: The proxies for where redirects lead (rule TLS-07).
        config: The registry of the endpoint; None if it is no registry. On its host, its TLS
            settings apply to every port (rule TLS-05), and the certificates of other servers
            are looked up as it says (rule TLS-01).
        named: Origins that the caller allows, whatever their address.
    """

    __slots__ = (
        "_config",
        "_connections",
        "_insecure",
        "_named",
        "_options",
        "_proxies",
        "_scope",
        "endpoint",
    )

    def __init__(
        self,
        connections: Connections,
        options: RegistryOptions,
        endpoint: Endpoint,
        *,
        insecure: bool = False,
        proxies: Proxies = DIRECT,
        config: EndpointConfig | None = None,
        named: Collection[Origin] = (),
    ) -> None:
        self._connections = connections
        self._options = options
        self._insecure = insecure
        self._proxies = proxies
        self._config = config
        self._named = named
        self._scope: AddressScope | None = None
        """The address scope of the server, None as long as it is unknown."""
        self.endpoint = endpoint

    def without_insecure(self) -> RedirectClient:
        """The same client, which never leaves https for http."""
        config = None if self._config is None else replace(self._config, insecure=False)
        client = RedirectClient(
            self._connections, self._options, self.endpoint, proxies=self._proxies, config=config
        )
        client._scope = self._scope
        return client

    async def send(self, request: Request) -> Response:
        """Send a request, and follow redirects.

        Raises:
            SourceError: There is no response, or a redirect must not be followed.
        """
        endpoint = await self._find_endpoint(request.url)
        response = await self._connections.send(
            endpoint,
            request.url,
            method=request.method if request.form is None else "POST",
            headers=request.all_headers(),
            form=request.form,
        )
        self.keep_scope()
        if response.status in REDIRECTS:
            return await self.follow(response, request)
        return Response(response, same_origin=True)

    def keep_scope(self) -> None:
        """Keep the address scope of the server, now that it has responded.

        The session forgets hosts if there are many.
        """
        if self._scope is None:
            self._scope = self._connections.find_scope(self.endpoint.origin.host)

    async def follow(self, response: aiohttp.ClientResponse, request: Request) -> Response:
        """Follow the redirects of a request that was sent already.

        All of them together have as much time as one request.

        Args:
            response: Its response, a redirect. It is closed.
            request: The request; its URL is absolute.

        Raises:
            SourceError: There is no response, or a redirect must not be followed.
        """
        place = f"following the redirects of {redact(request.url)}"
        async with time_limit(self._connections.head_limit, place):
            return await self._follow(response, request)

    async def _follow(self, response: aiohttp.ClientResponse, request: Request) -> Response:
        first = origin_of(request.url)
        visited = [request.url]
        same_origin = True
        while response.status in REDIRECTS:
            try:
                url = self._next_url(response, visited, request)
            finally:
                response.close()
            visited.append(url)
            # It never becomes true again: the way back may have been chosen by another origin.
            same_origin = same_origin and origin_of(url) == first
            response = await self._connections.send(
                await self._find_endpoint(url),
                url,
                method=request.method,
                headers=request.all_headers() if same_origin else request.headers,
            )
        return Response(response, same_origin)

    def _next_url(
        self, response: aiohttp.ClientResponse, visited: list[URL], request: Request
    ) -> URL:
        """The URL that a redirect leads to, if it may be followed (rule REDIR-04)."""
        try:
            url = next_url(
                visited,
                response.headers.get(hdrs.LOCATION),
                limit=0 if request.form is not None else self._options.limits.redirects,
                insecure=self._insecure,
                own=self._config is not None and self.endpoint.own,
            )
            if request.check_redirect is not None:
                request.check_redirect(url)
        except MalformedResponseError as error:
            error.status = response.status
            raise
        return url

    async def _find_endpoint(self, url: URL) -> Endpoint:
        """The endpoint of a URL: this client's own, or one for other origins.

        Raises:
            MalformedResponseError: It is an address more private than that of this client's
                endpoint (rule SEC-01); nothing was sent.
        """
        home = self.endpoint
        if origin_of(url) == home.origin:
            return home
        allowed = self._options.private_targets or origin_of(url) in self._named
        limit = None if allowed else self._max_scope()
        scope = classify_target(url.raw_host or "")
        if limit is not None and scope is not None and scope > limit:
            place = redact(url)
            message = (
                f"{home.origin} leads to {place}, an address more private than its own"
            ) + advise("if that is right, allow it with {}", PRIVATE_TARGETS)
            raise MalformedResponseError(message, url=place)
        own = self._config is not None and url.raw_host == home.url.raw_host
        return await self._connections.open_endpoint(
            url,
            verify=not (own and self._insecure),
            max_scope=limit,
            certificates=await self._find_certificates(url),
            proxies=self._proxies,
            registry=home.registry,
            own=own,
        )

    async def _find_certificates(self, url: URL) -> Certificates:
        """The certificates that are configured for another origin."""
        find = None if self._config is None else self._config.find_certificates
        if find is None or url.scheme != "https":
            return NO_CERTIFICATES
        return await find(url.raw_authority)

    def _max_scope(self) -> AddressScope | None:
        """The most private address that a redirect may lead to, None for any."""
        self.keep_scope()
        home, scope = self.endpoint, self._scope
        if scope is None and home.proxy is not None:
            return AddressScope.PUBLIC  # the proxy has looked the name up, and we have not
        # A registry at a link-local address is no reason to follow it to another one.
        return AddressScope.PRIVATE if scope is AddressScope.NEVER else scope
