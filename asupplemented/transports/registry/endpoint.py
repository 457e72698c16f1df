"""Routes: how a registry is reached, and by which proxy. Values, no I/O.

TLS contexts, made off the event loop because that reads many files (rule TLS-06).
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from yarl import URL

from asupplemented.aio.concurrency import SingleFlightMap
from asupplemented.hostconfig.certificates import Certificates, make_context
from asupplemented.hostconfig.proxies import Proxies

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable


__all__ = ("DIRECT", "NO_CERTIFICATES", "InThread", "Proxy", "Route", "TLSContexts", "find_proxy")

InThread: TypeAlias = "Callable[[Callable[[], ssl.SSLContext]], Awaitable[ssl.SSLContext]]"
"""Calls a function that blocks, and does not block."""


class TLSContexts:
    """One verifying and one trusting context for each set of certificates, made when needed.

    Args:
        in_thread: Calls a function in a worker thread.
    """

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread
        self._made: dict[tuple[Certificates, bool], ssl.SSLContext] = {}
        self._flights = SingleFlightMap[tuple["Certificates", bool], "ssl.SSLContext"]()

    async def get(self, certificates: Certificates, *, verify: bool) -> ssl.SSLContext:
        """The context that checks certificates and host names, or the one that checks nothing.

        Args:
            certificates: What to trust and to show besides what the system says.
            verify: Which of the two.

        Raises:
            ConfigurationError: A client certificate cannot be used.
        """
        key = certificates, verify
        context = self._made.get(key)
        if context is None:
            make = partial(make_context, certificates, verify=verify)
            context = await self._flights.run(key, partial(self._in_thread, make))
            self._made[key] = context
        return context


NO_CERTIFICATES: Final = Certificates()
"""Those of the system count, and none is shown."""

DIRECT: Final = Proxies()
"""Every host is reached directly."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a registry is reached. Sources with equal routes may share a client (rule SRC-03).

    Attributes:
        registry: ``host[:port]``, as in references.
        insecure: Plain http and unverified TLS are allowed, at its origin and nowhere else
            (rule TLS-05).
        certificates: What to trust and to show there, and nowhere else.
        proxies: What leads there, and to where it sends us (rule TLS-07).
    """

    registry: str
    insecure: bool = False
    certificates: Certificates = NO_CERTIFICATES
    proxies: Proxies = DIRECT


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy to send a request through. Its password is shown nowhere.

    Attributes:
        url: Without user and password, which would get into errors otherwise.
        authorization: What it is told of us, and nobody else is; None for nothing.
    """

    url: URL
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def at(cls, text: str) -> Proxy:
        """That of a URL, which may hold user and password; see `check_proxy`."""
        url = URL(text)
        if url.user is None and url.password is None:
            return cls(url.origin())
        secret = f"{url.user or ''}:{url.password or ''}"
        return cls(url.origin(), f"Basic {b64encode(secret.encode()).decode()}")


def find_proxy(url: URL, proxies: Proxies) -> Proxy | None:
    """The proxy that leads to an http or https URL, None to connect directly."""
    text = proxies.find(url.scheme, url.raw_host or "", url.port)
    return None if text is None else Proxy.at(text)
