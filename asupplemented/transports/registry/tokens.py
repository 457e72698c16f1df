"""Token servers: where they may be, requests for tokens, and their responses.

`TokenServerPolicy` decides where credentials may go (rules CRED-01, CRED-02), `TokenServer` sends
the requests (rules TOK-01, TOK-03, TOK-06, TOK-10), and `parse_token` reads the responses
(rules TOK-04, TOK-05). No repr shows a token.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from multidict import CIMultiDict
from yarl import URL

from asupplemented.aio.retry import retry
from asupplemented.errors import MalformedResponseError
from asupplemented.remedies import TOKEN_SERVERS, advise
from asupplemented.transports.registry.addresses import (
    AddressScope,
    Origin,
    classify_host,
    is_same_site,
    origin_of,
    redact,
)
from asupplemented.transports.registry.bodies import check_encoding, read_whole, refuse
from asupplemented.transports.registry.error_response import Target, decode_document
from asupplemented.transports.registry.failures import never_retry, should_retry
from asupplemented.transports.registry.redaction import Secrets
from asupplemented.transports.registry.redirects import parse_url
from asupplemented.transports.registry.request import Request

if TYPE_CHECKING:
    from collections.abc import Collection

    import aiohttp

    from asupplemented.errors import NotFoundError, RegistryError
    from asupplemented.model.credential import Credential
    from asupplemented.transports.registry.redirects import RedirectClient
    from asupplemented.transports.registry.request import ClientDeps, RequestContext

__all__ = (
    "Token",
    "TokenQuery",
    "TokenServer",
    "TokenServerPolicy",
    "basic_header",
    "parse_scope",
    "parse_token",
    "password_of",
    "pull_scope",
    "secrets_of",
)

_NO_POST: Final = frozenset((404, 405))
"""Statuses of token servers that support only GET (rule TOK-03)."""


class TokenServer:
    """The token servers of one registry, asked as one identity.

    Args:
        redirect_client: Sends the requests.
        policy: Where they may go.
        credential: The identity, None for anonymous.
        deps: Settings and clock.
        secrets: What must not be repeated in errors; tokens are added to it.
    """

    def __init__(
        self,
        redirect_client: RedirectClient,
        policy: TokenServerPolicy,
        credential: Credential | None,
        deps: ClientDeps,
        secrets: Secrets,
    ) -> None:
        self.secrets = secrets
        self._redirect_client = redirect_client
        self._policy = policy
        self._deps = deps
        self._credential = credential
        self._password = password_of(credential)
        self._identity_token = credential.identity_token if credential is not None else None
        self._account = credential.username if credential is not None else None
        self._credentialed = self._identity_token is not None or self._password is not None
        how = "with these credentials" if self._credentialed else "without credentials"
        self._target = Target(f"a token, asked {how}")

    def check_realm(self, realm: str | None) -> URL:
        """The URL of a realm, if the policy allows it.

        Raises:
            MalformedResponseError: It does not.
        """
        return self._policy.check(realm, credentialed=self._credentialed)

    async def fetch(self, query: TokenQuery, request_context: RequestContext) -> Token:
        """Get a token, with the retries of any other request (rule TOK-06).

        Raises:
            UnauthorizedError: The server does not accept the credentials, or requires some.
            SourceError: It failed, or its response is not a token.
        """
        return await retry(
            partial(self._fetch_once, query),
            judge=never_retry if request_context.has_alternatives else should_retry,
            policy=self._deps.options.retry,
            clock=self._deps.clock,
            notify=request_context.report_retry,
        )

    async def _fetch_once(self, query: TokenQuery) -> Token:
        token = None
        if self._identity_token is not None:
            token = await self._exchange(query, self._identity_token)
        return token or await self._get(query)

    async def _exchange(self, query: TokenQuery, identity_token: str) -> Token | None:
        """Exchange the identity token; None if the server cannot, and there is a password."""
        form = query.form(identity_token)
        request = Request(query.realm, self._target, _accept_json(), form=form)
        response = (await self._redirect_client.send(request)).http
        if response.status in _NO_POST and self._password is not None:
            response.close()
            return None
        return await self._receive(response)

    async def _get(self, query: TokenQuery) -> Token:
        credentials = None
        if self._password is not None:
            credentials = CIMultiDict({"Authorization": basic_header(*self._password)})
        request = Request(
            query.url(self._account),
            self._target,
            _accept_json(),
            credentials,
            # A redirect takes no credentials along, so the rules for anonymous requests apply.
            check_redirect=partial(self._policy.check_url, credentialed=False),
        )
        return await self._receive((await self._redirect_client.send(request)).http)

    async def _receive(self, response: aiohttp.ClientResponse) -> Token:
        try:
            if response.status != 200:  # noqa: PLR2004
                raise await self._refuse(response)
            return await self._read(response)
        finally:
            response.close()

    async def _read(self, response: aiohttp.ClientResponse) -> Token:
        limits = self._deps.options.limits
        body = await read_whole(response, limits.token_body, self._deps.timeouts)
        place = redact(response.url)
        if body is None:
            message = f"the response of {place} is too large for a token"
            raise MalformedResponseError(message, status=response.status, url=place)
        check_encoding(response, body)
        now = self._deps.clock.wall()
        return parse_token(body, now=now, longest=limits.token_life, place=place)

    async def _refuse(self, response: aiohttp.ClientResponse) -> RegistryError | NotFoundError:
        return await refuse(response, self._target, self._deps, self.secrets)


def _accept_json() -> CIMultiDict[str]:
    return CIMultiDict({"Accept": "application/json"})


def password_of(credential: Credential | None) -> tuple[str, str] | None:
    """User name and password; None for no login (rule TOK-01)."""
    return None if credential is None else credential.pair


def secrets_of(credential: Credential | None) -> Secrets:
    """What an identity has that must not be repeated, encoded as it is sent."""
    if credential is None:
        return Secrets()
    password = password_of(credential)
    basic = None if password is None else basic_header(*password).partition(" ")[2]
    return Secrets(
        (
            credential.username,
            credential.password,
            credential.identity_token,
            credential.registry_token,
            basic,
        )
    )


def basic_header(username: str, password: str) -> str:
    """The value of ``Authorization`` for basic access."""
    encoded = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
    return f"Basic {encoded}"


FLOOR: Final = 60.0
"""Seconds that a token lives at least, and if its life is unknown (rule TOK-04)."""
SKEW: Final = 300.0
"""Seconds by which the clock of a token server may differ; beyond that it is ignored."""

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,65536}")
_LONGEST_DATE: Final = 64
_LONG: Final = 10**9
"""Seconds; an integer may be too large for a float."""
_CLIENT: Final = "asupplemented"


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token."""

    text: str = field(repr=False)
    life: float
    """Seconds for which it can be used from now on."""


