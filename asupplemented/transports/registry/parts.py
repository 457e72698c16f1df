"""Several ranges of a blob in one request (rules PART-01 to PART-05).

A server responds to it in one of three ways. It sends ``multipart/byteranges``, which a
`MultipartRangeReader` takes apart; one range, if only one was asked for; or the whole blob. In
both latter cases a `SingleRangeReader` cuts the ranges from one run of bytes.

Parts are pulled: `HttpParts` is an iterator of parts, each part an iterator of bytes. When the
next part is taken, unread bytes of the one before are skipped, so no part waits for the reader of
another one (rule PART-05).
"""

from __future__ import annotations

from functools import partial
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
)
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.blobs import REFUSED_RANGES, HttpBody
from asupplemented.transports.registry.bodies import TimedBody, find_encoding, is_delimited
from asupplemented.transports.registry.byteranges import (
    ContentRange,
    Multipart,
    format_ranges,
    is_multipart,
    parse_boundary,
    parse_content_range,
)
from asupplemented.transports.registry.error_response import Target
from asupplemented.transports.registry.request import OK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import aiohttp

    from asupplemented.model.descriptor import Descriptor
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.request import RequestContext

__all__ = (
    "ByteRange",
    "HttpPart",
    "HttpParts",
    "MultipartRangeReader",
    "PartsBody",
    "RangeReader",
    "SingleRangeReader",
    "check_ranges",
)

T = TypeVar("T")

_OK: Final = 200
_PARTIAL: Final = 206
_STATUSES: Final = frozenset((_OK, _PARTIAL, *REFUSED_RANGES))


class ByteRange(NamedTuple):
    """A range that is wanted, ``[start, end)``; None is the end of a blob of unknown size."""

    start: int
    end: int | None


def check_ranges(
    ranges: Sequence[tuple[int, int | None]], size: int | None, *, limit: int
) -> tuple[ByteRange, ...]:
    """The ranges to ask for, within the blob (rule PART-01).

    Args:
        ranges: As the caller gave them.
        size: Bytes of the blob, None if unknown.
        limit: The most ranges.

    Raises:
        RangeError: There are none, or they are empty, overlap, are not sorted, or are outside.
        LimitExceededError: There are too many.
    """
    if len(ranges) > limit:
        message = f"more than {limit} ranges at once; ask for some of them later"
        raise LimitExceededError(message, limit=limit)
    checked: list[ByteRange] = []
    reached: int | None = 0
    for start, end in ranges:
        if reached is None or start < reached or (end is not None and end <= start):
            message = f"the range from {start} to {end} is empty, or not behind the one before"
            raise RangeError(message)
        if size is not None and start >= size:
            message = f"the range starts at {start}, and the blob has {size} bytes"
            raise RangeError(message)
        last = end if size is None else min(size, size if end is None else end)
        checked.append(ByteRange(start, last))
        reached = end
    if not checked:
        message = "no ranges of the blob are asked for"
        raise RangeError(message)
    return tuple(checked)


class PartsBody(TimedBody):
    """The body that parts come in."""

    __slots__ = ()

    def malformed(self, fault: str) -> MalformedResponseError:
        """The error for a response that is not as it should be."""
        place = redact(self.response.url)
        return MalformedResponseError(
            f"{place} {fault}",
            status=self.response.status,
            url=place,
            received=self.received or None,
        )

    def truncated(self) -> TruncatedError:
        """The error for a body that ends too early."""
        message = f"the parts from {redact(self.response.url)} broke off"
        return TruncatedError(message, received=self.received)


class RangeReader(Protocol):
    """Reads ranges from a body, one after another."""

    async def begin(self, wanted: ByteRange) -> ByteRange:
        """Skip the rest of the range before, and go to the next one.

        Returns:
            The range that comes; its end is None if it is unknown.
        """
        ...

    async def read(self) -> bytes:
        """The next bytes of the range, none at its end."""
        ...

    async def finish(self) -> None:
        """Make sure that there are no more ranges."""
        ...


