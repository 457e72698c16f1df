"""Authentication: the credentials that a request carries, and what to try after a 401.

Each registry and identity has one `Authenticator`. Its authorizations are kept there and nowhere
else, so they never reach another identity or registry (rules TOK-07, CRED-03, SEC-13).

Requests carry nothing until the registry has challenged one of them, or a ping. The first challenge
that can be answered is kept, and requests for scopes without an authorization answer it at once
from then on. Requests that were sent before it came are refused, and are sent once more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict

from asupplemented.aio.concurrency import SingleFlightMap
from asupplemented.aio.lru import LRU
from asupplemented.transports.registry.tokens import (
    TokenQuery,
    basic_header,
    parse_scope,
    password_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.aio.retry import Clock
    from asupplemented.model.credential import Credential
    from asupplemented.transports.registry.challenge import Challenge
    from asupplemented.transports.registry.request import RequestContext
    from asupplemented.transports.registry.tokens import TokenServer

__all__ = ("ANONYMOUS", "Authenticator", "Authorization")

EARLY: Final = 5.0
"""Seconds before its end that a token is renewed (rule TOK-04)."""
KEPT: Final = 1024
"""Scopes whose authorizations are kept."""
MAX_SCOPES: Final = 16
"""Scopes that one token is asked for; further ones that a challenge names are left out."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Authorization:
    """The headers of requests for one scope. Its repr shows none of them."""

    headers: CIMultiDict[str] | None = None
    """None if nothing is known to be needed."""
    challenge: Challenge | None = None
    """The challenge that it answers."""
    scopes: tuple[str, ...] = ()
    """What a token was asked for."""
    expires: float = math.inf
    """By the clock, in seconds."""


ANONYMOUS: Final = Authorization()
"""Used as long as there is no challenge to answer."""


