"""First contact with a registry: its scheme, its challenges, its extensions (rules PING).

The first request to a registry is the one that the caller makes, without credentials. Its response
says what a ping would say: a success or a 401 is that of a registry, and the 401 names the
credentials that are needed. A ping, which is a request for ``/v2/``, is sent only where something
depends on it:

1. Where plain http is allowed, https is pinged to choose the scheme. If nothing there speaks
   HTTP over TLS, http is used without a ping, until its first response shows whether a registry
   sent it. If https takes long, http is pinged beside it.
2. If the first response is any other refusal or, over http, a redirect, the ping says whether
   this is a registry, and whether credentials would help.
3. The extension for signatures is found by the ping.
"""

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

__all__ = (
    "Found",
    "PingResult",
    "contact_of",
    "find_registry",
    "ping",
    "read_challenges",
    "tell_of_https",
)

_ALIASES: Final = {"docker.io": "registry-1.docker.io"}
"""Registries that are contacted under another name than their own (rule PING-05)."""
_ACCEPT: Final = CIMultiDict({hdrs.ACCEPT: "application/json, */*"})
"""A server that negotiates has no manifest to send here (rule PING-01)."""
_ALIVE: Final = frozenset((200, 401))
_SIGNATURES: Final = "X-Registry-Supports-Signatures"


class PingResult(NamedTuple):
    """What the response to a ping says."""

    challenges: tuple[Challenge, ...]
    """Empty if the registry needs no credentials."""
    signatures: bool
    """Whether it has the X-R-S-S extension (rule PING-07)."""


class Found(NamedTuple):
    """The scheme of a registry."""

    redirect_client: RedirectClient
    """Sends requests to its endpoint, and to where that redirects."""
    ping_result: PingResult | None = None
    """None if the scheme was chosen without a ping."""
    https_failure: SupplementedError | None = None
    """Why http is used, if it was not pinged."""


_Outcome: TypeAlias = Found | SupplementedError


def contact_of(registry: str) -> str:
    """The ``host[:port]`` under which a registry is contacted (rule PING-05)."""
    return _ALIASES.get(registry, registry)


async def find_registry(
    config: EndpointConfig, deps: ClientDeps, request_context: RequestContext
) -> Found:
    """Choose the scheme of a registry: https, or http where that is allowed and https fails.

    Plain http is used only where https gets no response in HTTP; a status is a response (rule
    PING-02). A plain server may wait for the rest of a request while the client waits for its TLS
    handshake, so http is pinged as well once https takes long, and the first success is taken.

    Raises:
        SourceError: https was pinged, and does not respond as a registry.
        ConfigurationError: The registry cannot be reached as it is configured.
    """
    if not config.insecure:
        return Found(await _open("https", config, deps))
    outcome, raced = await _race(config, deps, request_context)
    if not isinstance(outcome, SupplementedError):
        return outcome
    if raced or not _is_unanswered(outcome):
        raise outcome
    return Found(await _open("http", config, deps), https_failure=outcome)


async def _race(
    config: EndpointConfig, deps: ClientDeps, request_context: RequestContext
) -> tuple[_Outcome, bool]:
    """Ping https and, if that takes long, http; gives the outcome, and whether http was pinged."""
    async with asyncio.TaskGroup() as group:
        secure = group.create_task(_try_scheme("https", config, deps, request_context))
        await asyncio.wait((secure,), timeout=deps.options.limits.head_start)
        if secure.done():
            return secure.result(), False
        plain = group.create_task(_try_scheme("http", config, deps, request_context))
        await asyncio.wait((secure, plain), return_when=asyncio.FIRST_COMPLETED)
        return await _choose(secure, plain), True