class SingleRangeReader:
    """Cuts ranges from one run of bytes.

    Args:
        body: The bytes.
        position: Offset in the blob of the first one.
    """

    def __init__(self, body: PartsBody, position: int) -> None:
        self._body = body
        self._position = position
        self._rest = b""
        self._end: int | None = position

    async def begin(self, wanted: ByteRange) -> ByteRange:
        while self._position < wanted.start:
            if not await self._take(wanted.start):
                raise self._body.truncated()
        self._end = wanted.end
        return wanted

    async def read(self) -> bytes:
        if self._position == self._end:
            return b""
        chunk = await self._take(self._end)
        # A range without an end is cut off unnoticed, unless the body says where it ends.
        if not chunk and (self._end is not None or not is_delimited(self._body.response)):
            raise self._body.truncated()
        return chunk

    async def _take(self, end: int | None) -> bytes:
        """Bytes before an offset, as many as are there; none at the end of the body."""
        data = self._rest or await self._body.read()
        size = None if end is None else end - self._position
        taken, self._rest = data[:size], b"" if size is None else data[size:]
        self._position += len(taken)
        return taken

    async def finish(self) -> None:
        """Ignore what comes after the last range: it was not asked for."""


class MultipartRangeReader:
    """Reads the parts of ``multipart/byteranges``.

    Args:
        body: The bytes.
        parser: Takes them apart.
        check: Makes sure that a part has the range that was asked for.
    """

    def __init__(
        self,
        body: PartsBody,
        parser: Multipart,
        check: Callable[[PartsBody, ContentRange, ByteRange], ByteRange],
    ) -> None:
        self._body = body
        self._parser = parser
        self._check = check
        self._left = 0
        self._ended = False

    async def begin(self, wanted: ByteRange) -> ByteRange:
        found = await self._find_next()
        if found is None:
            raise self._body.malformed("sends fewer parts than were asked for")
        self._left = found.end - found.start
        return self._check(self._body, found, wanted)

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
        """The next event of the parser, None at the end of all parts."""
        while True:
            event = self._parse()
            if event is not None or self._parser.ended:
                return event
            if self._ended:
                raise self._body.truncated()
            chunk = await self._body.read()
            if chunk:
                self._parser.feed(chunk)
            else:
                self._ended = True
                self._parser.finish()

    def _parse(self) -> ContentRange | bytes | None:
        try:
            return self._parser.advance()
        except ValueError as error:
            if self._ended:
                raise self._body.truncated() from None
            raise self._body.malformed(f"sends parts that {error}") from None


class HttpPart:
    """One range of a blob. It can be read until the next one is taken.

    Attributes:
        start: Offset of its first byte.
        end: Offset behind its last byte; None if it goes to the end of a blob of unknown size.
    """

    __slots__ = ("_parts", "end", "start")

    def __init__(self, parts: HttpParts, byte_range: ByteRange) -> None:
        self._parts = parts
        self.start, self.end = byte_range

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