class Authenticator:
    """Gets authorizations for one registry and one identity.

    Args:
        credential: The identity, None for anonymous.
        server: Gives tokens.
        clock: Where time comes from.
    """

    def __init__(self, credential: Credential | None, server: TokenServer, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._credential = credential
        self._password = password_of(credential)
        self._registry_token = credential.registry_token if credential is not None else None
        self._identity_token = credential.identity_token if credential is not None else None
        self._usual: Challenge | None = None
        """The challenge that requests for new scopes answer."""
        self._authorizations = LRU[str, Authorization](KEPT)
        self._flights = SingleFlightMap[TokenQuery, Authorization]()

    def __repr__(self) -> str:
        return f"<Authenticator: {self._authorizations!r}, {self._flights!r}>"

    def learn(self, offered: Sequence[Challenge]) -> None:
        """Remember how the registry wants to be answered, unless that is known already.

        Args:
            offered: The challenges of a response that refused a request without credentials.
        """
        if self._usual is None:
            self._usual = self._choose(offered)
            if self._usual is not None:
                self._authorizations.clear()  # they were all anonymous

    def current(self, scope: str) -> Authorization | None:
        """The authorization for a scope, None if `obtain` has to get one."""
        authorization = self._authorizations.get(scope)
        if authorization is not None and self._clock.now() < authorization.expires:
            return authorization
        return None

    async def obtain(self, scope: str, request_context: RequestContext) -> Authorization:
        """The authorization for a scope; a token is fetched if one is needed.

        Raises:
            SourceError: A token is needed, and the token server gives none.
        """
        authorization = self.current(scope)
        if authorization is not None:
            return authorization
        known = self._authorizations.get(scope)
        challenge = (known and known.challenge) or self._usual
        scopes = known.scopes if known is not None and known.scopes else (scope,)
        return await self._answer(challenge, scope, scopes, request_context)

    async def renew(
        self,
        scope: str,
        refused: Sequence[Authorization],
        offered: Sequence[Challenge],
        request_context: RequestContext,
        *,
        kept: bool,
    ) -> Authorization | None:
        """The authorization to try after a 401 (rules PING-06, TOK-08).

        Args:
            scope: What the request is for.
            refused: The authorizations that the request carried so far, the last one last.
            offered: The challenges of the response.
            request_context: The reference that it is for.
            kept: Whether the last authorization was got for an earlier request.

        Returns:
            None if there is nothing better to try.

        Raises:
            SourceError: The token server gives no token.
        """
        used = refused[-1]
        if used is ANONYMOUS:
            # Where this response names no realm, that to a ping may.
            offered = [each for each in offered if self._names_realm(each)]
            self.learn(offered)
        current = self.current(scope)
        if current is not None and all(current is not each for each in refused):
            return current  # another request was refused too, and has renewed it already
        if used is not ANONYMOUS:
            # Whatever the 401 says, this token is not sent again; what it was for is remembered.
            self._authorizations.put(scope, replace(used, expires=-math.inf))
        choice = self._choose(offered)
        before = used.challenge
        if before is not None and before.scheme == "bearer" and self._registry_token is None:
            bearer = next((each for each in offered if each.scheme == "bearer"), None)
            scopes = used.scopes if bearer is None else _join_scopes(used.scopes, bearer)
            challenge = before if bearer is None or bearer.realm is None else bearer
            if _is_worth_fetching(scopes, challenge, refused, bearer, kept=kept):
                return await self._answer(challenge, scope, scopes, request_context)
        if choice is None or any(_is_answer(each, choice) for each in refused):
            return None
        return await self._answer(choice, scope, _join_scopes((scope,), choice), request_context)

    def _choose(self, offered: Sequence[Challenge]) -> Challenge | None:
        """The first usable challenge; bearer first if there is a token to use (CHAL-04)."""
        usable = [challenge for challenge in offered if self._is_usable(challenge)]
        if self._registry_token is not None or self._identity_token is not None:
            usable.sort(key=lambda challenge: challenge.scheme != "bearer")
        return usable[0] if usable else None

    def _is_usable(self, challenge: Challenge) -> bool:
        # Without credentials no basic header is sent, not even an empty one (rule CHAL-05).
        return challenge.scheme == "bearer" or (
            challenge.scheme == "basic" and self._password is not None
        )

    def _names_realm(self, challenge: Challenge) -> bool:
        """Whether a challenge names what is needed to get a token, if one has to be got."""
        needs_token = challenge.scheme == "bearer" and self._registry_token is None
        return challenge.realm is not None or not needs_token

    async def _answer(
        self,
        challenge: Challenge | None,
        scope: str,
        scopes: tuple[str, ...],
        request_context: RequestContext,
    ) -> Authorization:
        """Answer a challenge, and keep the authorization for the scope."""
        if challenge is None:
            authorization = ANONYMOUS
        elif challenge.scheme == "basic" and self._password is not None:
            authorization = _authorize(basic_header(*self._password), challenge)
        elif self._registry_token is not None:
            authorization = _authorize(f"Bearer {self._registry_token}", challenge)
        else:
            # Requests that need the same token at the same time share one request for it.
            realm = self._server.check_realm(challenge.realm)
            query = TokenQuery(realm, challenge.service, tuple(sorted({*scopes} - {""})))
            authorization = await self._flights.run(
                query, partial(self._fetch, query, challenge, request_context)
            )
        self._authorizations.put(scope, authorization)
        return authorization

    async def _fetch(
        self, query: TokenQuery, challenge: Challenge, request_context: RequestContext
    ) -> Authorization:
        token = await self._server.fetch(query, request_context)
        self._server.secrets.add(token.text)
        expires = self._clock.now() + token.life - EARLY
        return _authorize(f"Bearer {token.text}", challenge, query.scopes, expires)


def _authorize(
    header: str,
    challenge: Challenge,
    scopes: tuple[str, ...] = (),
    expires: float = math.inf,
) -> Authorization:
    return Authorization(CIMultiDict({"Authorization": header}), challenge, scopes, expires)


def _join_scopes(scopes: tuple[str, ...], challenge: Challenge) -> tuple[str, ...]:
    """The scopes so far and those that a challenge names, each once (rule TOK-08)."""
    named = (parse_scope(text) for text in challenge.scopes)
    return tuple(dict.fromkeys((*scopes, *filter(None, named))))[:MAX_SCOPES]


def _is_worth_fetching(
    scopes: tuple[str, ...],
    challenge: Challenge,
    refused: Sequence[Authorization],
    offered: Challenge | None,
    *,
    kept: bool,
) -> bool:
    """Whether another token may be accepted where the last one was refused (rule TOK-08).

    It may if it has more scopes, or if another server or service gives it: a challenge that was
    kept may be that of another repository. Otherwise it may once, if the last one was kept from an
    earlier request, whatever its refusal says, or if it was called invalid.
    """
    asked = [_query_of(each.challenge, each.scopes) for each in refused]
    query = _query_of(challenge, scopes)
    if query not in asked:
        return True
    invalid = offered is not None and offered.error == "invalid_token"
    return asked.count(query) == 1 and (kept or invalid)


def _query_of(challenge: Challenge | None, scopes: tuple[str, ...]) -> object:
    """What a token is asked for, to compare."""
    return (challenge and challenge.realm), (challenge and challenge.service), set(scopes)


def _is_answer(authorization: Authorization, challenge: Challenge) -> bool:
    before = authorization.challenge
    return before is not None and before.scheme == challenge.scheme
