"""Origins, sites, and the scopes of addresses: where requests may go. No I/O.

`is_same_site` says whether a *credential* for one host may go to another (rule CRED-02).
`classify_address` says how private an *address* is, so that a server cannot send us to an address
that only we can reach (rule SEC-01).
"""

from __future__ import annotations

import enum
import ipaddress
import re
from contextlib import suppress
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import unquote

from yarl import URL

__all__ = (
    "AddressScope",
    "Origin",
    "classify_address",
    "classify_host",
    "classify_target",
    "is_same_site",
    "origin_of",
    "parse_origin",
    "redact",
)

_IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_SPECIAL: Final = (
    ipaddress.IPv6Network("64:ff9b:1::/48"),
    ipaddress.IPv6Network("2001::/23"),
    ipaddress.IPv6Network("fec0::/10"),
)
"""Networks that are not public, and that some versions of Python take for such."""
_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    )
)
"""Metadata services of clouds that are not at link-local addresses."""
_NUMBER: Final = re.compile(r"[0-9]{1,64}|0x[0-9a-f]{0,64}")

_LONGEST_SHARED_LABEL: Final = 3
_SHARED_LABELS: Final = frozenset(("gouv", "gove", "info", "name", "asso", "nom", "firm"))
_SHARED_DOMAINS: Final = frozenset(
    (
        "aliyuncs.com",
        "amazonaws.com",
        "appspot.com",
        "azure.com",
        "azurecr.io",
        "azurewebsites.net",
        "backblazeb2.com",
        "cloudfront.net",
        "cloudsmith.io",
        "ddns.net",
        "digitaloceanspaces.com",
        "duckdns.org",
        "dyndns.org",
        "firebaseapp.com",
        "fly.dev",
        "github.io",
        "gitlab.io",
        "googleapis.com",
        "herokuapp.com",
        "hf.space",
        "jfrog.io",
        "linodeobjects.com",
        "myqcloud.com",
        "netlify.app",
        "ngrok.app",
        "ngrok.io",
        "nip.io",
        "onrender.com",
        "oraclecloud.com",
        "pages.dev",
        "pkg.dev",
        "r2.dev",
        "run.app",
        "scw.cloud",
        "sslip.io",
        "synology.me",
        "tencentcloudcr.com",
        "trycloudflare.com",
        "ts.net",
        "vercel.app",
        "web.app",
        "windows.net",
        "workers.dev",
    )
)


class Origin(NamedTuple):
    """Scheme, host and port, normalized for comparing."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = DEFAULT_PORTS.get(self.scheme) == self.port
        return f"{self.scheme}://{host}" if usual else f"{self.scheme}://{host}:{self.port}"


class AddressScope(enum.IntEnum):
    """How private an address is; a greater value is more private."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    NEVER = 3
    """Link-local (metadata services of clouds), multicast, and invalid addresses."""


def parse_origin(text: str) -> Origin:
    """Parse an origin as people write it: ``https://host[:port]``, or ``host[:port]`` for https.

    Raises:
        ValueError: It is no origin; the message completes "a text that ...", and quotes nothing.
    """
    with suppress(ValueError):
        url = URL(text if "://" in text else f"https://{text}")
        bare = url.raw_path in {"", "/"} and not re.search(r"[@\s]", text)
        if url.scheme in DEFAULT_PORTS and bare and not url.raw_query_string:
            return origin_of(url)
    message = "is not host[:port], http://host[:port] or https://host[:port]"
    raise ValueError(message)


def origin_of(url: URL) -> Origin:
    """The origin of an absolute ``http`` or ``https`` URL.

    Raises:
        ValueError: The URL has no host, or no valid port.
    """
    host, port = url.raw_host, url.port
    if not host or not port:
        message = "a URL without host or port has no origin"
        raise ValueError(message)
    return Origin(url.scheme, host.lower(), port)