class HttpParts(HttpBody):
    """One attempt to read ranges of a blob. It is not resumed (rule PART-05).

    Args:
        client: The registry.
        repository: The path of the repository.
        blob: Its digest is valid; its size counts, if it is known.
        ranges: See `Source.open_parts`.
        request_context: The reference that it is for.

    Raises:
        RangeError: The ranges are none, not sorted, or outside of the blob.
        LimitExceededError: There are too many of them.

    Attributes:
        size: Bytes of the whole blob, None if unknown; valid once entered.
    """

    __slots__ = ("_body", "_current", "_ranges", "_reader", "_taken", "size")

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        blob: Descriptor,
        ranges: Sequence[tuple[int, int | None]],
        *,
        request_context: RequestContext,
    ) -> None:
        super().__init__(
            client, repository, blob.digest, expected=blob.size, request_context=request_context
        )
        with request_context.locating(blob.digest):
            limit = client.deps.options.limits.parts
            self._ranges = check_ranges(ranges, blob.size, limit=limit)
        self._body: PartsBody | None = None
        self._reader: RangeReader | None = None
        self._current: HttpPart | None = None
        self._taken = 0
        self.size = blob.size

    async def _start(self) -> None:
        headers = CIMultiDict({hdrs.ACCEPT: "*/*", hdrs.RANGE: format_ranges(self._ranges)})
        target = Target(f"parts of blob {self._digest}", BlobNotFoundError, self._digest)
        request = self._make_request(target, headers, _STATUSES)
        with self._request_context.locating(self._digest):
            self._response = await self._client.send(request, self._request_context)
            if self._response.status in REFUSED_RANGES:
                self._response.close()
                headers = CIMultiDict({hdrs.ACCEPT: "*/*"})
                request = self._make_request(target, headers, OK)
                self._response = await self._client.send(request, self._request_context)
            self._reader = self._choose_reader(self._response)

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
        if self._taken == len(self._ranges):
            await self._guard(self._get_reader().finish)
            raise StopAsyncIteration
        begin = partial(self._get_reader().begin, self._ranges[self._taken])
        byte_range = await self._guard(begin)
        self._taken += 1
        self._current = HttpPart(self, byte_range)
        return self._current

    async def read(self, part: HttpPart) -> bytes:
        """The next bytes of a part, none at its end; called by the part."""
        if part is not self._current:
            message = "a part is read before the next one is taken"
            raise ClosedError(message, digest=self._digest)
        return await self._guard(self._get_reader().read)

    def _get_reader(self) -> RangeReader:
        if self._reader is None:
            message = "parts are read after they were entered, until they are left"
            raise ClosedError(message, digest=self._digest)
        return self._reader

    async def _guard(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something with a slot; a failure closes the response."""
        slot = self._slot
        try:
            with (
                self._client.secrets.scrubbing(),
                self._request_context.locating(self._digest),
            ):
                if slot is not None and not slot.resume():
                    await slot.regain()
                return await work()
        except BaseException:
            self._close()
            raise
        finally:
            if slot is not None:
                slot.rest()

    def _choose_reader(self, response: aiohttp.ClientResponse) -> RangeReader:
        """The reader for a response, by its head (rules PART-02 to PART-04)."""
        if find_encoding(response) is not None and self.size is None:
            place = redact(response.url)
            message = f"{place} sends an encoded response, and nothing tells whether it is right"
            raise MalformedResponseError(message, status=response.status, url=place)
        deps = self._client.deps
        limit = deps.options.limits.chunk
        read = partial(response.content.read, limit)
        body = PartsBody(response, deps.timeouts, read=read, now=deps.clock.now)
        self._body = body
        content_type = response.headers.get(hdrs.CONTENT_TYPE, "")
        if response.status == _OK:
            return self._read_whole_blob(body)
        if not is_multipart(content_type):
            return self._read_one_range(body)
        boundary = parse_boundary(content_type)
        if boundary is None:
            raise body.malformed("sends parts without naming the boundary between them")
        return MultipartRangeReader(body, Multipart(boundary), self._check)

    def _read_whole_blob(self, body: PartsBody) -> RangeReader:
        """Cut the ranges from the whole blob, unless too many bytes would be skipped."""
        self._note_size(body, body.response.content_length)
        limits = self._client.deps.options.limits
        self._ranges = check_ranges(self._ranges, self.size, limit=limits.parts)
        ends = [0, *(each.end or 0 for each in self._ranges)]
        skipped = sum(each.start - end for each, end in zip(self._ranges, ends, strict=False))
        if skipped > limits.discard:
            message = (
                f"{redact(body.response.url)} sends the whole blob for ranges of it, of which "
                f"{skipped} bytes would be skipped; read it as a whole"
            )
            raise UnsupportedOperationError(message)
        return SingleRangeReader(body, 0)

    def _read_one_range(self, body: PartsBody) -> RangeReader:
        """Read a single range, which is right only if one was asked for."""
        given = parse_content_range(body.response.headers.getall(hdrs.CONTENT_RANGE, ()))
        if given is None or len(self._ranges) != 1:
            raise body.malformed("does not say which parts it sends")
        self._ranges = (self._check(body, given, self._ranges[0]),)
        if body.response.content_length not in {None, given.end - given.start}:
            raise body.malformed("announces two different lengths")
        return SingleRangeReader(body, given.start)

    def _check(self, body: PartsBody, given: ContentRange, wanted: ByteRange) -> ByteRange:
        """Make sure that a range is the one asked for.

        Returns:
            The range, its end known.
        """
        self._note_size(body, given.total)
        end = wanted.end
        if self.size is not None:
            end = self.size if end is None else min(end, self.size)
        if given.start != wanted.start or given.end != (end or given.end):
            raise body.malformed("sends another range than the one asked for")
        return ByteRange(given.start, given.end)

    def _note_size(self, body: PartsBody, size: int | None) -> None:
        if self.size is None:
            self.size = size
        elif size not in {None, self.size}:
            place = redact(body.response.url)
            message = f"{place} announces {size} bytes, and the blob should have {self.size}"
            raise SizeMismatchError(message, expected=self.size, actual=size)

    def _close(self) -> None:
        self._reader = self._current = None
        if self._body is not None:
            self._body.close()
        super()._close()
