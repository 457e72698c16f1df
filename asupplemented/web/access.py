"""Who the client is: authentication that the user of the registry provides (rule SRV-10)."""

from __future__ import annotations

import binascii
import inspect
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from asupplemented.errors import ConfigurationError, excerpt

if TYPE_CHECKING:
    from asupplemented.abc import CredentialProvider
    from asupplemented.session import CredentialLike
    from asupplemented.web.request import Request

__all__ = (
    "AccessRequest",
    "Authenticate",
    "Challenge",
    "Denied",
    "Identity",
    "basic",
    "bearer",
)


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """What `Authenticate` decides about.

    Attributes:
        name: The repository, with the registry if the client named one in either way (rule
            SRV-16). None for ``/v2/`` itself.
        path: The repository as it is in the path, None for ``/v2/`` itself.
        request: Method, query and headers.
    """

    name: str | None
    path: str | None
    request: Request

    @property
    def authorization(self) -> str | None:
        """The header ``Authorization``, None without one."""
        return self.request.header("authorization")


@dataclass(frozen=True, slots=True)
class Identity:
    """A client that was authenticated.

    Attributes:
        principal: Its name; see `asupplemented.Session.scoped`.
        credentials: What upstream registries are asked with; None is anonymous access. They are
            used for this principal only.
        shared: Whether this client is served as all others are: with the credentials of the
            session itself, and with what was fetched for other clients. `credentials` is not used.
    """

    principal: str
    credentials: Mapping[str, CredentialLike] | CredentialProvider | None = field(
        default=None, repr=False
    )
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Challenge:
    """The client is to authenticate: 401.

    Attributes:
        scheme: "Basic" or "Bearer".
        parameters: By name, in order. They are sent as quoted strings (rule SRV-34).

    Raises:
        ConfigurationError: A value holds a line break or another control character.
    """

    scheme: str
    parameters: Mapping[str, str]

    def __post_init__(self) -> None:
        for value in (self.scheme, *self.parameters, *self.parameters.values()):
            if not value.isascii() or not value.isprintable():
                message = f"a challenge is printable ASCII, unlike {excerpt(value)}"
                raise ConfigurationError(message)

    def __str__(self) -> str:
        quoted = (
            '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"'))
            for name, value in self.parameters.items()
        )
        return f"{self.scheme} {','.join(quoted)}"


@dataclass(frozen=True, slots=True)
class Denied:
    """The client is known, and may not read this repository: 403."""


Authenticate: TypeAlias = Callable[[AccessRequest], Awaitable["Identity | Challenge | Denied"]]
"""Decides who a client is, for each request, before anything is looked up."""

_Decision: TypeAlias = "Identity | Denied | None"


def basic(
    check: Callable[[str, str, AccessRequest], _Decision | Awaitable[_Decision]],
    *,
    realm: str = "asupplemented",
) -> Authenticate:
    """An `Authenticate` by user name and password.

    Args:
        check: Takes user name, password and the request. It returns None for wrong ones. It may
            be asynchronous.
        realm: Shown to users.
    """
    challenge = Challenge("Basic", {"realm": realm})

    async def authenticate(access: AccessRequest) -> Identity | Challenge | Denied:
        credentials = _read_basic(access.authorization)
        if credentials is None:
            return challenge
        return await _resolve(check(*credentials, access)) or challenge

    return authenticate


def bearer(
    check: Callable[[str, AccessRequest], _Decision | Awaitable[_Decision]],
    *,
    realm: str,
    service: str,
) -> Authenticate:
    """An `Authenticate` by a token that a token server has issued.

    Args:
        check: Takes the token and the request. It returns None for a wrong one. It may be
            asynchronous.
        realm: The URL of the token server, where clients send their password. It is never made
            of what a client sends (rule SRV-35).
        service: The name of this registry there.
    """

    async def authenticate(access: AccessRequest) -> Identity | Challenge | Denied:
        scheme, _, token = (access.authorization or "").partition(" ")
        decision = None
        if scheme.lower() == "bearer" and token.strip():
            decision = await _resolve(check(token.strip(), access))
        if decision is not None:
            return decision
        parameters = {"realm": realm, "service": service}
        if access.path is not None:
            parameters["scope"] = f"repository:{access.path}:pull"
        return Challenge("Bearer", parameters)

    return authenticate


async def _resolve(decision: _Decision | Awaitable[_Decision]) -> Identity | Denied | None:
    return await decision if inspect.isawaitable(decision) else decision


def _read_basic(header: str | None) -> tuple[str, str] | None:
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    username, colon, password = text.partition(":")
    return (username, password) if colon else None
