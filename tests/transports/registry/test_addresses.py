"""Origins, sites, and how private an address is."""

from __future__ import annotations

import ipaddress

import pytest
from yarl import URL

from asupplemented.transports.registry.addresses import (
    AddressScope,
    Origin,
    classify_address,
    classify_host,
    is_same_site,
    origin_of,
    redact,
)


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


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f000001", "2130706433", "quay.io", ""])
def test_SEC01_a_name_has_no_scope_before_it_is_resolved(host: str) -> None:
    assert classify_host(host) is None


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
