"""Routes: how a registry is reached, and by which proxy. Values, no I/O."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from asupplemented.hostconfig.certificates import Certificates
from asupplemented.hostconfig.proxies import Proxies

__all__ = ("DIRECT", "NO_CERTIFICATES", "Proxy", "Route", "find_proxy")

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
