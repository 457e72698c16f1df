"""Asking for tokens, and reading them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from asupplemented.errors import MalformedResponseError
from asupplemented.transports.registry.addresses import Origin, parse_origin
from asupplemented.transports.registry.tokens import (
    TokenQuery,
    TokenServerPolicy,
    parse_scope,
    parse_token,
    pull_scope,
)

NOW = 1_514_800_802.0
"""2018-01-01T10:00:02Z."""
DAY = 24 * 60 * 60.0
HOME = Origin("https", "registry.example.com", 443)


def life(**fields: Any) -> float:
    body = json.dumps({"token": "t", **fields}).encode()
    return parse_token(body, now=NOW, longest=DAY, place="x").life


def text(body: bytes) -> str:
    return parse_token(body, now=NOW, longest=DAY, place="x").text


def at(stamp: float) -> str:
    return datetime.fromtimestamp(stamp, UTC).isoformat()


def query(realm: str, *scopes: str, service: str = "") -> TokenQuery:
    return TokenQuery(URL(realm, encoded=True), service, scopes)


@pytest.mark.parametrize(
    ("asked", "account", "expected"),
    [
        (query("https://a/token"), None, "https://a/token"),
        (
            query("https://a/token", "repository:a/b:pull", service="registry.a"),
            "bob",
            "https://a/token?account=bob&service=registry.a&scope=repository:a/b:pull",
        ),
        (
            query("https://a/token?x=%41&y", "a:b:c", "d:e:f"),
            None,
            "https://a/token?x=%41&y&scope=a:b:c&scope=d:e:f",
        ),
        (
            query("https://a", service="a b&c=d#é"),
            "",
            "https://a/?service=a%20b%26c%3Dd%23%C3%A9",
        ),
        (query("https://[::1]:5000/t"), "a/b@c", "https://[::1]:5000/t?account=a/b%40c"),
    ],
)
def test_TOK01_url(asked: TokenQuery, account: str | None, expected: str) -> None:
    assert str(asked.url(account)) == expected


def test_TOK02_scope() -> None:
    assert pull_scope("library/busybox") == "repository:library/busybox:pull"


def test_TOK03_form() -> None:
    asked = query("https://a/token", "a:b:c", "d:e:f", service="s")
    assert asked.form("identity") == {
        "grant_type": "refresh_token",
        "refresh_token": "identity",
        "client_id": "asupplemented",
        "scope": "a:b:c d:e:f",
        "service": "s",
    }
    assert "service" not in query("https://a/token").form("identity")


def test_TOK04_the_vector() -> None:
    assert NOW + life(issued_at="2018-01-01T10:00:02Z", expires_in=1) == 1_514_800_862


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 60),
        ({"expires_in": 300}, 300),
        ({"expires_in": 59}, 60),
        ({"expires_in": 0}, 60),
        ({"expires_in": -5}, 60),
        ({"expires_in": 90.5}, 90.5),
        ({"expires_in": 10**300}, DAY),
        ({"expires_in": 1e300}, DAY),
        ({"expires_in": "300"}, 60),
        ({"expires_in": True}, 60),
        ({"expires_in": None}, 60),
        ({"expires_in": [300]}, 60),
        ({"expires_in": 300, "issued_at": at(NOW - 100)}, 200),
        ({"expires_in": 300, "issued_at": "2018-01-01T09:58:22.123456789Z"}, 200.123456),
        ({"expires_in": 300, "issued_at": "2018-01-01T11:58:22+02:00"}, 200),
        ({"expires_in": 300, "issued_at": at(NOW + 100)}, 300),
        ({"expires_in": 60, "issued_at": at(NOW - 60)}, 60),
        ({"expires_in": 60, "issued_at": at(NOW - 299)}, 60),
        ({"expires_in": 900, "issued_at": at(NOW - 301)}, 900),
        ({"expires_in": 900, "issued_at": at(NOW + 301)}, 900),
        ({"expires_in": 300, "issued_at": "0001-01-01T00:00:00Z"}, 300),
        ({"expires_in": 300, "issued_at": "1970-01-01T00:00:00Z"}, 300),
        ({"expires_in": 300, "issued_at": "2099-01-01T00:00:00Z"}, 300),
        ({"expires_in": 300, "issued_at": "9999-12-31T23:59:59-23:59"}, 300),
        ({"expires_in": 300, "issued_at": "yesterday"}, 300),
        ({"expires_in": 300, "issued_at": 12345}, 300),
        ({"expires_in": 300, "issued_at": "1" * 100_000}, 300),
        ({"expires_in": 10 * DAY}, DAY),
    ],
)
def test_TOK04_life(fields: dict[str, Any], expected: float) -> None:
    assert life(**fields) == pytest.approx(expected, abs=1e-3)


@given(
    st.none() | st.integers() | st.floats() | st.text(max_size=5),
    st.none() | st.datetimes().map(datetime.isoformat) | st.text(max_size=30),
)
def test_TOK04_a_life_is_never_negative_nor_longer_than_the_longest(
    expires_in: object, issued_at: str | None
) -> None:
    try:
        seconds = life(expires_in=expires_in, issued_at=issued_at)
    except MalformedResponseError:
        return  # NaN and infinity are not JSON, and some integers are too long
    assert 0 < seconds <= DAY


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"token": "a"}', "a"),
        (b'{"access_token": "b"}', "b"),
        (b'{"token": "a", "access_token": "b"}', "a"),
        (b'{"token": "", "access_token": "b"}', "b"),
        (b'{"token": null, "access_token": "b"}', "b"),
    ],
)
def test_TOK04_token_before_access_token(body: bytes, expected: str) -> None:
    assert text(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"token": ""}',
        b'{"token": 5}',
        b'{"token": ["x"]}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": "a b"}',
        b'{"token": "\\u00e9"}',
        b'{"token": "a\\u0000"}',
        b'{"token": "' + b"a" * 65537 + b'"}',
        b"[]",
        b'"token"',
        b"",
        b"<html>",
        b"[" * 100_000,
        '{"token": "a"}'.encode("utf-16"),
        b'{"token": "\xff"}',
    ],
)
def test_TOK05_SEC10_no_token(body: bytes) -> None:
    with pytest.raises(MalformedResponseError):
        text(body)


def test_CRED07_a_token_does_not_show() -> None:
    token = parse_token(b'{"token": "sentinel"}', now=NOW, longest=DAY, place="x")
    assert "sentinel" not in repr(token)


@pytest.mark.parametrize(
    ("scope", "good"),
    [
        ("repository:a/b:pull", True),
        ("repository:registry:5000/a:pull,push", True),
        ("registry:catalog:*", True),
        ("aws", False),
        ("a:b", False),
        (":a:b", False),
        ("a::b", False),
        ("a:b:", False),
        ("", False),
    ],
)
def test_TOK08_scopes_split_at_the_first_and_last_colon(scope: str, good: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert parse_scope(scope) == (scope if good else None)


def policy(home: Origin = HOME, *named: str, insecure: bool = False) -> TokenServerPolicy:
    origins = frozenset(map(parse_origin, named))
    return TokenServerPolicy("registry.example.com", home, insecure, origins)


@pytest.mark.parametrize(
    "realm",
    [
        "https://auth.elsewhere.net/token",
        "https://93.184.216.34/token",
        "https://registry.example.com/token",
        "https://auth.example.com/token?x=y",
    ],
)
def test_CRED02_anonymous_goes_to_any_public_https(realm: str) -> None:
    assert str(policy().check(realm, credentialed=False)) == realm


@pytest.mark.parametrize(
    ("realm", "why"),
    [
        (None, "no realm"),
        ("", "no http or https"),
        ("/token", "no http or https"),
        ("auth.example.com/token", "no http or https"),
        ("ftp://auth.example.com/", "no http or https"),
        ("https://user:sentinel@auth.example.com/", "user or password"),
        ("http://registry.example.com/token", "plain http"),
        ("https://10.0.0.1/token", "not public"),
        ("https://127.0.0.1/token", "not public"),
        ("https://[::ffff:127.0.0.1]/token", "not public"),
        ("https://169.254.169.254/token", "not public"),
        ("https://0.0.0.0/token", "not public"),
        ("https://[fd00:ec2::254]/token", "not public"),
    ],
)
def test_CRED02_TOK11_realms_that_nobody_may_be_sent_to(realm: str | None, why: str) -> None:
    for credentialed in (False, True):
        with pytest.raises(MalformedResponseError, match=why) as caught:
            policy().check(realm, credentialed=credentialed)
        assert "sentinel" not in str(caught.value)
        assert "registry.example.com" in str(caught.value)


@pytest.mark.parametrize(
    "realm", ["https://registry.example.com/t", "https://auth.example.com/t", "https://example.com"]
)
def test_CRED02_credentials_go_to_the_registry_and_its_site(realm: str) -> None:
    policy().check(realm, credentialed=True)


@pytest.mark.parametrize(
    "realm",
    [
        "https://evil.com/token",
        "https://registry.example.com.evil.com/token",
        "https://evil-example.com/token",
        "https://93.184.216.34/token",
    ],
)
def test_CRED02_SEC02_credentials_go_nowhere_else(realm: str) -> None:
    with pytest.raises(MalformedResponseError, match=r"RegistryOptions\(token_servers=") as caught:
        policy().check(realm, credentialed=True)
    assert realm in str(caught.value)
    policy().check(realm, credentialed=False)


def test_CRED02_credentials_go_where_the_caller_says() -> None:
    named = policy(HOME, "https://evil.com", "http://10.0.0.1:8000")
    named.check("https://evil.com/token", credentialed=True)
    named.check("http://10.0.0.1:8000/token", credentialed=True)
    for near in ("https://evil.com:8443/", "http://evil.com/", "http://10.0.0.1:8001/"):
        with pytest.raises(MalformedResponseError):
            named.check(near, credentialed=True)


def test_CRED02_an_insecure_registry_may_have_a_plain_realm() -> None:
    home = Origin("http", "10.0.0.5", 5000)
    insecure = policy(home, insecure=True)
    insecure.check("http://10.0.0.5:5000/token", credentialed=True)
    insecure.check("http://auth.example.net/token", credentialed=False)
    for realm in ("http://10.0.0.6:5000/token", "http://10.0.0.50:5000/token"):
        with pytest.raises(MalformedResponseError):
            insecure.check(realm, credentialed=False)
    with pytest.raises(MalformedResponseError):
        insecure.check("http://auth.example.net/token", credentialed=True)


OWN_HOST = [
    ("https://10.0.0.5:5000", "https://10.0.0.5:5000", True),
    ("https://10.0.0.5:5000", "https://10.0.0.5:5001", True),
    ("https://10.0.0.5:5000", "https://10.0.0.5", True),
    ("https://10.0.0.5:5000", "http://10.0.0.5:5000", False),
    ("https://10.0.0.5:5000", "http://10.0.0.5:5001", False),
    ("http://10.0.0.5:5000", "http://10.0.0.5:5001", True),
    ("http://10.0.0.5:5000", "https://10.0.0.5:5001", True),
    ("http://10.0.0.5:5000", "http://10.0.0.6:5000", False),
    ("https://gitlab.internal:5050", "https://gitlab.internal", True),
    ("https://gitlab.internal:5050", "https://GITLAB.internal:8443", True),
    ("https://gitlab.internal:5050", "https://gitlab.internal.evil.com", False),
    ("https://gitlab.internal:5050", "https://evil-gitlab.internal", False),
    ("https://localhost:5000", "https://127.0.0.1:5001", False),
    ("https://[::1]:5000", "https://[::1]:5001", True),
    ("https://[::1]:5000", "https://[::2]:5001", False),
]


@pytest.mark.parametrize(("home", "realm", "allowed"), OWN_HOST)
@pytest.mark.parametrize("insecure", [False, True])
def test_CRED02_the_own_host_counts_on_every_port_with_a_scheme_no_weaker(
    home: str, realm: str, *, allowed: bool, insecure: bool
) -> None:
    own = policy(parse_origin(home), insecure=insecure)
    if allowed:
        own.check(f"{realm}/token", credentialed=True)
        return
    with pytest.raises(MalformedResponseError):
        own.check(f"{realm}/token", credentialed=True)
    named = policy(parse_origin(home), realm, insecure=insecure)
    named.check(f"{realm}/token", credentialed=True)
