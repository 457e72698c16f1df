"""Credentials take what users write, and never show it."""

from __future__ import annotations

import pytest

from asupplemented.errors import ConfigurationError
from asupplemented.model.credential import Credential


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


@pytest.mark.parametrize("field", ["username", "password", "registry_token", "identity_token"])
@pytest.mark.parametrize("character", ["\r", "\n", "\0"], ids=["CR", "LF", "NUL"])
def test_what_would_end_a_header_is_refused(field: str, character: str) -> None:
    values = {"username": "user", field: f"secret{character}X"}
    with pytest.raises(ConfigurationError, match=field) as caught:
        Credential(**values)
    assert "secret" not in str(caught.value)


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
