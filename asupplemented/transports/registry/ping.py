"""The first request to a registry: is it there, how is it reached, what does it take (PING)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from yarl import URL

from asupplemented.errors import (
    MalformedResponseError,
    NetworkError,
    SourceTimeoutError,
    SupplementedError,
)
from asupplemented.transports.registry.addresses import origin_of
from asupplemented.transports.registry.bodies import refuse
from asupplemented.transports.registry.challenge import Challenge, parse_challenges
from asupplemented.transports.registry.error_response import Inquiry
from asupplemented.transports.registry.redirects import Courier, Home, Parcel

if TYPE_CHECKING:
    import aiohttp

    from asupplemented.transports.registry.endpoint import Route
    from asupplemented.transports.registry.request import Caller, Means

__all__ = ("Greeting", "contact_of", "ping")

_ALIASES: Final = {"docker.io": "registry-1.docker.io"}
"""Registries that are contacted under another name than their own (rule PING-05)."""
_ALIVE: Final = frozenset((200, 401))
_SIGNATURES: Final = "X-Registry-Supports-Signatures"


class Greeting(NamedTuple):
    """What a registry says of itself."""

    home: Home
    courier: Courier
    challenges: tuple[Challenge, ...]
    """Empty if it lets us in as we are."""
    signatures: bool
    """Whether it speaks the X-R-S-S extension (rule PING-07)."""


_Outcome: TypeAlias = Greeting | SupplementedError


def contact_of(registry: str) -> str:
    """The ``host[:port]`` under which a registry is contacted (rule PING-05)."""
    return _ALIASES.get(registry, registry)


async def ping(route: Route, means: Means, caller: Caller) -> Greeting:
    """Ask a registry for its version: over https, and over http too if TLS is not verified.

    Statuses 200 and 401 are alive (rule PING-01). Plain http counts only where https gets no
    answer in HTTP; a status is an answer (rule PING-02). A plain server may well leave the
    other side waiting for its half of TLS, so http is asked already when https takes long,
    and the first one that is alive is taken.

    Raises:
        SourceError: The registry is not there, or does not answer as it should.
    """
    if not route.insecure:
        return await _knock("https", route, means, caller)
    outcome = await _race(route, means, caller)
    if isinstance(outcome, SupplementedError):
        raise outcome
    return outcome


async def _race(route: Route, means: Means, caller: Caller) -> _Outcome:
    async with asyncio.TaskGroup() as group:
        secure = group.create_task(_try("https", route, means, caller))
        await asyncio.wait((secure,), timeout=means.options.limits.head_start)
        if secure.done() and not _is_mute(secure.result()):
            return secure.result()
        plain = group.create_task(_try("http", route, means, caller))
        await asyncio.wait((secure, plain), return_when=asyncio.FIRST_COMPLETED)
        return await _choose(secure, plain)


async def _choose(secure: asyncio.Task[_Outcome], plain: asyncio.Task[_Outcome]) -> _Outcome:
    """Take the first one that is alive; if none is, say what happened to both."""
    if not secure.done() and isinstance(plain.result(), Greeting):
        secure.cancel()
        return plain.result()
    before = await secure
    if not _is_mute(before):
        plain.cancel()
        return before
    after = await plain
    if isinstance(after, SupplementedError) and isinstance(before, SupplementedError):
        after.message = f"{after.message}; and over https before that: {before.message}"
        after.args = (after.message,)
    return after


async def _try(scheme: str, route: Route, means: Means, caller: Caller) -> _Outcome:
    try:
        return await _knock(scheme, route, means, caller)
    except SupplementedError as error:
        return error


async def _knock(scheme: str, route: Route, means: Means, caller: Caller) -> Greeting:
    url = URL(f"{scheme}://{contact_of(route.registry)}/", encoded=True)
    channel = await means.connections.open_channel(
        url,
        verify=not route.insecure,
        reach=None,
        certificates=route.certificates,
        proxies=route.proxies,
    )
    home = Home(url, origin_of(url), channel, route.insecure, route.proxies)
    courier = Courier(means.connections, means.options, home)
    parcel = Parcel(url.with_path("/v2/", encoded=True), channel=channel)
    response, local = await courier.deliver(parcel)
    try:
        if response.status not in _ALIVE:
            raise await refuse(response, Inquiry("its version"), means)
        if scheme == "http" and not local:
            # Each request would leave over plain http, with all that it carries.
            message = f"{home.origin} only redirects; it is no registry for plain http"
            raise MalformedResponseError(message, status=response.status)
    finally:
        response.close()
    return Greeting(
        home,
        courier,
        _challenges(response, route.registry, caller),
        response.headers.get(_SIGNATURES) == "1",
    )


def _challenges(
    response: aiohttp.ClientResponse, registry: str, caller: Caller
) -> tuple[Challenge, ...]:
    if response.status == 200:  # noqa: PLR2004
        return ()
    parsed = parse_challenges(response.headers.getall("WWW-Authenticate", ()))
    for fault in parsed.faults:
        caller.warn(f"{registry} sends a challenge that is malformed: {fault}")
    return parsed.challenges


def _is_mute(outcome: _Outcome) -> bool:
    """Whether there was no answer in HTTP at all."""
    if isinstance(outcome, MalformedResponseError):
        return outcome.status is None
    return isinstance(outcome, (NetworkError, SourceTimeoutError))
