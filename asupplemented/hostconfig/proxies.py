"""Proxies: which one leads to a host, by an environment that is given (rule TLS-07).

The rules are those of ``urllib.request``, for any environment and not only that of the
process, and for networks in ``NO_PROXY`` besides. ``.netrc`` is not read.
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

__all__ = ("Exemption", "Proxies", "check_proxy")

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_SCHEMES: Final = ("http", "https")
_PORTS: Final = {"http": 80, "https": 443}
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_LOCAL: Final = "localhost"


@dataclass(frozen=True, slots=True)
class Exemption:
    """One entry of ``NO_PROXY``.

    Attributes:
        name: A domain, with all below it; None stands for every host.
        network: Addresses, in place of a name; None for none.
        port: Only this port; None is any.
    """

    name: str | None
    network: _Network | None = None
    port: int | None = None

    @classmethod
    def parse(cls, entry: str) -> Exemption:
        """Read a domain, an address, a network, or ``*``; the first two may have a port."""
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
        """Whether it is about a host: its name, its address if that is one, and its port."""
        if self.port not in {None, port}:
            return False
        if self.network is not None:
            return address is not None and address in self.network
        return self.name is None or host == self.name or host.endswith(f".{self.name}")


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of an environment. A value; `repr` shows no URL, for they may hold passwords.

    Attributes:
        http: The URL of the proxy for plain http; None for none.
        https: The same for https. Its own scheme says how we speak to the proxy itself.
        exempt: Hosts that are reached directly.
        loopback: Whether this machine itself is reached through them, too.
    """

    http: str | None = field(default=None, repr=False)
    https: str | None = field(default=None, repr=False)
    exempt: tuple[Exemption, ...] = ()
    loopback: bool = False

    @classmethod
    def only(cls, url: str) -> Proxies:
        """The one proxy that leads to every host, as the ``proxy`` of a table does."""
        return cls(url, url, loopback=True)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Proxies:
        """Read ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``.

        Each in lowercase counts before the same in uppercase, even if it is empty. Where a web
        server runs us as a program, ``HTTP_PROXY`` is a header of a stranger, and ignored.

        Args:
            environ: Such as ``os.environ``.

        Raises:
            ConfigurationError: A proxy is no URL, or speaks another protocol than HTTP.
        """
        foreign = "REQUEST_METHOD" in environ and "http_proxy" not in environ
        exempt = _pick(environ, "no_proxy").split(",")
        return cls(
            None if foreign else _read(environ, "http_proxy"),
            _read(environ, "https_proxy"),
            tuple(Exemption.parse(entry) for entry in exempt if entry.strip()),
        )

    def find(self, scheme: str, host: str, port: int | None = None) -> str | None:
        """The proxy for a URL. Pure.

        Args:
            scheme: Of the URL, "http" or "https".
            host: A name, or an address with brackets or without.
            port: None is that of the scheme.

        Returns:
            The proxy's URL, None to connect directly, as to this machine itself unless
            `loopback` says otherwise.
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
    """See that a URL is one of a proxy that can be used.

    Args:
        url: With a scheme.
        where: What says so, for messages. The URL is not shown, it may hold a password.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        parts, usable = None, False
    # Not within the handler: its exception may quote a password that stands where a port should.
    if parts is not None and parts.scheme not in _SCHEMES:
        message = f"{where}: a proxy is spoken to in http or https, and in no other protocol"
        raise ConfigurationError(message)
    if not usable or any(character <= " " for character in url):
        message = f"{where}: this is no URL of a proxy; write http://host:port"
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
