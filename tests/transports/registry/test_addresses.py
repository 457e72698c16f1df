"""Origins, sites, and how private an address is."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from asupplemented.transports.registry.addresses import (
    AddressScope,
    Origin,
    classify_address,
    classify_host,
    classify_target,
    is_same_site,
    origin_of,
    redact,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def url(text: str) -> URL:
    return URL(text, encoded=True)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://Quay.IO/v2/", Origin("https", "quay.io", 443)),
        ("http://quay.io", Origin("http", "quay.io", 80)),
        ("http://quay.io:443/", Origin("http", "quay.io", 443)),
        ("https://[::1]:5000/v2/", Origin("https", "::1", 5000)),
    ],
)
def test_origin(text: str, origin: Origin) -> None:
    assert origin_of(url(text)) == origin


@pytest.mark.parametrize("text", ["/v2/", "https:///v2/"])
def test_no_origin(text: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        origin_of(url(text))


def test_an_origin_writes_itself_without_the_usual_port() -> None:
    assert str(Origin("https", "a.b", 443)) == "https://a.b"
    assert str(Origin("https", "a.b", 80)) == "https://a.b:80"
    assert str(Origin("http", "::1", 5000)) == "http://[::1]:5000"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://cdn.example/a/b%2Fc?sig=secret#x", "https://cdn.example/a/b%2Fc"),
        ("https://user:secret@cdn.example:8443/", "https://cdn.example:8443/"),
        ("http://[::1]:5000/v2/", "http://[::1]:5000/v2/"),
    ],
)
def test_REDIR05_redacted(text: str, shown: str) -> None:
    assert redact(url(text)) == shown


@pytest.mark.parametrize(
    ("address", "scope"),
    [
        ("93.184.216.34", AddressScope.PUBLIC),
        ("2606:2800:220:1:248:1893:25c8:1946", AddressScope.PUBLIC),
        ("10.1.2.3", AddressScope.PRIVATE),
        ("172.16.0.1", AddressScope.PRIVATE),
        ("192.168.1.1", AddressScope.PRIVATE),
        ("100.64.0.1", AddressScope.PRIVATE),
        ("fd12:3456::1", AddressScope.PRIVATE),
        ("240.0.0.1", AddressScope.PRIVATE),
        ("127.0.0.1", AddressScope.LOOPBACK),
        ("127.9.9.9", AddressScope.LOOPBACK),
        ("::1", AddressScope.LOOPBACK),
        ("169.254.169.254", AddressScope.NEVER),
        ("fe80::1", AddressScope.NEVER),
        ("fd00:ec2::254", AddressScope.NEVER),
        ("0.0.0.0", AddressScope.NEVER),  # noqa: S104 - nothing is bound
        ("0.1.2.3", AddressScope.NEVER),
        ("::", AddressScope.NEVER),
        ("224.0.0.1", AddressScope.NEVER),
        ("ff02::1", AddressScope.NEVER),
        ("::ffff:127.0.0.1", AddressScope.LOOPBACK),
        ("::ffff:169.254.169.254", AddressScope.NEVER),
        ("64:ff9b::7f00:1", AddressScope.LOOPBACK),
        ("64:ff9b::a00:1", AddressScope.PRIVATE),
        ("2002:7f00:1::", AddressScope.LOOPBACK),
    ],
)
def test_SEC01_scope(address: str, scope: AddressScope) -> None:
    assert classify_address(ipaddress.ip_address(address)) is scope
    assert classify_host(address) is scope


def test_SEC01_a_scope_does_not_hide_an_address() -> None:
    assert classify_host("fe80::1%eth0") is AddressScope.NEVER


@pytest.mark.parametrize("host", ["localhost", "quay.io", "", "0x7f.example", "1.2.3.4.example"])
def test_SEC01_a_name_has_no_scope_before_it_is_resolved(host: str) -> None:
    assert classify_host(host) is None


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost"])
def test_SEC01_names_of_the_local_host_are_known(host: str) -> None:
    assert classify_target(host) is AddressScope.LOOPBACK
    assert classify_target(f"{host}.example") is None


def spellings(address: ipaddress.IPv4Address) -> list[str]:
    """The ways in which C libraries read an address."""
    number, parts = int(address), list(address.packed)
    ways: list[Callable[[int], str]] = [str, hex, lambda n: f"0{n:o}", lambda n: f"0X{n:08X}"]
    spelled = [".".join(map(way, parts)) for way in ways]
    for way in ways:
        spelled.append(way(number))
        spelled.append(f"{way(parts[0])}.{way(number & 0xFFFFFF)}")
        spelled.append(f"{way(parts[0])}.{way(parts[1])}.{way(number & 0xFFFF)}")
    v6 = [f"{prefix}{address}" for prefix in ("::", "::ffff:", "64:ff9b::")]
    v6.append(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::")
    return [*spelled, *(f"{each}." for each in spelled), *v6]


@given(st.ip_addresses(v=4) | st.sampled_from(["127.0.0.1", "10.0.0.1", "169.254.169.254"]))
def test_SEC01_numbers_are_addresses_however_they_are_written(address: object) -> None:
    """No spelling is less private than the address that the C library makes of it."""
    plain = ipaddress.IPv4Address(str(address))
    for text in spellings(plain):
        found = classify_host(text)
        assert found is not None
        assert found >= classify_address(plain) or int(plain) <= 1, text


@given(st.lists(st.from_regex(r"\A(0x[0-9a-f]{0,9}|0?[0-9]{1,11})\Z"), min_size=1, max_size=5))
def test_SEC01_what_the_c_library_reads_is_read_alike(parts: list[str]) -> None:
    text = ".".join(parts)
    try:
        expected = ipaddress.ip_address(socket.inet_aton(text))
    except OSError:
        assert classify_host(text) is not None
    else:
        assert classify_host(text) >= classify_address(expected)  # type: ignore[operator]


@pytest.mark.parametrize(
    "host",
    [
        "2852039166",
        "169.254.43518",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "[::ffff:a9fe:a9fe]",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd20:ce::254",
        "999.1.1.1",
        "1.2.3.4.5",
        "08.8.8.8.8",
    ],
)
def test_SEC01_metadata_services_and_nonsense_are_never_asked(host: str) -> None:
    assert classify_host(host.strip("[]")) is AddressScope.NEVER


@pytest.mark.parametrize("host", ["fec0::1", "64:ff9b:1::1", "2001::1", "400::1", "::2:0"])
def test_SEC01_reserved_networks_are_not_public(host: str) -> None:
    assert classify_host(host) is not AddressScope.PUBLIC


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("registry.example.com", "auth.example.com"),
        ("example.com", "auth.example.com"),
        ("a.b.c.example.com", "example.com"),
        ("registry-1.docker.io", "auth.docker.io"),
        ("registry.gitlab.com", "gitlab.com"),
        ("registry.example.co.uk", "auth.example.co.uk"),
        ("registry.firma.de", "gitlab.firma.de"),
        ("localhost", "localhost"),
        ("10.0.0.1", "10.0.0.1"),
        ("acme.jfrog.io", "acme.jfrog.io"),
    ],
)
def test_CRED02_same_site(one: str, other: str) -> None:
    assert is_same_site(one, other)
    assert is_same_site(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("registry.example.com", "evil.com"),
        ("registry.com", "registry.com.evil.com"),
        ("registry.com", "evil-registry.com"),
        ("registry.co.uk", "evil.co.uk"),
        ("registry.com.br", "evil.com.br"),
        ("registry.gouv.fr", "evil.gouv.fr"),
        ("acme.jfrog.io", "evil.jfrog.io"),
        ("acme.azurecr.io", "evil.azurecr.io"),
        ("1.dkr.ecr.eu-west-1.amazonaws.com", "evil.s3.eu-west-1.amazonaws.com"),
        ("10.0.0.1", "10.0.0.2"),
        ("1.2.3.4", "9.9.3.4"),
        ("::1", "::2"),
        ("a", "b"),
        ("com", "a.com"),
        ("co.uk", "a.co.uk"),
        ("a..com", "b..com"),
        ("a.example.com.", "b.example.com."),
        ("0x7f.1", "0x7e.1"),
    ],
)
def test_CRED02_not_the_same_site(one: str, other: str) -> None:
    assert not is_same_site(one, other)
    assert not is_same_site(other, one)
