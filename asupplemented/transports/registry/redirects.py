"""Redirects: where an answer sends us, decided by our own rules (rules REDIR-02 to REDIR-05).

Nothing is re-quoted: a pre-signed location works as it was written, or not at all.

The courier: takes a request to its answer, along redirects, and keeps what is confidential.

Credentials stay at the origin they are for. Once a request has left it they are gone, even if
it comes back (rules REDIR-02, CRED-03, SEC-02).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from urllib.parse import quote, urljoin

from aiohttp import hdrs
from yarl import URL

from asupplemented.errors import MalformedResponseError
from asupplemented.transports.registry.addresses import Reach, origin_of, reach_of_host, redact
from asupplemented.transports.registry.endpoint import DIRECT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import aiohttp
    from multidict import CIMultiDict

    from asupplemented.hostconfig.proxies import Proxies
    from asupplemented.transports.registry.addresses import Origin
    from asupplemented.transports.registry.connections import Channel, Connections
    from asupplemented.transports.registry.options import RegistryOptions

__all__ = (
    "REDIRECTS",
    "Courier",
    "Delivery",
    "Home",
    "Parcel",
    "join_url",
    "next_url",
    "parse_url",
)

REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))

_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*+:", re.ASCII)


def next_url(visited: Sequence[URL], location: str | None, *, limit: int, insecure: bool) -> URL:
    """Where to go after a redirect.

    Args:
        visited: Every URL asked so far for this request, the redirecting one last.
        location: The ``Location`` header, None if there is none.
        limit: Redirects that are followed.
        insecure: Whether https may be left for http.

    Raises:
        MalformedResponseError: The redirect is not to be followed. Its message and URL have
            no query, since that may be a secret.
    """
    current = visited[-1]
    if not location:
        raise _refuse(current, "without a location")
    try:
        target = join_url(current, location)
    except ValueError as error:
        raise _refuse(current, f"to a location that {error}") from None
    if current.scheme == "https" and target.scheme == "http" and not insecure:
        raise _refuse(current, f"from https to plain http at {redact(target)}")
    if target in visited:
        raise _refuse(current, f"in a circle, to {redact(target)} again")
    if len(visited) > limit:
        raise _refuse(current, f"once more, and {limit} redirects are followed at most")
    return target


def parse_url(text: str) -> URL:
    """Read an absolute http or https URL as a server wrote it, without re-quoting it.

    Blanks and characters beyond ASCII are quoted, since no request could carry them.

    Raises:
        ValueError: It is none; the message completes "a URL that ..." and quotes nothing.
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
    """The same for a URL that may be relative to another one.

    Raises:
        ValueError: See `parse_url`.
    """
    _check_characters(text)  # some of them urljoin would take away
    # It leaves an absolute URL almost alone, and almost is not enough.
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


@dataclass(frozen=True, slots=True)
class Home:
    """The origin of a registry, and how it is reached."""

    url: URL
    origin: Origin
    channel: Channel
    insecure: bool
    """Plain http and unverified TLS are allowed, here and nowhere else (rule TLS-05)."""
    proxies: Proxies = DIRECT
    """What leads to where the registry sends us (rule TLS-07)."""


class Parcel(NamedTuple):
    """A request."""

    url: URL
    headers: CIMultiDict[str] | None = None
    """What goes to the origin of `url` only."""
    headers_away: CIMultiDict[str] | None = None
    """What goes to all other origins."""
    channel: Channel | None = None
    """The way to `url`, None to find it."""
    form: Mapping[str, str] | None = None
    """Sent by POST; such a request follows no redirects."""
    admit: Callable[[URL], None] | None = None
    """Raises if a redirect to this URL is not to be followed."""
    method: Literal["GET", "HEAD"] = "GET"
    """Without a form. Redirects do not change it (rule REDIR-04)."""


class Delivery(NamedTuple):
    """The head of the final answer; who receives it closes it."""

    response: aiohttp.ClientResponse
    local: bool
    """Whether it comes from the origin that was asked first, without a detour."""


class Courier:
    """Sends requests for one registry.

    Args:
        connections: What to send them through.
        options: How many redirects, and whether they may lead to private addresses.
        home: The registry.
    """

    __slots__ = ("_connections", "_home", "_options")

    def __init__(self, connections: Connections, options: RegistryOptions, home: Home) -> None:
        self._connections = connections
        self._options = options
        self._home = home

    async def deliver(self, parcel: Parcel) -> Delivery:
        """Send a request, and follow redirects.

        Raises:
            SourceError: There is no answer, or a redirect is not to be followed.
        """
        channel = parcel.channel or await self._find_channel(parcel.url)
        response = await self._connections.send(
            channel,
            parcel.url,
            method=parcel.method if parcel.form is None else "POST",
            headers=parcel.headers,
            form=parcel.form,
        )
        if response.status in REDIRECTS:
            return await self.follow(response, parcel)
        return Delivery(response, local=True)

    async def follow(self, response: aiohttp.ClientResponse, parcel: Parcel) -> Delivery:
        """Go where an answer sends a request that was sent already, as far as it takes.

        Args:
            response: The answer, a redirect. It is closed.
            parcel: The request.

        Raises:
            SourceError: There is no answer, or a redirect is not to be followed.
        """
        visited = [parcel.url]
        local = True
        while response.status in REDIRECTS:
            try:
                url = self._next_url(response, visited, parcel)
            finally:
                response.close()
            visited.append(url)
            local = local and origin_of(url) == origin_of(parcel.url)
            response = await self._connections.send(
                await self._find_channel(url),
                url,
                method=parcel.method,
                headers=parcel.headers if local else parcel.headers_away,
            )
        return Delivery(response, local)

    def _next_url(
        self, response: aiohttp.ClientResponse, visited: list[URL], parcel: Parcel
    ) -> URL:
        """Where to go next (rule REDIR-04)."""
        try:
            url = next_url(
                visited,
                response.headers.get(hdrs.LOCATION),
                limit=0 if parcel.form is not None else self._options.limits.redirects,
                insecure=self._home.insecure,
            )
            if parcel.admit is not None:
                parcel.admit(url)
        except MalformedResponseError as error:
            error.status = response.status
            raise
        return url

    async def _find_channel(self, url: URL) -> Channel:
        """The way to an origin: the registry's own, or one for places it sends us to.

        Raises:
            MalformedResponseError: It is an address more private than the registry's own
                (rule SEC-01); nothing was sent.
        """
        home = self._home
        if origin_of(url) == home.origin:
            return home.channel
        limit = None if self._options.private_targets else self._reach()
        reach = reach_of_host(url.raw_host or "")
        if limit is not None and reach is not None and reach > limit:
            place = redact(url)
            message = (
                f"{home.origin} sends us to {place}, an address more private than its own; "
                "if that is right, set RegistryOptions.private_targets"
            )
            raise MalformedResponseError(message, url=place)
        return await self._connections.open_channel(
            url, verify=True, reach=limit, proxies=home.proxies
        )

    def _reach(self) -> Reach | None:
        """How private an address may be that the registry sends us to, None for any."""
        home = self._home
        reach = self._connections.reach_of(home.origin.host)
        if reach is None and home.channel.proxy is not None:
            return Reach.PUBLIC  # nobody has looked it up here
        # A registry at a link-local address is no reason to go to another one.
        return Reach.PRIVATE if reach is Reach.NEVER else reach
