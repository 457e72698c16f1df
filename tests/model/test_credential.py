"""Credentials take what users write, and never show it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.errors import ConfigurationError
from asupplemented.model.credential import Credential, check_lookup, lookup_order


def test_the_three_ways_to_write_a_credential() -> None:
    assert Credential.of(("user", "word")) == Credential("user", "word")
    assert Credential.of("token") == Credential(None, None, "token")
    known = Credential(None, None, None, "refresh")
    assert Credential.of(known) is known
    assert Credential.of(None) is None


@pytest.mark.parametrize("value", [("user",), ("a", "b", "c"), 5, ("user", None), b"token"])
def test_anything_else_is_refused_without_showing_it(value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Credential.of(value)  # type: ignore[arg-type]  # what a user without a type checker does
    assert "user" not in str(caught.value).replace("username", "")


@pytest.mark.parametrize(
    ("field", "character"),
    [
        *itertools.product(["username", "registry_token", "identity_token"], "\r\n\0"),
        ("password", "\0"),
    ],
)
def test_what_would_end_a_header_is_refused(field: str, character: str) -> None:
    values = {"username": "user", field: f"secret{character}X"}
    with pytest.raises(ConfigurationError, match=field) as caught:
        Credential(**values)
    assert "secret" not in str(caught.value)


def test_a_password_may_be_a_file_of_several_lines() -> None:
    key = '{\n  "type": "service_account"\r\n}\n'
    assert Credential("_json_key", key).password == key


def test_a_password_needs_a_user_and_a_user_has_no_colon() -> None:
    with pytest.raises(ConfigurationError, match="no username"):
        Credential(None, "word")
    with pytest.raises(ConfigurationError, match="colon"):
        Credential("a:b", "word")
    assert Credential("user", "with:colon") != Credential("user", "without")


def test_nothing_secret_is_shown() -> None:
    credential = Credential("alice", "p4ss", "t0ken", "r3fresh")
    for text in (repr(credential), str(credential), f"{credential}"):
        assert not any(secret in text for secret in ("alice", "p4ss", "t0ken", "r3fresh"))
    assert "password" in repr(credential)
    assert repr(Credential()) == "<Credential with nothing>"


def test_credentials_are_values() -> None:
    assert hash(Credential("a", "b")) == hash(Credential("a", "b"))
    assert Credential("a", "b") != Credential("a", "c")
    with pytest.raises(AttributeError):
        Credential("a").username = "b"  # type: ignore[misc]  # it is frozen


@pytest.mark.parametrize(
    "name",
    [
        "quay.io",
        "Quay.io/a",
        "localhost:5000",
        "localhost:5000/a/b",
        "[::1]:5000/a",
        "a" * 255,
    ],
)
def test_FILE10_names_that_have_a_credential(name: str) -> None:
    assert check_lookup(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "https://quay.io",
        "http://quay.io/a",
        "quay.io/a@sha256:00",
        "user@quay.io",
        "quay.io/a:latest",
        "localhost:5000/a:latest",
        "-quay.io",
        "quay.io\n",
        "quay.io /a",
        "quay.io/a\0",
        "quäy.io",
        "a" * 256,
        "/" * 100_000,
        "a/" * 100_000,
    ],
)
def test_FILE10_SEC12_names_that_have_none(name: str) -> None:
    with pytest.raises(ConfigurationError, match="'host:5000'") as caught:
        check_lookup(name)
    assert len(str(caught.value)) < 300


def test_CRED07_a_password_in_a_name_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_lookup("https://user:sentinel@quay.io")
    assert "sentinel" not in str(caught.value)


def test_FILE08_from_the_repository_to_the_registry() -> None:
    assert lookup_order("quay.io/a/b/c") == ("quay.io/a/b/c", "quay.io/a/b", "quay.io/a", "quay.io")
    assert lookup_order("localhost:5000") == ("localhost:5000",)


@given(st.lists(st.text("ab.-:", min_size=1, max_size=3), min_size=1, max_size=5))
def test_FILE08_each_name_is_the_parent_of_the_one_before(parts: list[str]) -> None:
    order = lookup_order("/".join(parts))
    assert order[0] == "/".join(parts)
    assert order[-1] == parts[0]
    for longer, shorter in itertools.pairwise(order):
        assert longer.rpartition("/")[0] == shorter