@dataclass(frozen=True, slots=True)
class TokenQuery:
    """What a token is requested for (rule TOK-07)."""

    realm: URL
    service: str
    scopes: tuple[str, ...]
    """Sorted."""

    def url(self, account: str | None) -> URL:
        """The URL of a GET request: the realm and its query, and ours (rule TOK-01)."""
        asked = [("account", account)] if account else []
        if self.service:
            asked.append(("service", self.service))
        asked += [("scope", scope) for scope in self.scopes]
        query = urlencode(asked, quote_via=quote, safe=":/,")
        before = self.realm.raw_query_string
        joined = "&".join(filter(None, (before, query)))
        return self.realm.with_query(None) if not joined else _with_query(self.realm, joined)

    def form(self, identity_token: str) -> dict[str, str]:
        """The form of a POST request that exchanges an identity token (rule TOK-03)."""
        form = {
            "grant_type": "refresh_token",
            "refresh_token": identity_token,
            "client_id": _CLIENT,
            "scope": " ".join(self.scopes),
        }
        return {**form, "service": self.service} if self.service else form


@dataclass(frozen=True, slots=True)
class TokenServerPolicy:
    """Which token servers a registry may send us to (rules CRED-01, CRED-02).

    To the registry's own host, on any port, if the scheme is no weaker than the registry's, and
    to an origin that the caller named. Otherwise, without credentials, to any https URL (and to
    http if the registry is insecure), but not to a literal address that is not public. With
    credentials, only to https within the registry's site.
    """

    registry: str
    """``host[:port]``, for messages."""
    home: Origin
    insecure: bool
    named: Collection[Origin] = ()
    """Origins that the caller trusts with the credentials of this registry."""
    private: bool = False
    """Whether a realm may have any address."""

    def check(self, realm: str | None, *, credentialed: bool) -> URL:
        """The URL of a realm that may be asked.

        Raises:
            MalformedResponseError: There is none, or the policy forbids it. Nothing was sent.
        """
        if realm is None:
            message = f"{self.registry} demands a token and names no realm to get it from"
            raise MalformedResponseError(message)
        try:
            url = parse_url(realm)
        except ValueError as error:
            message = f"{self.registry} demands a token from a realm that {error}"
            raise MalformedResponseError(message) from None
        self.check_url(url, credentialed=credentialed)
        return url

    def check_url(self, url: URL, *, credentialed: bool) -> None:
        """Check a URL that is parsed already, such as that of a redirect, like `check`."""
        origin = origin_of(url)
        weaker = (self.home.scheme, origin.scheme) == ("https", "http")
        if origin in self.named or (origin.host == self.home.host and not weaker):
            return
        fault = self._fault(origin, credentialed=credentialed)
        if fault is not None:
            message = (f"{self.registry} demands a token from {redact(url)}, {fault}") + advise(
                "if that is right, allow it with {}",
                TOKEN_SERVERS,
                registry=self.registry,
                origin=str(origin),
            )
            raise MalformedResponseError(message, url=redact(url))

    def _fault(self, origin: Origin, *, credentialed: bool) -> str | None:
        if origin.scheme != "https" and not self.insecure:
            return "which is plain http"
        scope = classify_host(origin.host)
        private = scope not in {None, AddressScope.PUBLIC} and origin.host != self.home.host
        if private and not self.private:
            return "which is an address that is not public"
        if not credentialed:
            return None
        if origin.scheme == "https" and is_same_site(origin.host, self.home.host):
            return None
        return "which must not get its credentials"


