"""The first request to a registry: its scheme, its challenges, its extensions (rules PING)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from asupplemented.errors import (
    MalformedResponseError,
    NetworkError,
    SourceTimeoutError,
    SupplementedError,
)
from asupplemented.transports.registry.bodies import refuse
from asupplemented.transports.registry.challenge import Challenge, parse_challenges
from asupplemented.transports.registry.error_response import Target
from asupplemented.transports.registry.redirects import RedirectClient
from asupplemented.transports.registry.request import Request

if TYPE_CHECKING:
    import aiohttp

    from asupplemented.transports.registry.endpoint import EndpointConfig
    from asupplemented.transports.registry.request import ClientDeps, RequestContext

__all__ = ("PingResult", "contact_of", "ping")

_ALIASES: Final = {"docker.io": "registry-1.docker.io"}
"""Registries that are contacted under another name than their own (rule PING-05)."""
_ACCEPT: Final = CIMultiDict({hdrs.ACCEPT: "application/json, */*"})
"""A server that negotiates has no manifest to send here (rule PING-01)."""
_ALIVE: Final = frozenset((200, 401))
_SIGNATURES: Final = "X-Registry-Supports-Signatures"


class PingResult(NamedTuple):
    """A registry that responded."""

    redirect_client: RedirectClient
    """Sends requests to its endpoint, and to where that redirects."""
    challenges: tuple[Challenge, ...]
    """Empty if it needs no credentials."""
    signatures: bool
    """Whether it has the X-R-S-S extension (rule PING-07)."""


_Outcome: TypeAlias = PingResult | SupplementedError


def contact_of(registry: str) -> str:
    """The ``host[:port]`` under which a registry is contacted (rule PING-05)."""
    return _ALIASES.get(registry, registry)


async def ping(
    config: EndpointConfig, deps: ClientDeps, request_context: RequestContext
) -> PingResult:
    """Ask a registry for its version: over https, and over http too if it is insecure.

    Statuses 200 and 401 are success (rule PING-01). Plain http is used only where https gets no
    response in HTTP; a status is a response (rule PING-02). A plain server may wait for the rest
    of a request while the client waits for its TLS handshake, so http is asked as well once https
    takes long, and the first success is taken.

    Raises:
        SourceError: The registry cannot be reached, or does not respond as a registry.
    """
    if not config.insecure:
        return await _ping_scheme("https", config, deps, request_context)
    outcome = await _race(config, deps, request_context)
    if isinstance(outcome, SupplementedError):
        raise outcome
    return outcome


async def _race(
    config: EndpointConfig, deps: ClientDeps, request_context: RequestContext
) -> _Outcome:
    async with asyncio.TaskGroup() as group:
        secure = group.create_task(_try_scheme("https", config, deps, request_context))
        await asyncio.wait((secure,), timeout=deps.options.limits.head_start)
        if secure.done() and not _is_unanswered(secure.result()):
            return secure.result()
        plain = group.create_task(_try_scheme("http", config, deps, request_context))
        await asyncio.wait((secure, plain), return_when=asyncio.FIRST_COMPLETED)
        return await _choose(secure, plain)


async def _choose(secure: asyncio.Task[_Outcome], plain: asyncio.Task[_Outcome]) -> _Outcome:
    """The first success; without one, an error with both messages."""
    if not secure.done() and isinstance(plain.result(), PingResult):
        secure.cancel()
        return plain.result()
    # From here on https decides: http counts only if https gets no response.
    before = await secure
    if not _is_unanswered(before):
        plain.cancel()
        return before
    after = await plain
    if isinstance(after, SupplementedError) and isinstance(before, SupplementedError):
        after.message = f"{after.message}; and over https before that: {before.message}"
        after.args = (after.message,)
    return after


async def _try_scheme(
    scheme: str, config: EndpointConfig, deps: ClientDeps, request_context: RequestContext
) -> _Outcome:
    try:
        return await _ping_scheme(scheme, config, deps, request_context)
    except SupplementedError as error:
        return error


async def _ping_scheme(
    scheme: str, config: EndpointConfig, deps: ClientDeps, request_context: RequestContext
) -> PingResult:
    url = URL(f"{scheme}://{contact_of(config.registry)}/", encoded=True)
    endpoint = await deps.connections.open_endpoint(
        url,
        verify=not config.insecure,
        max_scope=None,
        certificates=config.certificates,
        proxies=config.proxies,
        registry=config.registry,
        own=True,
    )
    client = RedirectClient(
        deps.connections,
        deps.options,
        endpoint,
        insecure=config.insecure,
        proxies=config.proxies,
        config=config,
        named=deps.options.named_token_servers(config.registry),
    )
    target = Target("its version")
    request = Request(url.with_path("/v2/", encoded=True), target, _ACCEPT)
    response, same_origin = await client.send(request)
    try:
        if response.status not in _ALIVE:
            raise await refuse(response, target, deps)
        if scheme == "http" and not same_origin:
            # Each request would first be sent over plain http, with its credentials.
            message = (
                f"{endpoint.origin} only redirects, so it is no registry for plain http; "
                "name the registry that it redirects to"
            )
            raise MalformedResponseError(message, status=response.status)
    finally:
        response.close()
    return PingResult(
        client,
        _challenges(response, config.registry, request_context),
        response.headers.get(_SIGNATURES) == "1",
    )


def _challenges(
    response: aiohttp.ClientResponse, registry: str, request_context: RequestContext
) -> tuple[Challenge, ...]:
    if response.status == 200:  # noqa: PLR2004
        return ()
    parsed = parse_challenges(response.headers.getall("WWW-Authenticate", ()))
    for fault in parsed.faults:
        request_context.warn(f"{registry} sends a challenge that is malformed: {fault}")
    return parsed.challenges


def _is_unanswered(outcome: _Outcome) -> bool:
    """Whether there was no response in HTTP at all."""
    if isinstance(outcome, MalformedResponseError):
        return outcome.status is None
    return isinstance(outcome, (NetworkError, SourceTimeoutError))
