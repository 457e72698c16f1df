"""Bodies of blobs: one request and its body, from the registry or from a URL of the descriptor.

`HttpBody` is the life of such a request: entering it waits for a slot and sends the request,
leaving it closes the response and frees the slot. `HttpBlob` reads a blob or one range of it.

`ExternalBlob` reads layers that must not be distributed (rules BLOB-01, BLOB-02, RES-08).
Registries often do not hold them, and their descriptors say where to get them. The author of the
manifest chose those URLs, so they are followed only if the options allow it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from asupplemented.aio.retry import retry
from asupplemented.aio.timers import time_limit
from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    MalformedResponseError,
    NotFoundError,
    RangeError,
    SupplementedError,
    TruncatedError,
    UsageError,
)
from asupplemented.model.media_type import NON_DISTRIBUTABLE
from asupplemented.remedies import EXTERNAL_URLS, advise
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.bodies import (
    TimedBody,
    find_encoding,
    is_delimited,
    read_chunk,
    refuse,
)
from asupplemented.transports.registry.byteranges import (
    format_range,
    parse_content_range,
    parse_unsatisfied_range,
)
from asupplemented.transports.registry.error_response import Target
from asupplemented.transports.registry.failures import should_retry, should_retry_in_haste
from asupplemented.transports.registry.redirects import parse_url
from asupplemented.transports.registry.request import OK, Request
from asupplemented.transports.registry.takeover import take_over
from asupplemented.transports.registry.tokens import pull_scope

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import aiohttp

    from asupplemented.aio.slots import Slot
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.transports.registry.bodies import Reading
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.options import RegistryOptions
    from asupplemented.transports.registry.redirects import RedirectClient
    from asupplemented.transports.registry.request import RequestContext
    from asupplemented.transports.registry.takeover import BodyReceiver

__all__ = ("ExternalBlob", "HttpBlob", "HttpBody", "advise_external_urls", "find_urls")

_OK: Final = 200
_PARTIAL: Final = 206
_UNSATISFIED: Final = 416
REFUSED_RANGES: Final = frozenset((400, _UNSATISFIED, 501))
"""Statuses of servers that serve no ranges, or not those that were asked for (rule RES-05)."""
_RANGE_STATUSES: Final = frozenset((_OK, _PARTIAL, *REFUSED_RANGES))
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{0,1024}"')


class HttpBody(ABC):
    """One request for (parts of) a blob. Entering it sends the request, leaving it closes.

    It has one of the registry's slots for bodies (rule RET-07) from before the request is sent
    until it is left, and may lose it while it is not read.

    Args:
        client: The registry.
        repository: The path of the repository.
        digest: The blob, a valid digest.
        expected: Bytes of the body as its descriptor says, None if unknown.
        request_context: The reference that it is for.
    """

    __slots__ = (
        "_client",
        "_digest",
        "_entered",
        "_repository",
        "_request_context",
        "_response",
        "_slot",
        "_weight",
    )

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        digest: str,
        *,
        expected: int | None = None,
        request_context: RequestContext,
    ) -> None:
        self._client = client
        self._weight = client.limiter.bodies.weigh(expected)
        self._repository = repository
        self._digest = digest
        self._request_context = request_context
        self._response: aiohttp.ClientResponse | None = None
        self._entered = False
        self._slot: Slot | None = None

    async def __aenter__(self) -> Self:
        if self._entered:
            message = "a body is entered once; open the blob again for another one"
            raise UsageError(message)
        self._entered = True
        self._slot = await self._client.limiter.bodies.acquire(self._weight)
        limit = self._client.deps.timeouts.open
        try:
            with self._client.secrets.scrubbing():
                async with time_limit(limit, f"opening blob {self._digest}"):
                    await self._start()
        except BaseException:
            self._close()
            raise
        self._slot.rest()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def close_at_once(self) -> bool:
        """Leave the body, which takes no waiting; see `close_all`."""
        self._close()
        return True

    @abstractmethod
    async def _start(self) -> None:
        """Send the request, keep the response, and check its head."""

    def _make_request(
        self, target: Target, headers: CIMultiDict[str], statuses: frozenset[int]
    ) -> Request:
        return Request(
            URL(f"/v2/{self._repository}/blobs/{self._digest}", encoded=True),
            target,
            headers,
            scope=pull_scope(self._repository),
            statuses=statuses,
            weight=self._weight,
        )

    def _close(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()
        if self._slot is not None:
            self._slot.release()
            self._slot = None


class HttpBlob(HttpBody):
    """One attempt to read a blob, or a range of it.

    A server may send the whole blob for a range; then `start` is 0. It has to do so if `etag` is
    given and the blob is a different one by now (rule RES-06).

    Args:
        client: The registry.
        repository: The path of the repository.
        digest: The blob, a valid digest.
        start: Offset of the first byte that is wanted.
        end: Offset behind the last one, None for the end of the blob.
        etag: The validator of the bytes before `start`, None if unknown. It is used if it is a
            strong one.
        expected: Bytes of the body as its descriptor says, None if unknown.
        request_context: The reference that it is for.

    Attributes:
        start: Offset of the first byte that the server sends.
        size: Bytes of the whole blob as the server claims, None if it does not say.
        etag: A strong validator, or None.
        encoding: The ``Content-Encoding`` of the response; the digest shows whether it is true.
        delimited: Whether the body says where it ends.
    """

    __slots__ = (
        "_advice",
        "_empty",
        "_end",
        "_expected",
        "_hurried",
        "_limit",
        "_reading",
        "_received",
        "_receiver",
        "_self_timed",
        "_start_wanted",
        "_timed",
        "_validator",
        "delimited",
        "encoding",
        "etag",
        "size",
        "start",
    )

    def __init__(  # noqa: PLR0913 - given by name
        self,
        client: RegistryClient,
        repository: str,
        digest: str,
        *,
        start: int,
        end: int | None,
        etag: str | None = None,
        expected: int | None = None,
        request_context: RequestContext,
        advice: str = "",
    ) -> None:
        super().__init__(
            client, repository, digest, expected=expected, request_context=request_context
        )
        self._advice = advice
        self._start_wanted = start
        self._end = end
        self._validator = _find_strong(etag)
        self._hurried = False
        self._self_timed = True
        self._timed: TimedBody | None = None
        self._reading: Reading | None = None
        self._receiver: BodyReceiver | None = None
        self._limit = client.deps.options.limits.chunk
        self._empty = start == end
        self._received = 0
        self._expected: int | None = None
        """Bytes of the body, None if the server does not say."""
        self.start = start
        self.size: int | None = None
        self.etag: str | None = None
        self.encoding: str | None = None
        self.delimited = True

    @property
    def resumable(self) -> bool:
        """Whether the registry can be asked for the rest."""
        return True

    def hurry(self) -> None:
        """Use ``RegistryOptions.haste``: another source can serve the blob, so fail fast."""
        self._hurried = True

    def leave_timing(self) -> None:
        """Do not time the body: its reader ends waits that last too long."""
        self._self_timed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes.

        Raises:
            TruncatedError: The body broke off, or ended before its announced size.
            NetworkError: The connection broke.
            SourceTimeoutError: It came too slowly, unless its reader times it; or it lost its slot
                while it was not read, and none became free.
            MalformedResponseError: There are more bytes than were announced.
            ClosedError: The body was not entered, or was left.
        """
        slot = self._slot
        if self._empty and slot is not None:
            raise StopAsyncIteration
        if self._response is None or slot is None:
            raise ClosedError("the body of a blob is read after it was entered, until it is left")
        if not slot.resume():
            await slot.regain()
        try:
            chunk = await self._read(self._response)
        except SupplementedError as error:
            self._client.secrets.scrub(error)
            raise
        finally:
            slot.rest()
        if chunk:
            return chunk
        raise StopAsyncIteration

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        read = self._reading or self._begin(response)
        if self._timed is not None:
            chunk = await self._timed.read()
        else:
            chunk = await read_chunk(read, response.url, self._received)
        self._received += len(chunk)
        self._check_length(response, ended=not chunk)
        return chunk

    async def _start(self) -> None:
        if self._empty:
            return
        response = self._response = await self._send()
        self._inspect(response)

    def _begin(self, response: aiohttp.ClientResponse) -> Reading:
        """Decide how the body is received, when it is first read, and who times it."""
        deps = self._client.deps
        least = deps.options.take_over
        if (
            least is not None
            and deps.connections.owned
            and (response.content_length or 0) >= least
            and self.encoding is None
        ):
            self._receiver = take_over(response, self._limit)
        if self._receiver is not None:
            read: Reading = self._receiver.read
        else:
            read = partial(response.content.read, self._limit)
        self._reading = read
        if self._self_timed:
            self._timed = TimedBody(response, deps.timeouts, read=read, now=deps.clock.now)
        return read

    def _close(self) -> None:
        if self._timed is not None:
            self._timed.close()
        if self._receiver is not None:
            self._receiver.close()
        super()._close()

    async def _send(self) -> aiohttp.ClientResponse:
        """Get the head of the response."""
        headers = CIMultiDict({hdrs.ACCEPT: "*/*"})
        ranged = bool(self._start_wanted) or self._end is not None
        if ranged:
            headers["Range"] = format_range(self._start_wanted, self._end)
            if self._validator is not None:
                headers["If-Range"] = self._validator
        statuses = _RANGE_STATUSES if ranged else OK
        request = self._make_request(self._target, headers, statuses)
        # Without haste it is the last one to ask, whatever other registries there are.
        request_context = self._request_context._replace(
            has_alternatives=self._hurried and self._request_context.has_alternatives
        )
        send = partial(self._client.send, request_context=request_context)
        response = await send(request._replace(hurried=self._hurried))
        if not self._is_refused(response):
            return response
        # The whole is asked for in place of the range, and its beginning skipped (rule RES-05).
        if self._start_wanted > self._client.deps.options.limits.discard:
            raise await refuse(response, request.target, self._client.deps)
        response.close()
        headers = CIMultiDict({hdrs.ACCEPT: "*/*"})
        return await send(self._make_request(self._target, headers, OK))

    def _is_refused(self, response: aiohttp.ClientResponse) -> bool:
        """Whether a server does not serve ranges, or not this one although it exists."""
        if response.status != _UNSATISFIED:
            return response.status in REFUSED_RANGES
        total = parse_unsatisfied_range(response.headers.getall("Content-Range", ()))
        return total is None or total > self._start_wanted

    @property
    def _target(self) -> Target:
        return Target(f"blob {self._digest}", BlobNotFoundError, self._digest, self._advice)

    def _inspect(self, response: aiohttp.ClientResponse) -> None:
        """Take from the head of a response what it says of the body (rules RES-05, RES-06)."""
        self.encoding = find_encoding(response)
        self.delimited = is_delimited(response)
        self.etag = _find_strong(response.headers.get("ETag"))
        if response.status == _UNSATISFIED:
            self._inspect_unsatisfied(response)
        elif response.status == _PARTIAL:
            self._inspect_partial(response)
        else:
            self.start = 0
            self.size = self._expected = response.content_length

    def _inspect_partial(self, response: aiohttp.ClientResponse) -> None:
        # Parts of different representations must not be combined (RFC 9110, section 15.3.7.3).
        if self._validator not in {None, response.headers.get("ETag", self._validator)}:
            raise self._malformed(response, "sends a part of another version of the blob")
        given = parse_content_range(response.headers.getall("Content-Range", ()))
        if given is None or given.start != self._start_wanted:
            raise self._malformed(response, "does not say which range it sends")
        wanted = given.total if self._end is None else self._end
        if given.total is not None and wanted is not None:
            wanted = min(wanted, given.total)
        if wanted is not None and given.end != wanted:
            raise self._malformed(response, "sends another range than the one asked for")
        self.size = given.total
        self._expected = given.end - given.start
        if response.content_length not in {None, self._expected}:
            raise self._malformed(response, "announces two different lengths")

    def _inspect_unsatisfied(self, response: aiohttp.ClientResponse) -> None:
        """Accept 416 only if the blob ends at `start`, so that the range is empty."""
        total = parse_unsatisfied_range(response.headers.getall("Content-Range", ()))
        if total is None or total != self._start_wanted:
            known = "" if total is None else f" of {total} bytes"
            message = f"no byte {self._start_wanted} in blob {self._digest}{known}"
            raise RangeError(message, digest=self._digest)
        self.size = total
        self._empty = True

    def _check_length(self, response: aiohttp.ClientResponse, *, ended: bool) -> None:
        if self._expected is None:
            return
        if self._received > self._expected:
            raise self._malformed(response, "sends more bytes than it announced")
        if ended and self._received < self._expected:
            message = f"{redact(response.url)} sent {self._received} bytes of {self._expected}"
            raise TruncatedError(message, digest=self._digest, received=self._received)

    def _malformed(self, response: aiohttp.ClientResponse, fault: str) -> MalformedResponseError:
        place = redact(response.url)
        return MalformedResponseError(
            f"{place} {fault}",
            status=response.status,
            url=place,
            digest=self._digest,
            received=self._received or None,
        )


