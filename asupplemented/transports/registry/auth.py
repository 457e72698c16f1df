"""Access: what a request carries to be let in, and what to do if that is not enough.

One object per registry and identity. What it gets is kept here and nowhere else, so it never
reaches another identity or registry (rules TOK-07, CRED-03, SEC-13).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict

from asupplemented.aio.concurrency import SingleFlight
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
    from asupplemented.transports.registry.request import Caller
    from asupplemented.transports.registry.tokens import TokenServer

__all__ = ("Access", "Grant")

EARLY: Final = 5.0
"""Seconds before its end that a token is renewed (rule TOK-04)."""
KEPT: Final = 1024
"""Repositories whose grants are kept."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Grant:
    """What a request for one scope carries."""

    headers: CIMultiDict[str] | None = None
    """None where nothing is needed, so far as is known."""
    challenge: Challenge | None = None
    """The challenge that it answers."""
    scopes: tuple[str, ...] = ()
    """What a token was asked for."""
    expires: float = math.inf
    """By the clock, in seconds."""


class Access:
    """The ways into one registry for one identity.

    Args:
        credential: The identity, None for anonymous.
        offered: The challenges of the ping; none if the registry let us in.
        server: Gives tokens.
        clock: Where time comes from.
    """

    def __init__(
        self,
        credential: Credential | None,
        offered: Sequence[Challenge],
        server: TokenServer,
        clock: Clock,
    ) -> None:
        self._server = server
        self._clock = clock
        self._credential = credential
        self._password = password_of(credential)
        self._registry_token = credential.registry_token if credential is not None else None
        self._identity_token = credential.identity_token if credential is not None else None
        self._usual = self._choose(offered)
        self._grants: dict[str, Grant] = {}
        self._flights: dict[TokenQuery, SingleFlight[Grant]] = {}

    def current(self, scope: str) -> Grant | None:
        """What is known to let in, None if `obtain` has to find out."""
        grant = self._grants.get(scope)
        return grant if grant is not None and self._clock.now() < grant.expires else None

    async def obtain(self, scope: str, caller: Caller) -> Grant:
        """What a request for a scope should carry.

        Raises:
            SourceError: A token is needed, and there is none to be had.
        """
        grant = self.current(scope)
        if grant is not None:
            return grant
        known = self._grants.get(scope)
        challenge = (known and known.challenge) or self._usual
        scopes = known.scopes if known is not None and known.scopes else (scope,)
        return await self._answer(challenge, scope, scopes, caller)

    async def renew(
        self, scope: str, used: Grant, offered: Sequence[Challenge], caller: Caller
    ) -> Grant | None:
        """What to try after a 401 (rules PING-06, TOK-08).

        Args:
            scope: What the request is for.
            used: What it carried.
            offered: The challenges of the answer.
            caller: Who it is for.

        Returns:
            None if there is nothing better to try.
        """
        choice = self._choose(offered)
        if choice is None:
            return None
        current = self.current(scope)
        if current is not None and current is not used:
            return current  # another request was refused too, and was faster
        before = used.challenge
        if before is None or before.scheme != choice.scheme:
            return await self._answer(choice, scope, (scope,), caller)
        if choice.scheme == "basic" or self._registry_token is not None:
            return None
        scopes = _widen(used.scopes, choice)
        if scopes is None:
            return None
        self._grants.pop(scope, None)
        challenge = before if choice.realm is None else choice
        return await self._answer(challenge, scope, scopes, caller)

    def secrets(self) -> list[str]:
        """Everything that the other side could repeat to us."""
        known = [] if self._credential is None else list(self._credential.spellings())
        sent = [grant.headers["Authorization"] for grant in self._grants.values() if grant.headers]
        known.extend(header.partition(" ")[2] for header in sent)
        return known

    def _choose(self, offered: Sequence[Challenge]) -> Challenge | None:
        """The first usable challenge; bearer first if there is a token to use (CHAL-04)."""
        usable = [challenge for challenge in offered if self._is_usable(challenge)]
        if self._registry_token is not None or self._identity_token is not None:
            usable.sort(key=lambda challenge: challenge.scheme != "bearer")
        return usable[0] if usable else None

    def _is_usable(self, challenge: Challenge) -> bool:
        # Without credentials there is no basic header, not even an empty one (rule CHAL-05).
        return challenge.scheme == "bearer" or (
            challenge.scheme == "basic" and self._password is not None
        )

    async def _answer(
        self, challenge: Challenge | None, scope: str, scopes: tuple[str, ...], caller: Caller
    ) -> Grant:
        """Answer a challenge, and keep the answer."""
        if challenge is None:
            grant = Grant()
        elif challenge.scheme == "basic" and self._password is not None:
            grant = _carry(basic_header(*self._password), challenge)
        elif self._registry_token is not None:
            grant = _carry(f"Bearer {self._registry_token}", challenge)
        else:
            grant = await self._fetch(challenge, scopes, caller)
        self._keep(scope, grant)
        return grant

    async def _fetch(self, challenge: Challenge, scopes: tuple[str, ...], caller: Caller) -> Grant:
        """Get a token; those who want the same one at the same time share it."""
        realm = self._server.locate(challenge.realm)
        query = TokenQuery(realm, challenge.service, tuple(sorted(set(scopes))))
        flight = self._flights.setdefault(query, SingleFlight())
        try:
            return await flight.run(partial(self._ask, query, challenge, caller))
        finally:
            if flight.idle and self._flights.get(query) is flight:
                del self._flights[query]

    async def _ask(self, query: TokenQuery, challenge: Challenge, caller: Caller) -> Grant:
        token = await self._server.ask(query, caller)
        expires = self._clock.now() + token.life - EARLY
        return _carry(f"Bearer {token.text}", challenge, query.scopes, expires)

    def _keep(self, scope: str, grant: Grant) -> None:
        self._grants.pop(scope, None)
        while len(self._grants) >= KEPT:
            del self._grants[next(iter(self._grants))]
        self._grants[scope] = grant


def _carry(
    header: str,
    challenge: Challenge,
    scopes: tuple[str, ...] = (),
    expires: float = math.inf,
) -> Grant:
    return Grant(CIMultiDict({"Authorization": header}), challenge, scopes, expires)


def _widen(scopes: tuple[str, ...], challenge: Challenge) -> tuple[str, ...] | None:
    """What to ask for next; None if what the server misses was asked for already (TOK-08)."""
    if challenge.error != "insufficient_scope":
        return scopes
    wanted = parse_scope(challenge.scopes[0]) if len(challenge.scopes) == 1 else None
    return None if wanted is None or wanted in scopes else (*scopes, wanted)
