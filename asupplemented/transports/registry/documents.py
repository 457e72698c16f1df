"""Documents: responses small enough to be read whole (rules HTTP-05, SEC-07)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import hdrs

from asupplemented.errors import LimitExceededError
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.bodies import check_encoding, read_whole
from asupplemented.transports.registry.error_response import parse_media_type

if TYPE_CHECKING:
    import aiohttp
    from multidict import CIMultiDictProxy
    from yarl import URL

    from asupplemented.abc import Timeouts
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.request import Request, RequestContext

__all__ = ("HTML", "Document", "fetch_document", "read_document")

HTML: Final = "text/html"
"""The media type of pages that portals and registries send to browsers."""


class Document(NamedTuple):
    """A response whose body is in memory."""

    body: bytes
    media_type: str | None
    """Without its parameters; None if there is none that can be read (rule HTTP-04)."""
    headers: CIMultiDictProxy[str]
    url: URL

    @property
    def place(self) -> str:
        """Where it came from, redacted, for messages."""
        return redact(self.url)


async def fetch_document(
    client: RegistryClient, request: Request, request_context: RequestContext, *, limit: int
) -> Document:
    """Get a document from a registry.

    Args:
        client: The registry.
        request: What to get.
        request_context: The reference that it is for.
        limit: The most bytes to accept.

    Raises:
        LimitExceededError: It is larger than `limit`.
        NotFoundError: It does not exist, if the request's target can be missing.
        SourceError: The registry failed or refused.
    """
    response = await client.send(request, request_context)
    what = request.target.description
    return await read_document(response, what, limit=limit, timeouts=client.deps.timeouts)


async def read_document(
    response: aiohttp.ClientResponse, what: str, *, limit: int, timeouts: Timeouts
) -> Document:
    """Read a response to its end, and close it on every path out.

    Args:
        response: A response whose body is unread.
        what: A description of it, for errors.
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
    return Document(body, media_type, response.headers, response.url)
