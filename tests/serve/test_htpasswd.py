"""Users and passwords in a file."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import bcrypt
import pytest

from asupplemented import web
from asupplemented.errors import ConfigurationError
from asupplemented.serve import htpasswd
from asupplemented.serve.htpasswd import read_htpasswd
from asupplemented.web.request import Request

if TYPE_CHECKING:
    from pathlib import Path


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode()


def access(user: str, password: str) -> web.AccessRequest:
    value = "Basic " + b64encode(f"{user}:{password}".encode()).decode()
    return web.AccessRequest(None, None, Request("GET", "", headers=(("authorization", value),)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    lines = (
        "# users",
        f"ann:{hashed('right')}",
        "",
        f"bo:{hashed('ä' * 50).replace('2b', '2y', 1)}",
    )
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("user", "password", "known"),
    [
        ("ann", "right", True),
        ("ann", "wrong", False),
        ("ann", "", False),
        ("eve", "right", False),
        ("", "right", False),
        ("bo", "ä" * 36, True),
        ("bo", "ä" * 50, False),
        ("ann", "right\0", False),
    ],
)
async def test_only_the_right_password_is_let_in(
    file: Path, user: str, password: str, *, known: bool
) -> None:
    authenticate = read_htpasswd(file)
    for _ in range(2):
        decision = await authenticate(access(user, password))
        if known:
            assert decision == web.Identity(user, shared=True)
        else:
            assert isinstance(decision, web.Challenge)


async def test_a_password_is_hashed_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []
    check = bcrypt.checkpw

    def count(password: bytes, stored: bytes) -> bool:
        checked.append(password)
        return check(password, stored)

    monkeypatch.setattr(bcrypt, "checkpw", count)
    authenticate = read_htpasswd(file)
    for password in ("right", "wrong", "right", "wrong"):
        await authenticate(access("ann", password))
    # The time that a wrong name takes tells nothing, either.
    await authenticate(access("eve", "any"))
    assert checked == [b"right", b"wrong", b"wrong", b"any"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ann:$apr1$x$y\n", ":1: the password of 'ann' is not hashed by bcrypt; set it with htpa"),
        ("\nann:secret\n", ":2: the password of 'ann'"),
        ("ann\n", ":1: "),
        ("::", ":1: the password of ''"),
        ("# nothing\n", " has no user; add one with htpasswd -B"),
        ("x" * htpasswd.MAX_FILE + "y", "exceeded maximum allowed size"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_htpasswd(path)
    assert told in caught.value.message
    assert "secret" not in caught.value.message
    path.unlink()
    with pytest.raises(ConfigurationError, match="there is no file"):
        read_htpasswd(path)
