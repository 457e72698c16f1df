"""Which proxy to use for a host, according to the variables of an environment (rule TLS-07).

The rules are those of ``urllib.request``, but for any environment, and networks are allowed in
``NO_PROXY``. ``.netrc`` is not read.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from asupplemented.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("NoProxyEntry", "Proxies", "check_proxy")

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_SCHEMES: Final = ("http", "https")
_PORTS: Final = {"http": 80, "https": 443}
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_LOCAL: Final = "localhost"


@dataclass(frozen=True, slots=True)
class NoProxyEntry:
    """One entry of ``NO_PROXY``.

    Attributes:
        name: A domain, which includes its subdomains; None matches every host.
        network: Addresses, in place of a name; None for none.
        port: The only port that matches; None matches any.
    """

    name: str | None
    network: _Network | None = None
    port: int | None = None

    @classmethod
    def parse(cls, entry: str) -> NoProxyEntry:
        """Parse a domain, an address, a network, or ``*``; the first two may have a port."""
        entry = entry.strip().lower()
        network = _parse_network(entry)
        if network is not None:
            return cls(None, network)
        host, _, digits = entry.rpartition(":")
        port = int(digits) if host and _PORT.fullmatch(digits) else None
        host = entry if port is None else host
        network = _parse_network(host.strip("[]"))
        if network is not None or host == "*":
            return cls(None, network, port)
        return cls(host.lstrip("*").strip("."), None, port)

    def covers(self, host: str, address: _Address | None, port: int) -> bool:
        """Whether the entry matches a host by its name or address, and its port."""
        if self.port not in {None, port}:
            return False
        if self.network is not None:
            return address is not None and address in self.network
        return self.name is None or host == self.name or host.endswith(f".{self.name}")


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of an environment. A value; `repr` hides the URLs: they may hold passwords.

    Attributes:
        http: The URL of the proxy for plain http; None for none.
        https: The same for https. The scheme of the URL is that of the connection to the proxy.
        exempt: Hosts that are connected directly.
        loopback: Whether connections to this host use a proxy, too.
    """

    http: str | None = field(default=None, repr=False)
    https: str | None = field(default=None, repr=False)
    exempt: tuple[NoProxyEntry, ...] = ()
    loopback: bool = False

    @classmethod
    def only(cls, url: str) -> Proxies:
        """The proxy `url` for every host, like the ``proxy`` of a ``[[registry]]``."""
        return cls(url, url, loopback=True)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Proxies:
        """Read ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``.

        A variable in lowercase overrides the one in uppercase, even if it is empty. In a CGI
        program ``HTTP_PROXY`` holds a header of the request, so it is ignored.

        Args:
            environ: An environment like ``os.environ``.

        Raises:
            ConfigurationError: A variable is not a URL, or its scheme is not http or https.
        """
        is_cgi = "REQUEST_METHOD" in environ and "http_proxy" not in environ
        exempt = _pick(environ, "no_proxy").split(",")
        return cls(
            None if is_cgi else _read(environ, "http_proxy"),
            _read(environ, "https_proxy"),
            tuple(NoProxyEntry.parse(entry) for entry in exempt if entry.strip()),
        )

    def find(self, scheme: str, host: str, port: int | None = None) -> str | None:
        """Find the proxy for a URL. Pure.

        Args:
            scheme: The scheme of the URL, "http" or "https".
            host: A name, or an address with or without brackets.
            port: None for the default port of the scheme.

        Returns:
            The URL of the proxy; None to connect directly, as to this host itself unless
            `loopback` is set.
        """
        proxy = self.http if scheme == "http" else self.https if scheme == "https" else None
        if proxy is None:
            return None
        host = host.strip("[]").partition("%")[0].rstrip(".").lower()
        address = _parse_address(host)
        port = port or _PORTS[scheme]
        if _is_loopback(host, address) and not self.loopback:
            return None
        return None if any(e.covers(host, address, port) for e in self.exempt) else proxy


def check_proxy(url: str, where: str) -> str:
    """Check that a URL is that of an HTTP proxy.

    Args:
        url: The URL, with a scheme.
        where: The setting, for messages. They hide the URL, because it may hold a password.

    Returns:
        The same URL.

    Raises:
        ConfigurationError: The URL is not that of an HTTP proxy.
    """
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        parts, usable = None, False
    # Not within the handler: its exception may quote a password in the place of the port.
    if parts is not None and parts.scheme not in _SCHEMES:
        message = f"{where}: the scheme of a proxy must be http or https"
        raise ConfigurationError(message)
    if not usable or any(character <= " " for character in url):
        message = f"{where}: this is not the URL of a proxy; write http://host:port"
        raise ConfigurationError(message)
    return url


def _read(environ: Mapping[str, str], name: str) -> str | None:
    text = _pick(environ, name)
    if not text:
        return None
    return check_proxy(text if "://" in text else f"http://{text}", name.upper())


def _pick(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, environ.get(name.upper(), "")).strip()


def _is_loopback(host: str, address: _Address | None) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address is not None:
        return address.is_loopback
    return host == _LOCAL or host.endswith(f".{_LOCAL}")


def _parse_address(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _parse_network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
