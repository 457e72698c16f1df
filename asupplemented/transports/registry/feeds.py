"""Where parts of a blob come from: from one stretch of bytes, or from a body of parts.

Parts are pulled: what nobody reads is passed over when the next one is wanted, so that nobody
waits for anybody (rule PART-05).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from asupplemented.blobs.attempts import Pace
from asupplemented.errors import MalformedResponseError, TruncatedError
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.bodies import read_chunk
from asupplemented.transports.registry.byteranges import ContentRange

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp

    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.multipart import Multipart

__all__ = ("Body", "Feed", "MultipartFeed", "Span", "StretchFeed")


class Span(NamedTuple):
    """A range that is wanted, ``[start, end)``; an end of None is that of a blob of any size."""

    start: int
    end: int | None


class Body:
    """A body as it comes: not waited for for ever, and not at any pace (rule SEC-07)."""

    def __init__(self, response: aiohttp.ClientResponse, client: RegistryClient) -> None:
        self.response = response
        self._limit = client.means.options.limits.chunk
        self._pace = Pace(client.means.timeouts)
        self._clock = client.means.clock
        self._received = 0

    async def pull(self) -> bytes:
        """The next bytes, none at the end."""
        began = self._clock.now()
        chunk = await read_chunk(self.response, self._limit, self._received)
        self._received += len(chunk)
        self._pace.count(self._clock.now() - began, len(chunk))
        return chunk

    def malformed(self, fault: str) -> MalformedResponseError:
        """What to raise if the answer is not as it should be."""
        place = redact(self.response.url)
        return MalformedResponseError(
            f"{place} {fault}",
            status=self.response.status,
            url=place,
            received=self._received or None,
        )

    def truncated(self) -> TruncatedError:
        """What to raise if there should be more."""
        message = f"the parts from {redact(self.response.url)} broke off"
        return TruncatedError(message, received=self._received)


class Feed(Protocol):
    """Parts, one after another."""

    async def begin(self, span: Span) -> Span:
        """Pass over what is left of a part, and go to the next one."""
        ...

    async def read(self) -> bytes:
        """The next bytes of a part, none at its end."""
        ...

    async def finish(self) -> None:
        """Make sure that there are no more parts."""
        ...


class StretchFeed:
    """Parts cut from one stretch of bytes."""

    def __init__(self, body: Body, position: int) -> None:
        self._body = body
        self._position = position
        self._rest = b""
        self._end: int | None = position

    async def begin(self, span: Span) -> Span:
        while self._position < span.start:
            if not await self._take(span.start):
                raise self._body.truncated()
        self._end = span.end
        return span

    async def read(self) -> bytes:
        if self._position == self._end:
            return b""
        chunk = await self._take(self._end)
        if not chunk and self._end is not None:
            raise self._body.truncated()
        return chunk

    async def _take(self, end: int | None) -> bytes:
        """Bytes that come before an offset, as many as are there; none at the end of the body."""
        data = self._rest or await self._body.pull()
        size = None if end is None else end - self._position
        taken, self._rest = data[:size], b"" if size is None else data[size:]
        self._position += len(taken)
        return taken

    async def finish(self) -> None:
        """What comes after the last part was not asked for."""


class MultipartFeed:
    """Parts that come as such."""

    def __init__(
        self,
        body: Body,
        parser: Multipart,
        check: Callable[[Body, ContentRange, Span], Span],
    ) -> None:
        self._body = body
        self._parser = parser
        self._check = check
        self._left = 0
        self._over = False

    async def begin(self, span: Span) -> Span:
        found = await self._find_next()
        if found is None:
            raise self._body.malformed("sends fewer parts than were asked for")
        self._left = found.end - found.start
        return self._check(self._body, found, span)

    async def read(self) -> bytes:
        if not self._left:
            return b""
        chunk = await self._advance()
        if not isinstance(chunk, bytes):
            raise self._body.truncated()
        self._left -= len(chunk)
        return chunk

    async def finish(self) -> None:
        if await self._find_next() is not None:
            raise self._body.malformed("sends more parts than were asked for")

    async def _find_next(self) -> ContentRange | None:
        while await self.read():
            pass
        found = await self._advance()
        return found if isinstance(found, ContentRange) else None

    async def _advance(self) -> ContentRange | bytes | None:
        """What comes next, None at the end of all parts."""
        while True:
            event = self._parse()
            if event is not None or self._parser.ended:
                return event
            if self._over:
                raise self._body.truncated()
            chunk = await self._body.pull()
            if chunk:
                self._parser.feed(chunk)
            else:
                self._over = True
                self._parser.finish()

    def _parse(self) -> ContentRange | bytes | None:
        try:
            return self._parser.advance()
        except ValueError as error:
            if self._over:
                raise self._body.truncated() from None
            raise self._body.malformed(f"sends parts that {error}") from None
