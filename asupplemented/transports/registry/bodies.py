"""Small bodies, read whole: with a cap on their bytes and on their time (rules HTTP-05, SEC-07)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import hdrs

from asupplemented.errors import MalformedResponseError, SourceError, SourceTimeoutError
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.error_response import Answer, describe
from asupplemented.transports.registry.failures import FOREIGN_IN_BODY, translate

if TYPE_CHECKING:
    from collections.abc import Iterable

    import aiohttp

    from asupplemented.abc import Timeouts
    from asupplemented.errors import NotFoundError, RegistryError
    from asupplemented.transports.registry.error_response import Inquiry
    from asupplemented.transports.registry.request import Means

__all__ = ("check_encoding", "read_chunk", "read_whole", "refuse")


def check_encoding(response: aiohttp.ClientResponse) -> None:
    """Refuse a body that is not sent as it is (rule BLOB-07).

    Raises:
        MalformedResponseError: It is compressed, although nobody asked for that.
    """
    encoding = response.headers.get(hdrs.CONTENT_ENCODING)
    if encoding is not None and encoding.strip().lower() not in {"", "identity"}:
        place = redact(response.url)
        message = f"{place} sent a compressed answer, although only identity was asked for"
        raise MalformedResponseError(message, status=response.status, url=place)


async def refuse(
    response: aiohttp.ClientResponse, inquiry: Inquiry, means: Means, secrets: Iterable[str] = ()
) -> RegistryError | NotFoundError:
    """The error that an answer is; its body is read for that, and the answer closed."""
    body: bytes | None = b""
    try:
        if 400 <= response.status < 500:  # noqa: PLR2004
            limit = means.options.limits.error_body
            body = await read_whole(response, limit, means.timeouts)
    except SourceError:
        body = b""  # the status says enough
    finally:
        response.close()
    answer = Answer(response.status, response.headers, body, redact(response.url))
    return describe(answer, inquiry, now=means.clock.wall(), secrets=secrets)


async def read_chunk(response: aiohttp.ClientResponse, limit: int, received: int) -> bytes:
    """The next bytes of a long body, as many as are there; none at its end.

    Args:
        response: An answer.
        limit: The most bytes to take.
        received: Bytes of the body before, for errors.

    Raises:
        SourceError: The body broke off, or nothing came for too long.
    """
    try:
        return await response.content.read(limit)
    except FOREIGN_IN_BODY as error:
        failure = translate(error, response.url, received=received)
    # Not within the handler: what was caught there may hold secrets and would be kept.
    raise failure


async def read_whole(
    response: aiohttp.ClientResponse, limit: int, timeouts: Timeouts
) -> bytes | None:
    """Read a body to its end. Whatever happens, the answer is closed then.

    Args:
        response: An answer whose body nobody has begun to read.
        limit: The most bytes to accept, whatever length was announced.
        timeouts: The time limit is that of a body that stalls, or that is slower than the
            least rate; it does not help to send a byte now and then.

    Returns:
        The body; None if it is longer than `limit`.

    Raises:
        TruncatedError: It broke off.
        NetworkError: The connection broke.
        SourceTimeoutError: It came too slowly.
    """
    content = response.content
    if content.is_eof():  # small bodies come along with the head
        body = content.read_nowait()
        return body if len(body) <= limit else None
    try:
        if response.content_length is not None and response.content_length > limit:
            return None
        return await _read_slowly(response, limit, timeouts)
    finally:
        response.close()


async def _read_slowly(
    response: aiohttp.ClientResponse, limit: int, timeouts: Timeouts
) -> bytes | None:
    chunks: list[bytes] = []
    received = 0
    start = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(timeouts.stall) as deadline:
            while chunk := await response.content.readany():
                chunks.append(chunk)
                received += len(chunk)
                if received > limit:
                    return None
                deadline.reschedule(_next_deadline(start, received, timeouts))
    except TimeoutError:
        message = f"the answer of {redact(response.url)} came too slowly"
        raise SourceTimeoutError(message, received=received) from None
    except FOREIGN_IN_BODY as error:
        failure = translate(error, response.url, received=received)
    else:
        return b"".join(chunks)
    raise failure


def _next_deadline(start: float, received: int, timeouts: Timeouts) -> float | None:
    """When the next bytes must have come, in the time of the loop; None for never."""
    if timeouts.stall is None:
        return None
    stalled = asyncio.get_running_loop().time() + timeouts.stall
    if not timeouts.min_rate:
        return stalled
    return min(stalled, start + timeouts.stall + received / timeouts.min_rate)
