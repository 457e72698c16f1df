"""Endpoints: how an origin is reached, with which TLS settings and through which proxy.

Where no certificates are configured, the TLS contexts are those that aiohttp makes when it is
imported. `TLSContexts` gets the others in a worker thread, because that reads files (rule TLS-06).
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from yarl import URL

from asupplemented.aio.concurrency import SingleFlightMap
from asupplemented.hostconfig.certificates import Certificates, get_context
from asupplemented.hostconfig.proxies import Proxies

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    import aiohttp

    from asupplemented.transports.registry.addresses import Origin

__all__ = (
    "DIRECT",
    "NO_CERTIFICATES",
    "Endpoint",
    "EndpointConfig",
    "FindCertificates",
    "InThread",
    "Proxy",
    "TLSContexts",
    "find_proxy",
)

FindCertificates: TypeAlias = "Callable[[str], Awaitable[Certificates]]"
"""Gives the certificates of the ``host[:port]`` of another server (rule TLS-01)."""

InThread: TypeAlias = "Callable[[Callable[[], ssl.SSLContext]], Awaitable[ssl.SSLContext]]"
"""Runs a blocking function in a worker thread."""

NO_CERTIFICATES: Final = Certificates()
"""Only the authorities of the system are trusted, and no client certificate is sent."""

DIRECT: Final = Proxies()
"""Every host is reached directly."""


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """How a registry is to be reached. Sources with equal ones share a client (rule SRC-03).

    Attributes:
        registry: ``host[:port]``, as in references.
        insecure: Plain http and unverified TLS are allowed, at the registry's origin and nowhere
            else (rule TLS-05).
        certificates: Authorities to trust and client certificates to send, there only.
        proxies: The proxies for the registry and for where it redirects (rule TLS-07).
    """

    registry: str
    insecure: bool = False
    certificates: Certificates = NO_CERTIFICATES
    proxies: Proxies = DIRECT
    find_certificates: FindCertificates | None = field(default=None, repr=False)

    def __hash__(self) -> int:
        # It is a key of dictionaries: few differ in anything else, and the rest takes long to hash.
        return hash((self.registry, self.insecure))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An origin, and what requests to it are sent through."""

    url: URL
    origin: Origin
    client: aiohttp.ClientSession
    tls: ssl.SSLContext | bool
    proxy: Proxy | None = None
    registry: str = ""
    """The registry that requests to it are for, as events name it."""
    own: bool = False
    """Whether the setting ``tls_verify`` applies to it: it is on the host of a registry."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy to send a request through. No repr shows its password.

    Attributes:
        url: Without user and password, which would otherwise get into errors.
        authorization: The ``Proxy-Authorization`` header for this proxy; None for none.
    """

    url: URL
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def at(cls, text: str) -> Proxy:
        """The proxy at a URL, which may hold a user and a password; see `check_proxy`."""
        url = URL(text)
        if url.user is None and url.password is None:
            return cls(url.origin())
        secret = f"{url.user or ''}:{url.password or ''}"
        return cls(url.origin(), f"Basic {b64encode(secret.encode()).decode()}")


def find_proxy(url: URL, proxies: Proxies) -> Proxy | None:
    """The proxy for an http or https URL, None to connect directly."""
    text = proxies.find(url.scheme, url.raw_host or "", url.port)
    return None if text is None else Proxy.at(text)


class TLSContexts:
    """TLS settings for each set of certificates, one that verifies and one that does not.

    Args:
        in_thread: Runs a blocking function in a worker thread.
    """

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread
        self._made: dict[tuple[Certificates, bool], ssl.SSLContext] = {}
        self._flights = SingleFlightMap[tuple["Certificates", bool], "ssl.SSLContext"]()

    async def get(self, certificates: Certificates, *, verify: bool) -> ssl.SSLContext | bool:
        """The context for a set of certificates; `verify` itself selects that of aiohttp.

        Args:
            certificates: What to trust and to send besides the system's.
            verify: Whether it checks certificates and host names.

        Raises:
            ConfigurationError: A client certificate cannot be used.
        """
        if not certificates.pairs and not (verify and certificates.authorities):
            return verify
        key = certificates, verify
        context = self._made.get(key)
        if context is None:
            get = partial(get_context, certificates, verify=verify)
            context = await self._flights.run(key, partial(self._in_thread, get))
            self._made[key] = context
        return context
