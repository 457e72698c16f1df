"""Credentials of registries, the names under which they are looked up, and principals.

Their reprs and errors never show a secret.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, fields
from typing import Final

from asupplemented.errors import ConfigurationError, excerpt
from asupplemented.model.name import MAX_NAME

__all__ = (
    "AUTH_FILES",
    "NO_PRINCIPAL",
    "Credential",
    "check_lookup",
    "hash_principal",
    "lookup_order",
)

AUTH_FILES: Final = "containers-auth.json"
"""In a list of credential helpers, the name that stands for the auth files (rule FILE-12)."""
NO_PRINCIPAL: Final = "default"
"""What `hash_principal` returns for None. It is in paths of caches, so it must not change."""

_LOOKUP: Final = re.compile(r"(?!-)[!-.0-?A-~]++(?:/[!-.0-9;-?A-~]++)*+")
"""``host[:port]`` and the parts of a path, in visible ASCII: no user, tag, digest or scheme."""


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A user name and password, or a token.

    `repr` and `str` show only which fields are set.

    Attributes:
        username: For basic access and for token servers.
        password: The password of `username`. It may have several lines: some are whole files.
        registry_token: A bearer token, sent to the registry unchanged.
        identity_token: A refresh token, exchanged at the token server.

    Raises:
        ConfigurationError: A field holds NUL; a field other than `password` holds a line break,
            which would end a header; a password has no user name; a user name holds a colon.
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
        """Convert the forms of a credential that callers may give.

        Args:
            value: A credential; a user name and a password; a registry token; or None.

        Returns:
            The credential, None for anonymous access.

        Raises:
            ConfigurationError: See the class; or `value` has another type.
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
    """Check a name under which a credential is stored or looked up (rule FILE-10).

    Args:
        name: A registry (``host[:port]``), a repository in it, or a namespace between the two.
            Case matters (rule REF-09).

    Returns:
        The same name.

    Raises:
        ConfigurationError: It has a scheme, a user, a tag or a digest, or is malformed. A name
            that may hold a password is not shown.
    """
    if len(name) <= MAX_NAME and _LOOKUP.fullmatch(name):
        return name
    shown = "this name" if "@" in name else excerpt(name)
    message = f"credentials belong to a 'host:5000' or a 'host/team/app', and {shown} is neither"
    raise ConfigurationError(message)


def lookup_order(name: str) -> tuple[str, ...]:
    """The names under which the credential of a repository may be stored (rule FILE-08).

    Returns:
        The most specific name first: ``quay.io/a/b``, ``quay.io/a``, ``quay.io``.
    """
    parts = name.split("/")
    return tuple("/".join(parts[:count]) for count in range(len(parts), 0, -1))


def hash_principal(principal: str | None) -> str:
    """A name for a principal in paths and keys, which does not reveal it."""
    if principal is None:
        return NO_PRINCIPAL
    return hashlib.sha256(principal.encode("utf-8", "surrogatepass")).hexdigest()
