"""Asking token servers (rules TOK-01, TOK-03, TOK-06, TOK-10, CRED-01)."""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict

from asupplemented.aio.retry import retry
from asupplemented.errors import MalformedResponseError
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.bodies import check_encoding, read_whole, refuse
from asupplemented.transports.registry.courier import Courier, Parcel
from asupplemented.transports.registry.error_response import Inquiry
from asupplemented.transports.registry.patience import judge, judge_rival
from asupplemented.transports.registry.tokens import Token, TokenServerPolicy, parse_token

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

    from asupplemented.errors import NotFoundError, RegistryError
    from asupplemented.model.credential import Credential
    from asupplemented.transports.registry.means import Means
    from asupplemented.transports.registry.request import Caller
    from asupplemented.transports.registry.tokens import TokenQuery

__all__ = ("TokenServer", "basic_header", "password_of")

_NO_POST: Final = frozenset((404, 405))
"""Statuses of token servers that know the older way only (rule TOK-03)."""


class TokenServer:
    """The token servers of one registry, asked as one identity.

    Args:
        courier: Takes the requests there.
        policy: Says where they may go.
        credential: The identity, None for anonymous.
        means: Settings and time.
    """

    def __init__(
        self,
        courier: Courier,
        policy: TokenServerPolicy,
        credential: Credential | None,
        means: Means,
    ) -> None:
        self._courier = courier
        self._policy = policy
        self._means = means
        self._password = password_of(credential)
        self._identity_token = credential.identity_token if credential is not None else None
        self._account = credential.username if credential is not None else None

    def locate(self, realm: str | None) -> URL:
        """The URL of a realm, if it may be asked.

        Raises:
            MalformedResponseError: It may not.
        """
        return self._policy.check(realm, credentialed=self._credentialed)

    async def ask(self, query: TokenQuery, caller: Caller) -> Token:
        """Get a token, with as much patience as for any other request (rule TOK-06).

        Raises:
            UnauthorizedError: The server does not accept the credentials, or nobody without.
            SourceError: It failed, or its answer is no token.
        """
        return await retry(
            partial(self._ask_once, query),
            judge=judge_rival if caller.rivals else judge,
            policy=self._means.options.retry,
            clock=self._means.clock,
            notify=caller.report_retry,
        )

    @property
    def _credentialed(self) -> bool:
        return self._identity_token is not None or self._password is not None

    async def _ask_once(self, query: TokenQuery) -> Token:
        token = None
        if self._identity_token is not None:
            token = await self._exchange(query, self._identity_token)
        return token or await self._get(query)

    async def _exchange(self, query: TokenQuery, identity_token: str) -> Token | None:
        """Trade the identity token in; None if the server does not do that but takes passwords."""
        parcel = Parcel(query.realm, _wanted(), form=query.form(identity_token))
        response = (await self._courier.deliver(parcel)).response
        if response.status in _NO_POST and self._password is not None:
            response.close()
            return None
        return await self._receive(response)

    async def _get(self, query: TokenQuery) -> Token:
        headers = _wanted()
        if self._password is not None:
            headers["Authorization"] = basic_header(*self._password)
        admit = partial(self._policy.check_url, credentialed=False)
        parcel = Parcel(query.url(self._account), headers, _wanted(), admit=admit)
        return await self._receive((await self._courier.deliver(parcel)).response)

    async def _receive(self, response: aiohttp.ClientResponse) -> Token:
        try:
            if response.status != 200:  # noqa: PLR2004
                raise await self._refuse(response)
            return await self._read(response)
        finally:
            response.close()

    async def _read(self, response: aiohttp.ClientResponse) -> Token:
        limits = self._means.options.limits
        check_encoding(response)
        body = await read_whole(response, limits.token_body, self._means.timeouts)
        place = redact(response.url)
        if body is None:
            message = f"the answer of {place} is too large for a token"
            raise MalformedResponseError(message, status=response.status, url=place)
        now = self._means.clock.wall()
        return parse_token(body, now=now, longest=limits.token_life, place=place)

    async def _refuse(self, response: aiohttp.ClientResponse) -> RegistryError | NotFoundError:
        who = "with these credentials" if self._credentialed else "without credentials"
        secrets = (self._identity_token or "", *(self._password or ()))
        return await refuse(response, Inquiry(f"a token, asked {who}"), self._means, secrets)


def _wanted() -> CIMultiDict[str]:
    return CIMultiDict({"Accept": "application/json"})


def password_of(credential: Credential | None) -> tuple[str, str] | None:
    """User name and password, None unless there are both (rule TOK-01)."""
    if credential is None or not credential.username or not credential.password:
        return None
    return credential.username, credential.password


def basic_header(username: str, password: str) -> str:
    """The value of ``Authorization`` for basic access."""
    encoded = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
    return f"Basic {encoded}"
