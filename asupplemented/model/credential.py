"""Credentials: what a registry is told to let us in, and under which names they are found.

They never show what they hold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Final

from asupplemented.errors import ConfigurationError, excerpt
from asupplemented.model.name import MAX_NAME

__all__ = ("Credential", "check_lookup", "lookup_order")

_LOOKUP: Final = re.compile(r"(?!-)[!-.0-?A-~]++(?:/[!-.0-9;-?A-~]++)*+")
"""``host[:port]`` and the parts of a path, in visible ASCII: no user, tag, digest or scheme."""


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A user name and password, or a token.

    Neither `repr` nor `str` shows anything but which of the fields are set.

    Attributes:
        username: For basic access and for token servers.
        password: Belongs to `username`. It may have several lines, for some are whole files.
        registry_token: A bearer token, sent to the registry as it is.
        identity_token: A refresh token, exchanged at the token server.

    Raises:
        ConfigurationError: A field holds NUL, or another one than `password` a line break, which
            would end a header; a password has no user name, or a user name holds a colon.
    """

    username: str | None = None
    password: str | None = None
    registry_token: str | None = None
    identity_token: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            refused = "\0" if field.name == "password" else "\r\n\0"
            if value is not None and any(character in value for character in refused):
                message = f"the {field.name} of a credential holds a line break or NUL"
                raise ConfigurationError(message)
        if self.password is not None and self.username is None:
            message = "a credential has a password but no username"
            raise ConfigurationError(message)
        if self.username is not None and ":" in self.username:
            message = "the username of a credential holds a colon, which basic access cannot say"
            raise ConfigurationError(message)

    @classmethod
    def of(cls, value: Credential | tuple[str, str] | str | None) -> Credential | None:
        """Take what users write for a credential.

        Args:
            value: A credential; a user name and a password; a registry token; or None.

        Returns:
            The credential, None for anonymous access.

        Raises:
            ConfigurationError: See the class; or `value` is none of these.
        """
        match value:
            case None | Credential():
                return value
            case str():
                return cls(registry_token=value)
            case (str() as username, str() as password):
                return cls(username, password)
        message = "a credential is (username, password), a registry token, or a Credential"
        raise ConfigurationError(message)

    def __repr__(self) -> str:
        known = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return f"<Credential with {', '.join(known) or 'nothing'}>"


def check_lookup(name: str) -> str:
    """Check what a credential is looked up for, or kept under (rule FILE-10).

    Args:
        name: A registry (``host[:port]``), a repository in it, or a namespace between the two.
            Case matters (rule REF-09).

    Returns:
        The same.

    Raises:
        ConfigurationError: It has a scheme, a user, a tag or a digest, or is no such name. What
            it may hold of a password is not shown.
    """
    if len(name) <= MAX_NAME and _LOOKUP.fullmatch(name):
        return name
    shown = "this name" if "@" in name else excerpt(name)
    message = f"credentials belong to a 'host:5000' or a 'host/team/app', and {shown} is neither"
    raise ConfigurationError(message)


def lookup_order(name: str) -> tuple[str, ...]:
    """The names under which the credential of a repository may be kept (rule FILE-08).

    Returns:
        The most specific one first: for ``quay.io/a/b`` that, ``quay.io/a`` and ``quay.io``.
    """
    parts = name.split("/")
    return tuple("/".join(parts[:count]) for count in range(len(parts), 0, -1))
