"""Users and passwords in a file that ``htpasswd -B`` writes: bcrypt, the one format of it.

A hash takes a tenth of a second to check, and clients send their password with every request. So a
password that was right is remembered, as a keyed hash; hashes are checked in a thread, a few at a
time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from asupplemented.aio.files import read_limited
from asupplemented.aio.lru import LRU
from asupplemented.errors import ConfigurationError, SupplementedError, excerpt
from asupplemented.limits import MIB
from asupplemented.web.access import Identity, basic

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented.web.access import AccessRequest, Authenticate

__all__ = ("read_htpasswd",)

MAX_FILE: Final = 1 * MIB
"""Bytes of a file: some 15,000 users."""

MAX_REMEMBERED: Final = 1024
"""Passwords that were right lately."""

MAX_PASSWORD: Final = 72
"""Bytes that bcrypt reads; a password that is longer is none."""

_CHECKS: Final = 2
"""Hashes that are checked at the same time, so that guessing leaves the processor to others."""

_BCRYPT: Final = re.compile(rb"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
_NO_USER: Final = b"$2b$10$" + b"." * 53
"""Takes as long to check as the hash of a user."""


def read_htpasswd(path: Path) -> Authenticate:
    """Authenticate by the users of a file, which is read now. Blocking.

    All users may read the same. Their requests share all that is fetched, and are sent upstream
    with the credentials of the session.

    Args:
        path: ``USER:HASH`` in each line; a line that begins with ``#`` is a comment.

    Raises:
        ConfigurationError: The file cannot be read, or a hash is of another kind. Or the extra
            ``serve`` is not installed.
    """
    try:
        import bcrypt
    except ModuleNotFoundError as error:
        message = "htpasswd needs bcrypt: pip install 'asupplemented[serve]'"
        raise ConfigurationError(message) from error
    users = _read_users(path)
    key = os.urandom(32)
    right = LRU[bytes, str](MAX_REMEMBERED)
    limiter: list[anyio.CapacityLimiter] = []  # made in the event loop that it belongs to

    async def check(user: str, password: str, _: AccessRequest) -> Identity | None:
        text = password.encode()
        if len(text) > MAX_PASSWORD or b"\0" in text:
            return None
        digest = hmac.digest(key, f"{user}:{password}".encode(), hashlib.sha256)
        if right.get(digest):
            return Identity(user, shared=True)
        if not limiter:
            limiter.append(anyio.CapacityLimiter(_CHECKS))
        found = users.get(user, _NO_USER)
        fits = await anyio.to_thread.run_sync(bcrypt.checkpw, text, found, limiter=limiter[0])
        if not fits or user not in users:
            return None
        right.put(digest, user)
        return Identity(user, shared=True)

    return basic(check)


def _read_users(path: Path) -> dict[str, bytes]:
    try:
        data = read_limited(path, MAX_FILE, missing=ConfigurationError)
    except ConfigurationError:
        raise
    except SupplementedError as error:
        raise ConfigurationError(error.message) from error
    users: dict[str, bytes] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        name, _, rest = line.strip().partition(b":")
        user = name.decode("utf-8", "replace")
        if not user or _BCRYPT.fullmatch(rest) is None:
            message = (
                f"{path}:{number}: the password of {excerpt(user)} is not hashed by bcrypt; "
                f"set it with htpasswd -B {path} USER"
            )
            raise ConfigurationError(message)
        users[user] = rest
    if not users:
        message = f"{path} has no user; add one with htpasswd -B {path} USER"
        raise ConfigurationError(message)
    return users