async def _choose(secure: asyncio.Task[_Outcome], plain: asyncio.Task[_Outcome]) -> _Outcome:
    """The first success; without one, an error with both messages."""
    if not secure.done() and isinstance(plain.result(), Found):
        secure.cancel()
        return plain.result()
    # From here on https decides: http counts only if https gets no response.
    before = await secure
    if not isinstance(before, SupplementedError) or not _is_unanswered(before):
        plain.cancel()
        return before
    after = await plain
    if isinstance(after, SupplementedError):
        tell_of_https(after, before)
    return after


def tell_of_https(error: SupplementedError, https_failure: SupplementedError) -> None:
    """Add why https was not used to the message of an error over http (rule PING-02)."""
    error.message = f"{error.message}; and over https before that: {https_failure.message}"
    error.args = (error.message,)


async def _try_scheme(
    scheme: str, config: EndpointConfig, deps: ClientDeps, request_context: RequestContext
) -> _Outcome:
    try:
        redirect_client = await _open(scheme, config, deps)
        return Found(redirect_client, await ping(redirect_client, config, deps, request_context))
    except SupplementedError as error:
        return error


async def _open(scheme: str, config: EndpointConfig, deps: ClientDeps) -> RedirectClient:
    """Prepare requests to a registry over one scheme. Nothing is sent."""
    endpoint = await deps.connections.open_endpoint(
        URL(f"{scheme}://{contact_of(config.registry)}/", encoded=True),
        verify=not config.insecure,
        max_scope=None,
        certificates=config.certificates,
        proxies=config.proxies,
        registry=config.registry,
        own=True,
    )
    return RedirectClient(
        deps.connections,
        deps.options,
        endpoint,
        insecure=config.insecure,
        proxies=config.proxies,
        config=config,
        named=deps.options.named_token_servers(config.registry),
    )


async def ping(
    redirect_client: RedirectClient,
    config: EndpointConfig,
    deps: ClientDeps,
    request_context: RequestContext,
) -> PingResult:
    """Ask a registry for its version. Statuses 200 and 401 are success (rule PING-01).

    Raises:
        SourceError: The registry cannot be reached, or does not respond as a registry.
    """
    endpoint, target = redirect_client.endpoint, Target("its version")
    request = Request(endpoint.url.with_path("/v2/", encoded=True), target, _ACCEPT)
    response, same_origin = await redirect_client.send(request)
    try:
        if response.status not in _ALIVE:
            raise await refuse(response, target, deps)
        if endpoint.origin.scheme == "http" and not same_origin:
            # Each request would first be sent over plain http, with its credentials.
            message = (
                f"{endpoint.origin} only redirects, so it is no registry for plain http; "
                "name the registry that it redirects to"
            )
            raise MalformedResponseError(message, status=response.status)
    finally:
        response.close()
    return PingResult(
        _challenges(response, config.registry, request_context),
        response.headers.get(_SIGNATURES) == "1",
    )


def _challenges(
    response: aiohttp.ClientResponse, registry: str, request_context: RequestContext
) -> tuple[Challenge, ...]:
    if response.status == 200:  # noqa: PLR2004
        return ()
    return read_challenges(response, registry, request_context)


def read_challenges(
    response: aiohttp.ClientResponse, registry: str, request_context: RequestContext | None
) -> tuple[Challenge, ...]:
    """The challenges of a 401; malformed ones are left out (rule CHAL-02).

    Args:
        response: The 401.
        registry: Its name, for warnings.
        request_context: Is warned of malformed ones; None if that was done before.
    """
    parsed = parse_challenges(response.headers.getall(hdrs.WWW_AUTHENTICATE, ()))
    if request_context is not None:
        for fault in parsed.faults:
            request_context.warn(f"{registry} sends a challenge that is malformed: {fault}")
    return parsed.challenges


def _is_unanswered(outcome: SupplementedError) -> bool:
    """Whether there was no response in HTTP at all."""
    if isinstance(outcome, MalformedResponseError):
        return outcome.status is None
    return isinstance(outcome, (NetworkError, SourceTimeoutError))