def pull_scope(repository: str) -> str:
    """The scope that allows reading a repository (rule TOK-02)."""
    return f"repository:{repository}:pull"


def parse_scope(text: str) -> str | None:
    """The scope, if it has the form ``type:name:actions``; names may have colons (TOK-08)."""
    kind, first, rest = text.partition(":")
    name, last, actions = rest.rpartition(":")
    return text if first and last and kind and name and actions else None


def parse_token(body: bytes, *, now: float, longest: float, place: str) -> Token:
    """Read the response of a token server.

    Args:
        body: A JSON object.
        now: Seconds since the epoch.
        longest: Seconds that a token may live, whatever the server says.
        place: The redacted URL, for errors.

    Raises:
        MalformedResponseError: It is not one, or holds no token that can be sent (rule TOK-05).
    """
    try:
        document = decode_document(body)
    except ValueError as error:
        message = f"the response of {place} is no token: {error}"
        raise MalformedResponseError(message, url=place) from None
    text = document.get("token") or document.get("access_token")
    if not isinstance(text, str) or _TOKEN.fullmatch(text) is None:
        message = f"the response of {place} holds no token that could be sent"
        raise MalformedResponseError(message, url=place)
    life = max(_as_seconds(document.get("expires_in")), FLOOR)
    issued = _issued(document.get("issued_at"), now)
    if issued + life <= now:
        issued = now
    return Token(text, min(issued + life - now, longest))


def _as_seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return FLOOR
    return float(min(max(value, 0), _LONG))


def _issued(value: object, now: float) -> float:
    """When a token was issued; now, if the server's time is missing, ahead, or far off."""
    if not isinstance(value, str) or len(value) > _LONGEST_DATE:
        return now
    try:
        date = datetime.fromisoformat(value)
        stamp = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return now
    return min(stamp, now) if abs(stamp - now) <= SKEW else now


def _with_query(url: URL, query: str) -> URL:
    return URL(f"{url.origin()}{url.raw_path}?{query}", encoded=True)
