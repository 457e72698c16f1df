"""Access control of a fake registry: Basic, and Bearer with its own token endpoint."""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import parse_qsl

from asupplemented.testing.exchange import JSON, Answer, fail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asupplemented.testing.exchange import Request

__all__ = ("Access", "Basic", "Bearer", "Token", "credentials_of")

PING: Final = frozenset({"/v2", "/v2/"})


class Access(Protocol):
    """Decides about a request before the registry answers it."""

    def answer(self, request: Request, url: str, /) -> Answer | None:
        """A refusal or a token; None lets the registry answer.

        Args:
            request: The request.
            url: The URL of the registry that received it.
        """
        ...

    def challenge(self, request: Request, url: str, /) -> str:
        """The value of ``WWW-Authenticate`` for a request to the registry at a URL."""
        ...


@dataclass
class Basic:
    """Requires a user name and password with every request to the API.

    Attributes:
        users: User to password.
        open_ping: Whether ``/v2/`` answers 200 without credentials (rule PING-06).
        realm: The realm of the challenge.
    """

    users: Mapping[str, str]
    open_ping: bool = False
    realm: str = "fake"

    def answer(self, request: Request, url: str) -> Answer | None:
        if not _is_guarded(request, open_ping=self.open_ping):
            return None
        user, password = credentials_of(request) or ("", "")
        if user and self.users.get(user) == password:
            return None
        return _refuse(self.challenge(request, url))

    def challenge(self, _request: Request, _url: str) -> str:
        return f'Basic realm="{self.realm}"'


@dataclass(frozen=True)
class Token:
    """A token that was issued."""

    text: str
    """What clients send."""
    user: str | None
    """None for anonymous."""
    scopes: frozenset[str]
    """The scopes that it grants, each ``repository:NAME:ACTION``."""
    expires: float
    """The second at which it expires, by the clock of the `Bearer`."""


@dataclass
class Bearer:
    """Requires a token with every request, and issues tokens at ``/token``.

    Every registry with this object answers at ``/token``. For a token server of another origin,
    give the same object to two registries and set `realm` to ``url + "/token"`` of one of them.

    Attributes:
        users: User to password; empty by default.
        public: Whether anonymous clients get tokens.
        refresh_tokens: Identity token to user, for the POST flow (rule TOK-03).
        may: Decides whether a user (None: anonymous) gets a scope; None grants every scope.
        realm: The URL in challenges; None for ``/token`` of the registry itself.
        service: The service in challenges.
        expires_in: Seconds until a token expires. None leaves the field out of the answer, and
            tokens expire after 60 seconds.
        fields: The fields of the answer that contain the token.
        open_ping: Whether ``/v2/`` answers 200 without credentials (rule PING-06).
        now: The clock, in seconds since the epoch.
        tokens: All tokens that were issued, in order.
    """

    users: Mapping[str, str] = field(default_factory=dict[str, str])
    public: bool = True
    refresh_tokens: Mapping[str, str] = field(default_factory=dict[str, str])
    may: Callable[[str | None, str], bool] | None = None
    realm: str | None = None
    service: str = "fake.registry"
    expires_in: int | None = 300
    fields: Sequence[str] = ("token",)
    open_ping: bool = False
    now: Callable[[], float] = field(default_factory=lambda: time.time)
    tokens: list[Token] = field(default_factory=list[Token])
    _revoked: set[str] = field(default_factory=set[str])

    def answer(self, request: Request, url: str) -> Answer | None:
        if request.path == "/token":
            return self._answer_token(request)
        if not _is_guarded(request, open_ping=self.open_ping):
            return None
        header = request.header("Authorization")
        if header is None:
            return _refuse(self.challenge(request, url))
        token = self._find(header)
        if token is None:
            return _refuse(f'{self.challenge(request, url)},error="invalid_token"')
        scope = _scope(request)
        if scope is not None and scope not in token.scopes:
            return _refuse(f'{self.challenge(request, url)},error="insufficient_scope"')
        return None

    def challenge(self, request: Request, url: str) -> str:
        realm = f"{url}/token" if self.realm is None else self.realm
        scope = _scope(request)
        parameters = f'Bearer realm="{realm}",service="{self.service}"'
        return parameters if scope is None else f'{parameters},scope="{scope}"'

    def revoke(self) -> None:
        """Refuse every token that was issued so far."""
        self._revoked.update(token.text for token in self.tokens)

    def _find(self, header: str) -> Token | None:
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "bearer" or text in self._revoked:
            return None
        now = self.now()
        return next((t for t in self.tokens if t.text == text and t.expires > now), None)

    def _answer_token(self, request: Request) -> Answer:
        arguments = request.query
        if request.method == "POST":
            arguments = tuple(parse_qsl(request.body.decode("latin-1"), keep_blank_values=True))
        elif request.method != "GET":
            return fail(405, "UNSUPPORTED")
        known, user = self._identify(request, dict(arguments))
        if not known or (user is None and not self.public):
            return fail(401, "UNAUTHORIZED", "incorrect username or password")
        scopes = [each for name, value in arguments if name == "scope" for each in value.split()]
        return self._give(user, scopes)

    def _identify(self, request: Request, arguments: Mapping[str, str]) -> tuple[bool, str | None]:
        """Whether the credentials are right, and the user name, None for anonymous."""
        if request.method == "POST":
            user = self.refresh_tokens.get(arguments.get("refresh_token", ""))
            return user is not None, user
        if request.header("Authorization") is None:
            return True, None
        name, password = credentials_of(request) or ("", "")
        return bool(name) and self.users.get(name) == password, name

    def _give(self, user: str | None, wanted: Sequence[str]) -> Answer:
        now = self.now()
        lifetime = 60 if self.expires_in is None else self.expires_in
        actions = [action for scope in wanted for action in _split(scope)]
        granted = frozenset(a for a in actions if self.may is None or self.may(user, a))
        token = Token(f"fake-token-{len(self.tokens) + 1}", user, granted, now + lifetime)
        self.tokens.append(token)
        document: dict[str, str | int] = dict.fromkeys(self.fields, token.text)
        document["issued_at"] = datetime.fromtimestamp(now, UTC).isoformat()
        if self.expires_in is not None:
            document["expires_in"] = self.expires_in
        return Answer(headers=(("Content-Type", JSON),), body=json.dumps(document).encode())


def credentials_of(request: Request) -> tuple[str, str] | None:
    """User name and password of a request with Basic access; None without them."""
    scheme, _, encoded = (request.header("Authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user, password


def _is_guarded(request: Request, *, open_ping: bool) -> bool:
    if request.path in PING:
        return not open_ping
    return request.path.startswith("/v2/")


def _scope(request: Request) -> str | None:
    """The scope that a request needs; None if any token is enough."""
    name, slash, _ = request.path.removeprefix("/v2/").rpartition("/")
    repository = name.rpartition("/")[0]
    return f"repository:{repository}:pull" if slash and repository else None


def _split(scope: str) -> list[str]:
    """One scope for each action of a scope."""
    name, _, actions = scope.rpartition(":")
    return [f"{name}:{action}" for action in actions.split(",")]


def _refuse(challenge: str) -> Answer:
    headers = {"WWW-Authenticate": challenge}
    return fail(401, "UNAUTHORIZED", "authentication required", headers)
