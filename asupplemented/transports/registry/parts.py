"""Several ranges of a blob in one request (rules PART-01 to PART-05).

Where parts of a blob come from: from one stretch of bytes, or from a body of parts.

Parts are pulled: what nobody reads is passed over when the next one is wanted, so that nobody
waits for anybody (rule PART-05).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self, TypeVar

from aiohttp import hdrs
from multidict import CIMultiDict

from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    LimitExceededError,
    MalformedResponseError,
    RangeError,
    SizeMismatchError,
    TruncatedError,
    UnsupportedOperationError,
    UsageError,
)
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.bodies import TimedBody, check_encoding
from asupplemented.transports.registry.byteranges import (
    ContentRange,
    Multipart,
    format_ranges,
    is_multipart,
    parse_boundary,
    parse_content_range,
)
from asupplemented.transports.registry.client import Errand
from asupplemented.transports.registry.error_response import Inquiry
from asupplemented.transports.registry.tokens import pull_scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    import aiohttp

    from asupplemented.model.descriptor import Descriptor
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.request import Caller

__all__ = (
    "Feed",
    "HttpPart",
    "HttpParts",
    "MultipartFeed",
    "PartsBody",
    "Span",
    "StretchFeed",
    "check_ranges",
)


class Span(NamedTuple):
    """A range that is wanted, ``[start, end)``; an end of None is that of a blob of any size."""

    start: int
    end: int | None


class PartsBody(TimedBody):
    """The body that parts come in."""

    __slots__ = ()

    def malformed(self, fault: str) -> MalformedResponseError:
        """What to raise if the answer is not as it should be."""
        place = redact(self.response.url)
        return MalformedResponseError(
            f"{place} {fault}",
            status=self.response.status,
            url=place,
            received=self.received or None,
        )

    def truncated(self) -> TruncatedError:
        """What to raise if there should be more."""
        message = f"the parts from {redact(self.response.url)} broke off"
        return TruncatedError(message, received=self.received)


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

    def __init__(self, body: PartsBody, position: int) -> None:
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
        data = self._rest or await self._body.read()
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
        body: PartsBody,
        parser: Multipart,
        check: Callable[[PartsBody, ContentRange, Span], Span],
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
            chunk = await self._body.read()
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


T = TypeVar("T")

_OK: Final = 200
_PARTIAL: Final = 206
_NO_PARTS: Final = frozenset((400, 416, 501))
"""Statuses of servers that do not give several ranges, or none at all (rule PART-04)."""
_ANSWERS: Final = frozenset((_OK, _PARTIAL, *_NO_PARTS))


def check_ranges(
    ranges: Sequence[tuple[int, int | None]], size: int | None, *, limit: int
) -> tuple[Span, ...]:
    """The ranges to ask for, within the blob (rule PART-01).

    Args:
        ranges: As they were given.
        size: Bytes of the blob, None if unknown.
        limit: How many there may be.

    Raises:
        RangeError: There are none, or they are empty, overlap, are not sorted, or are outside.
        LimitExceededError: There are too many.
    """
    if len(ranges) > limit:
        message = f"more than {limit} ranges at once; ask for some of them later"
        raise LimitExceededError(message, limit=limit)
    spans: list[Span] = []
    reached: int | None = 0
    for start, end in ranges:
        if reached is None or start < reached or (end is not None and end <= start):
            message = f"the range from {start} to {end} is empty, or not behind the one before"
            raise RangeError(message)
        if size is not None and start >= size:
            message = f"the range starts at {start}, and the blob has {size} bytes"
            raise RangeError(message)
        last = end if size is None else min(size, size if end is None else end)
        spans.append(Span(start, last))
        reached = end
    if not spans:
        message = "no ranges of the blob are asked for"
        raise RangeError(message)
    return tuple(spans)


class HttpPart:
    """One range of a blob. It can be read until the next one is taken.

    Attributes:
        start: Offset of its first byte.
        end: Offset behind its last byte; None if it goes to the end of a blob of unknown size.
    """

    __slots__ = ("_parts", "end", "start")

    def __init__(self, parts: HttpParts, span: Span) -> None:
        self._parts = parts
        self.start, self.end = span

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes.

        Raises:
            ClosedError: The next part was taken, or the parts were left.
            SourceError: The body broke off, came too slowly, or is not what it should be.
        """
        chunk = await self._parts.read(self)
        if chunk:
            return chunk
        raise StopAsyncIteration


