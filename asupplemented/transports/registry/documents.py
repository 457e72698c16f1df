"""Letters: answers small enough to be read whole (rules HTTP-05, SEC-07)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aiohttp import hdrs

from asupplemented.errors import LimitExceededError
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.bodies import check_encoding, read_whole
from asupplemented.transports.registry.error_response import parse_media_type

if TYPE_CHECKING:
    import aiohttp
    from multidict import CIMultiDictProxy

    from asupplemented.abc import Timeouts
    from asupplemented.transports.registry.client import Errand, RegistryClient
    from asupplemented.transports.registry.request import Caller

__all__ = ("Letter", "fetch_letter", "receive")


class Letter(NamedTuple):
    """An answer, whole and in memory."""

    body: bytes
    media_type: str | None
    """Without its parameters; None if there is none that could be read (rule HTTP-04)."""
    headers: CIMultiDictProxy[str]
    url: str
    """Where it came from, redacted."""


async def fetch_letter(
    client: RegistryClient, errand: Errand, caller: Caller, *, limit: int
) -> Letter:
    """Get something small from a registry.

    Args:
        client: The registry.
        errand: What to get.
        caller: Who it is for.
        limit: The most bytes to accept.

    Raises:
        LimitExceededError: It is larger than `limit`.
        NotFoundError: It is not there, if the errand's inquiry foresees that.
        SourceError: The registry failed or refused.
    """
    response = await client.send(errand, caller)
    what = errand.inquiry.what
    return await receive(response, what, limit=limit, timeouts=client.means.timeouts)


async def receive(
    response: aiohttp.ClientResponse, what: str, *, limit: int, timeouts: Timeouts
) -> Letter:
    """Read an answer to its end, and close it, whatever happens.

    Args:
        response: An answer whose body nobody has begun to read.
        what: What it is, for errors.
        limit: The most bytes to accept.
        timeouts: How long to wait.

    Raises:
        LimitExceededError: It is larger than `limit`.
        MalformedResponseError: It is compressed.
        SourceError: It broke off, or came too slowly.
    """
    try:
        check_encoding(response)
        body = await read_whole(response, limit, timeouts)
    except BaseException:
        response.close()
        raise
    if body is None:
        message = f"the {what} is larger than {limit} bytes"
        raise LimitExceededError(message, limit=limit)
    media_type = parse_media_type(response.headers.get(hdrs.CONTENT_TYPE))
    return Letter(body, media_type, response.headers, redact(response.url))