def redact(url: URL) -> str:
    """A URL for messages, without user, password, query and fragment (rule REDIR-05)."""
    host = url.raw_host or ""
    place = f"[{host}]" if ":" in host else host
    port = "" if url.explicit_port is None else f":{url.explicit_port}"
    return f"{url.scheme}://{place}{port}{url.raw_path}"


@lru_cache(maxsize=1024)
def classify_host(host: str) -> AddressScope | None:
    """The scope of a host that is an address, None for a name.

    Numbers are addresses however they are written, as the C library reads them: ``127.1``,
    ``2130706433``, ``0x7f000001``, ``0177.0.0.1``, with a dot at the end. Programs differ on
    leading zeros, so the more private reading counts; what is made of numbers and is no address is
    invalid.
    """
    text = unquote(host).rstrip(".").lower()
    try:
        return classify_address(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        pass
    parts = text.split(".")
    if not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    read = (_read_numbers(parts, octal=True), _read_numbers(parts, octal=False))
    scopes = [AddressScope.NEVER if each is None else classify_address(each) for each in read]
    return max(scopes)


def classify_target(host: str) -> AddressScope | None:
    """The same, for a host that a proxy may look up: names for the local host are known as well."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return AddressScope.LOOPBACK
    return classify_host(host)


def _read_numbers(parts: list[str], *, octal: bool) -> ipaddress.IPv4Address | None:
    """An address of one to four numbers, of which the last one fills the rest."""
    try:
        numbers = [_read_number(part, octal=octal) for part in parts]
        *first, last = numbers
        if len(numbers) > 4 or any(each > 0xFF for each in first):  # noqa: PLR2004
            return None
        value = sum(each << (8 * (3 - place)) for place, each in enumerate(first))
        room = 1 << (8 * (4 - len(first)))
        return ipaddress.IPv4Address(value + last) if last < room else None
    except ValueError:
        return None


def _read_number(text: str, *, octal: bool) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if octal and text.startswith("0") else 10)


def classify_address(address: _IPAddress) -> AddressScope:
    """The scope of an address; of the embedded one for addresses like ``::ffff:127.0.0.1``."""
    address = _unwrap(address)
    if (
        address.is_unspecified
        or address.is_multicast
        or address.is_link_local
        or address in _METADATA
        or (address.version == 4 and address in _THIS_NETWORK)  # noqa: PLR2004
    ):
        return AddressScope.NEVER
    if address.is_loopback:
        return AddressScope.LOOPBACK
    special = address.is_reserved or any(address in network for network in _SPECIAL)
    return AddressScope.PUBLIC if address.is_global and not special else AddressScope.PRIVATE


def _unwrap(address: _IPAddress) -> _IPAddress:
    """The IPv4 address that an IPv6 address leads to, if there is one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_same_site(one: str, other: str) -> bool:
    """Whether two host names belong to one registrable domain; False in doubt (rule CRED-02).

    A strict answer needs no list of public suffixes. The site of a name is its last two labels,
    or its last three below the domain of a country with a short or well-known label before it
    (``co.uk``, ``com.br``). A name that is no longer than that has no site. Neither has an
    address, nor a name below a domain under which hosting companies give names to customers.
    A host without a site is the same site as itself only.

    Args:
        one: A host name in lowercase, without a port.
        other: Another one.
    """
    site = _site_of(one)
    return one == other or (site is not None and site == _site_of(other))


def _site_of(host: str) -> tuple[str, ...] | None:
    labels = host.split(".")
    if classify_host(host) is not None or "" in labels or labels[-1].isdigit():
        return None
    if ".".join(labels[-2:]) in _SHARED_DOMAINS:
        return None
    size = 3 if _is_country_suffix(labels[-2:]) else 2
    return tuple(labels[-size:]) if len(labels) >= size else None


def _is_country_suffix(suffix: list[str]) -> bool:
    *before, last = suffix
    if len(last) != 2 or not before:  # noqa: PLR2004 - a country's domain has two letters
        return False
    return len(before[0]) <= _LONGEST_SHARED_LABEL or before[0] in _SHARED_LABELS