class HttpParts:
    """One attempt to read ranges of a blob. Entering it asks, leaving it hangs up.

    It takes one of the places that a registry has for bodies (rule RET-07), from the moment of
    asking until it is left. There is no going on with it in the middle (rule PART-05).

    Args:
        client: The registry.
        repository: The path of the repository.
        blob: Its digest is valid; its size counts, if it is known.
        ranges: See `Source.open_parts`.
        caller: Who it is for.

    Raises:
        RangeError: The ranges are none, not sorted, or outside of the blob.
        LimitExceededError: There are too many of them.

    Attributes:
        size: Bytes of the whole blob, None if nobody says; valid once entered.
    """

    __slots__ = (
        "_body",
        "_caller",
        "_client",
        "_current",
        "_digest",
        "_entered",
        "_feed",
        "_holds_place",
        "_repository",
        "_response",
        "_spans",
        "_taken",
        "size",
    )

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        blob: Descriptor,
        ranges: Sequence[tuple[int, int | None]],
        *,
        caller: Caller,
    ) -> None:
        self._client = client
        self._repository = repository
        self._digest = blob.digest
        self._caller = caller
        with caller.locating(blob.digest):
            limit = client.means.options.limits.parts
            self._spans = check_ranges(ranges, blob.size, limit=limit)
        self._response: aiohttp.ClientResponse | None = None
        self._body: PartsBody | None = None
        self._feed: Feed | None = None
        self._current: HttpPart | None = None
        self._taken = 0
        self._entered = False
        self._holds_place = False
        self.size = blob.size

    async def __aenter__(self) -> Self:
        if self._entered:
            message = "parts are entered once; ask for the ranges again for others"
            raise UsageError(message)
        self._entered = True
        await self._client.limiter.bodies.acquire()
        self._holds_place = True
        try:
            with self._caller.locating(self._digest):
                self._response = await self._client.send(self._errand(), self._caller)
                self._feed = self._choose(self._response)
        except BaseException:
            self._hang_up()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hang_up()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> HttpPart:
        """The next part, in the order of the ranges. What is left of the one before is skipped.

        Raises:
            ClosedError: The parts were not entered, or were left, or have failed before.
            MalformedResponseError: There are other parts than were asked for.
            SourceError: The body broke off, or came too slowly.
        """
        self._current = None
        if self._taken == len(self._spans):
            await self._guard(self._open_feed().finish())
            raise StopAsyncIteration
        span = await self._guard(self._open_feed().begin(self._spans[self._taken]))
        self._taken += 1
        self._current = HttpPart(self, span)
        return self._current

    async def read(self, part: HttpPart) -> bytes:
        """The next bytes of a part, none at its end; for the part itself."""
        if part is not self._current:
            message = "a part is read before the next one is taken"
            raise ClosedError(message, digest=self._digest)
        return await self._guard(self._open_feed().read())

    def _open_feed(self) -> Feed:
        if self._feed is None:
            message = "parts are read after they were entered, until they are left"
            raise ClosedError(message, digest=self._digest)
        return self._feed

    async def _guard(self, work: Awaitable[T]) -> T:
        """Await something; after a failure there is nothing more to be had."""
        try:
            with self._caller.locating(self._digest):
                return await work
        except BaseException:
            self._hang_up()
            raise

    def _errand(self) -> Errand:
        headers = CIMultiDict({hdrs.ACCEPT: "*/*", hdrs.RANGE: format_ranges(self._spans)})
        return Errand(
            f"/v2/{self._repository}/blobs/{self._digest}",
            pull_scope(self._repository),
            Inquiry(f"parts of blob {self._digest}", BlobNotFoundError, self._digest),
            headers,
            _ANSWERS,
        )

    def _choose(self, response: aiohttp.ClientResponse) -> Feed:
        """How the parts come, by the head of the answer (rules PART-02 to PART-04)."""
        if response.status in _NO_PARTS:
            message = f"{redact(response.url)} answered {response.status}, and gives no such parts"
            raise UnsupportedOperationError(f"{message}; read the blob as a whole")
        check_encoding(response)
        means = self._client.means
        limit = means.options.limits.chunk
        body = PartsBody(response, means.timeouts, limit=limit, now=means.clock.now)
        self._body = body
        content_type = response.headers.get(hdrs.CONTENT_TYPE, "")
        if response.status == _OK:
            return self._cut(body)
        if not is_multipart(content_type):
            return self._take_one(body)
        boundary = parse_boundary(content_type)
        if boundary is None:
            raise body.malformed("sends parts without saying what is between them")
        return MultipartFeed(body, Multipart(boundary), self._check)

    def _cut(self, body: PartsBody) -> Feed:
        """The whole, from which the parts are cut."""
        self._note_size(body, body.response.content_length)
        limits = self._client.means.options.limits
        self._spans = check_ranges(self._spans, self.size, limit=limits.parts)
        ends = [0, *(span.end or 0 for span in self._spans)]
        passed = sum(span.start - end for span, end in zip(self._spans, ends, strict=False))
        if passed > limits.discard:
            message = (
                f"{redact(body.response.url)} sends the whole blob for parts of it, of which "
                f"{passed} bytes would be passed over; read it as a whole"
            )
            raise UnsupportedOperationError(message)
        return StretchFeed(body, 0)

    def _take_one(self, body: PartsBody) -> Feed:
        """One part by itself, which is fine if there should be one."""
        given = parse_content_range(body.response.headers.getall(hdrs.CONTENT_RANGE, ()))
        if given is None or len(self._spans) != 1:
            raise body.malformed("does not say which parts it sends")
        self._spans = (self._check(body, given, self._spans[0]),)
        if body.response.content_length not in {None, given.end - given.start}:
            raise body.malformed("announces two different lengths")
        return StretchFeed(body, given.start)

    def _check(self, body: PartsBody, given: ContentRange, span: Span) -> Span:
        """Make sure that a range is the one asked for.

        Returns:
            The range, its end known.
        """
        self._note_size(body, given.total)
        end = span.end
        if self.size is not None:
            end = self.size if end is None else min(end, self.size)
        if given.start != span.start or given.end != (end or given.end):
            raise body.malformed("sends another range than the one asked for")
        return Span(given.start, given.end)

    def _note_size(self, body: PartsBody, size: int | None) -> None:
        if self.size is None:
            self.size = size
        elif size not in {None, self.size}:
            place = redact(body.response.url)
            message = f"{place} announces {size} bytes where {self.size} were promised"
            raise SizeMismatchError(message, expected=self.size, actual=size)

    def _hang_up(self) -> None:
        self._feed = self._current = None
        if self._body is not None:
            self._body.close()
        response, self._response = self._response, None
        if response is not None:
            response.close()
        if self._holds_place:
            self._holds_place = False
            self._client.limiter.bodies.release()
