"""Small bodies, read whole: with a cap on their bytes and on their time (rules HTTP-05, SEC-07)."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from aiohttp import hdrs

from asupplemented.aio.timers import MinRate, WaitTimer
from asupplemented.errors import (
    MalformedResponseError,
    SourceError,
    SourceTimeoutError,
    excerpt,
)
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.error_response import ErrorResponse, describe
from asupplemented.transports.registry.failures import FOREIGN_IN_BODY, translate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import aiohttp
    from yarl import URL

    from asupplemented.abc import Timeouts
    from asupplemented.errors import NotFoundError, RegistryError
    from asupplemented.model.digest import Digest
    from asupplemented.transports.registry.error_response import Target
    from asupplemented.transports.registry.redaction import Secrets
    from asupplemented.transports.registry.request import ClientDeps

__all__ = (
    "Reading",
    "TimedBody",
    "check_encoding",
    "find_encoding",
    "is_delimited",
    "read_chunk",
    "read_whole",
    "refuse",
)

Reading: TypeAlias = "Callable[[], Awaitable[bytes]]"
"""Reads the next bytes of a body, as many as are there; none at its end."""


def find_encoding(response: aiohttp.ClientResponse) -> str | None:
    """The encoding that a response names, None for none. Labels like ``utf-8`` occur, too."""
    encoding = ", ".join(response.headers.getall(hdrs.CONTENT_ENCODING, ())).strip()
    return None if encoding.lower() in {"", "identity"} else encoding


def is_delimited(response: aiohttp.ClientResponse) -> bool:
    """Whether a body says where it ends; one that does not ends cleanly when it is cut off."""
    coding = response.headers.get(hdrs.TRANSFER_ENCODING, "")
    return response.content_length is not None or "chunked" in coding.lower()


def check_encoding(
    response: aiohttp.ClientResponse, body: bytes, digest: Digest | None = None
) -> None:
    """Refuse a body that its server has encoded, although only identity was asked for.

    What a label says does not matter if the bytes are what they should be: content with the right
    digest, or a JSON object where no digest is known (rule BLOB-07).

    Args:
        response: The response.
        body: All its bytes, as they came.
        digest: The digest that they should have, None if it is unknown.

    Raises:
        MalformedResponseError: They are neither, and the response names an encoding.
    """
    encoding = find_encoding(response)
    if encoding is None or body.lstrip()[:1] == b"{":
        return
    if digest is None or not digest.matches(body):
        place = redact(response.url)
        message = (
            f"{place} sent a response with the Content-Encoding {excerpt(encoding)}, although only "
            "identity was asked for"
        )
        raise MalformedResponseError(message, status=response.status, url=place)


async def refuse(
    response: aiohttp.ClientResponse,
    target: Target,
    deps: ClientDeps,
    secrets: Secrets | None = None,
) -> RegistryError | NotFoundError:
    """The error for a response. Its body is read for that, and it is closed."""
    body: bytes | None = b""
    try:
        if 400 <= response.status < 500:  # noqa: PLR2004
            limit = deps.options.limits.error_body
            body = await read_whole(response, limit, deps.timeouts)
    except SourceError:
        body = b""  # the status says enough
    finally:
        response.close()
    error_response = ErrorResponse(response.status, response.headers, body, redact(response.url))
    return describe(error_response, target, now=deps.clock.wall(), secrets=secrets)


async def read_chunk(read: Reading, url: URL, received: int) -> bytes:
    """The next bytes of a long body, as many as are there; none at its end.

    Args:
        read: Reads them.
        url: The URL of the request, for errors.
        received: Bytes of the body before, for errors.

    Raises:
        SourceError: The body broke off.
    """
    try:
        return await read()
    except FOREIGN_IN_BODY as error:
        failure = translate(error, url, received=received)
    # Raised outside the handler: what was caught there may hold secrets, and would be its context.
    raise failure


class TimedBody:
    """A body whose waits end when they last too long, or when it is too slow (rule SEC-07).

    Args:
        response: A response of which only the head was read.
        timeouts: How long to wait.
        read: Reads the next bytes, none at the end.
        now: The clock, in seconds; None is the clock of the event loop.

    Attributes:
        response: The same response.
        received: Bytes of the body that were read.
    """

    __slots__ = ("_now", "_rate", "_read", "_timer", "received", "response")

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        timeouts: Timeouts,
        *,
        read: Reading,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.response = response
        self.received = 0
        self._read = read
        self._now = now or asyncio.get_running_loop().time
        self._rate = MinRate(timeouts.stall, timeouts.min_rate)
        self._timer = WaitTimer()

    async def read(self) -> bytes:
        """The next bytes; see `read_chunk`."""
        began = self._now()
        self._timer.begin(self._rate.limit)
        try:
            chunk = await read_chunk(self._read, self.response.url, self.received)
        except asyncio.CancelledError:
            if self._timer.end():
                raise self._locate(self._rate.give_up()) from None
            raise
        finally:
            self._timer.end()
        self.received += len(chunk)
        try:
            self._rate.count(self._now() - began, len(chunk))
        except SourceTimeoutError as error:
            raise self._locate(error) from None
        return chunk

    def _locate(self, error: SourceTimeoutError) -> SourceTimeoutError:
        message = f"{redact(self.response.url)}: {error.message}"
        return SourceTimeoutError(message, received=self.received)

    def close(self) -> None:
        """Cancel the timer."""
        self._timer.close()


async def read_whole(
    response: aiohttp.ClientResponse, limit: int, timeouts: Timeouts
) -> bytes | None:
    """Read a body to its end. The response is closed on every path out.

    Args:
        response: A response of which only the head was read.
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
    timed = TimedBody(response, timeouts, read=partial(content.read, limit + 1))
    chunks: list[bytes] = []
    try:
        if response.content_length is not None and response.content_length > limit:
            return None
        while chunk := await timed.read():
            chunks.append(chunk)
            if timed.received > limit:
                return None
        return b"".join(chunks)
    finally:
        timed.close()
        response.close()