def _find_strong(etag: str | None) -> str | None:
    """The validator if it is strong and can be sent back, else None."""
    return etag if etag is not None and _STRONG_ETAG.fullmatch(etag) else None


def advise_external_urls(blob: Descriptor, options: RegistryOptions) -> str:
    """The advice to allow external URLs, if only the options keep a blob from having them."""
    if options.allow_external_urls or not blob.urls:
        return ""
    if not find_urls(blob, replace(options, allow_external_urls=True)):
        return ""
    return advise("the image names other URLs of it: allow them with {}", EXTERNAL_URLS)


def find_urls(blob: Descriptor, options: RegistryOptions) -> tuple[URL, ...]:
    """The URLs besides its registry that a blob may be read from, in order of preference.

    Returns:
        Empty unless the options allow it and the blob is a layer that must not be distributed.
        URLs that are neither http nor https, or hold a user, are left out.
    """
    if not options.allow_external_urls or blob.media_type not in NON_DISTRIBUTABLE:
        return ()
    urls = (_read(text) for text in blob.urls)
    return tuple(url for url in urls if url is not None)[: options.limits.external_urls]


def _read(text: str) -> URL | None:
    try:
        return parse_url(text)
    except ValueError:
        return None


class ExternalBlob(HttpBlob):
    """One attempt to read a whole blob: from its registry, or from URLs if that lacks it.

    Other servers get no credentials, whatever they respond (rule CRED-03). Their addresses have
    to be as public as the registry's, and https is not left for http. A body from there is
    not resumed (rule RES-08), so it has no validator.

    Args:
        client: The registry.
        repository: The path of the repository.
        digest: The blob, a valid digest.
        urls: Where else it may be, in order of preference.
        expected: Bytes of the blob as its descriptor says, None if unknown.
        request_context: The reference that it is for.
    """

    __slots__ = ("_external", "_urls")

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        digest: str,
        *,
        urls: Sequence[URL],
        expected: int | None = None,
        request_context: RequestContext,
    ) -> None:
        super().__init__(
            client,
            repository,
            digest,
            start=0,
            end=None,
            expected=expected,
            request_context=request_context,
        )
        self._urls = urls
        self._external = False

    async def _send(self) -> aiohttp.ClientResponse:
        try:
            return await super()._send()
        except BlobNotFoundError as error:
            missing = error
        self._external = True
        return await self._send_to_urls(missing)

    @property
    def resumable(self) -> bool:
        """Whether it came from the registry."""
        return not self._external

    def _inspect(self, response: aiohttp.ClientResponse) -> None:
        super()._inspect(response)
        if self._external:
            self.etag = None

    async def _send_to_urls(self, missing: BlobNotFoundError) -> aiohttp.ClientResponse:
        """Try the URLs in order.

        Raises:
            SupplementedError: The first failure other than "not found", else `missing`.
        """
        found = await self._client.find(self._request_context)
        redirect_client = found.without_insecure()
        failures: list[SupplementedError] = []
        for number, url in enumerate(self._urls, 1):
            try:
                hurried = self._hurried or number < len(self._urls)
                return await self._send_to(url, redirect_client, hurried=hurried)
            except SupplementedError as error:
                failures.append(error)
        hard = [each for each in failures if not isinstance(each, NotFoundError)]
        raised = hard[0] if hard else missing
        for each in (missing, *failures):
            if each is not raised:
                raised.add_note(f"another place failed as well: {each}")
        raise raised

    async def _send_to(
        self, url: URL, redirect_client: RedirectClient, *, hurried: bool
    ) -> aiohttp.ClientResponse:
        options = self._client.deps.options
        return await retry(
            partial(self._send_to_once, url, redirect_client),
            judge=should_retry_in_haste if hurried else should_retry,
            policy=options.haste if hurried else options.retry,
            clock=self._client.deps.clock,
            notify=self._request_context.report_retry,
        )

    async def _send_to_once(
        self, url: URL, redirect_client: RedirectClient
    ) -> aiohttp.ClientResponse:
        request = Request(url, self._target, CIMultiDict({hdrs.ACCEPT: "*/*"}))
        response, _ = await redirect_client.send(request)
        if response.status == _OK:
            return response
        raise await refuse(response, request.target, self._client.deps)
