"""Bodies of blobs: one request, one body, as it comes from the wire.

Blobs that are somewhere else: the URLs in descriptors (rules BLOB-01, BLOB-02, RES-08).

Layers that must not be distributed are not pushed; their descriptors say where to get them.
Such a URL comes from whoever wrote the manifest, so nobody follows it unasked.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from aiohttp import hdrs
from multidict import CIMultiDict

from asupplemented.aio.retry import retry
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
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.bodies import TimedBody, check_encoding, read_chunk, refuse
from asupplemented.transports.registry.byteranges import (
    format_range,
    parse_content_range,
    parse_unsatisfied_range,
)
from asupplemented.transports.registry.client import OK, Errand
from asupplemented.transports.registry.error_response import Inquiry
from asupplemented.transports.registry.patience import judge
from asupplemented.transports.registry.redirects import Courier, Parcel, parse_url

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import aiohttp
    from yarl import URL

    from asupplemented.aio.retry import RetryPolicy
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.options import RegistryOptions
    from asupplemented.transports.registry.request import Caller

__all__ = ("ExternalBlob", "HttpBlob", "find_urls")

_OK: Final = 200
_PARTIAL: Final = 206
_UNSATISFIED: Final = 416
_GOOD_FOR_RANGES: Final = frozenset((_OK, _PARTIAL, _UNSATISFIED))
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{0,1024}"')


class HttpBlob:
    """One attempt to read a blob, or a range of it. Entering it asks, leaving it hangs up.

    It takes one of the places that a registry has for bodies (rule RET-07), from the moment of
    asking until it is left. A server may send the whole for a range: `start` tells. It has to if
    `etag` is given and it has something else by now (rule RES-06).

    Args:
        client: The registry.
        repository: The path of the repository.
        digest: The blob, a valid digest.
        start: Offset of the first byte that is wanted.
        end: Offset behind the last one, None for the end of the blob.
        etag: What the bytes before `start` came with, if they did; heeded if it is a strong
            validator.
        caller: Who it is for.
    """

    __slots__ = (
        "_caller",
        "_client",
        "_digest",
        "_empty",
        "_end",
        "_entered",
        "_expected",
        "_hasty",
        "_holds_place",
        "_limit",
        "_received",
        "_repository",
        "_response",
        "_self_timed",
        "_start",
        "_timed",
        "_validator",
        "etag",
        "size",
        "start",
    )

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        digest: str,
        *,
        start: int,
        end: int | None,
        etag: str | None = None,
        caller: Caller,
    ) -> None:
        self._client = client
        self._repository = repository
        self._digest = digest
        self._start = start
        self._end = end
        self._validator = _find_strong(etag)
        self._caller = caller
        self._response: aiohttp.ClientResponse | None = None
        self._entered = False
        self._holds_place = False
        self._hasty = False
        self._self_timed = True
        self._timed: TimedBody | None = None
        self._empty = start == end
        self._limit = client.means.options.limits.chunk
        self._received = 0
        self._expected: int | None = None
        """Bytes of the body, None if the server does not say."""
        self.start = start
        """Offset of the first byte that will come."""
        self.size: int | None = None
        """Bytes of the whole blob as the server claims, None if it does not."""
        self.etag: str | None = None
        """A strong validator, or None."""

    @property
    def resumable(self) -> bool:
        """Whether the registry may be asked for the rest."""
        return True

    def hurry(self) -> None:
        """Fail soon, for others may serve the blob as well; see ``RegistryOptions.haste``."""
        self._hasty = True

    def leave_timing(self) -> None:
        """Leave it to the reader to end waits that last too long."""
        self._self_timed = False

    async def __aenter__(self) -> Self:
        if self._entered:
            message = "a body is entered once; open the blob again for another one"
            raise UsageError(message)
        self._entered = True
        await self._client.limiter.bodies.acquire()
        self._holds_place = True
        if self._empty:
            return self
        try:
            response = self._response = await self._ask()
            self._inspect(response)
            if self._self_timed:
                means = self._client.means
                self._timed = TimedBody(
                    response, means.timeouts, limit=self._limit, now=means.clock.now
                )
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

    async def __anext__(self) -> bytes:
        """The next bytes.

        Raises:
            TruncatedError: The body broke off, or ended before its announced size.
            NetworkError: The connection broke.
            SourceTimeoutError: It came too slowly, unless the reader sees to that.
            MalformedResponseError: There are more bytes than were announced.
            ClosedError: The body was left already.
        """
        response = self._response
        if self._empty and self._holds_place:
            raise StopAsyncIteration
        if response is None:
            raise ClosedError("the body of a blob is read after it was entered, until it is left")
        if self._timed is not None:
            chunk = await self._timed.read()
        else:
            chunk = await read_chunk(response, self._limit, self._received)
        self._received += len(chunk)
        self._check_length(response, ended=not chunk)
        if chunk:
            return chunk
        raise StopAsyncIteration

    async def _ask(self) -> aiohttp.ClientResponse:
        """Get the head of the answer."""
        return await self._client.send(self._errand(), self._caller)

    def _errand(self) -> Errand:
        headers = CIMultiDict({"Accept": "*/*"})
        ranged = bool(self._start) or self._end is not None
        if ranged:
            headers["Range"] = format_range(self._start, self._end)
            if self._validator is not None:
                headers["If-Range"] = self._validator
        return Errand(
            f"/v2/{self._repository}/blobs/{self._digest}",
            f"repository:{self._repository}:pull",
            Inquiry(f"blob {self._digest}", BlobNotFoundError, self._digest),
            headers,
            _GOOD_FOR_RANGES if ranged else OK,
            patience=self._patience,
        )

    @property
    def _patience(self) -> RetryPolicy:
        options = self._client.means.options
        return options.haste if self._hasty else options.retry

    def _inspect(self, response: aiohttp.ClientResponse) -> None:
        """Take from the head of an answer what it says of the body (rules RES-05, RES-06)."""
        check_encoding(response)
        self.etag = _find_strong(response.headers.get("ETag"))
        if response.status == _UNSATISFIED:
            self._take_nothing(response)
        elif response.status == _PARTIAL:
            self._take_part(response)
        else:
            self.start = 0
            self.size = self._expected = response.content_length

    def _take_part(self, response: aiohttp.ClientResponse) -> None:
        # Parts of different things are not put together (RFC 9110, section 15.3.7.3).
        if self._validator not in {None, response.headers.get("ETag", self._validator)}:
            raise self._malformed(response, "sends a part of something else than was begun")
        given = parse_content_range(response.headers.getall("Content-Range", ()))
        if given is None or given.start != self._start:
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

    def _take_nothing(self, response: aiohttp.ClientResponse) -> None:
        """Range not satisfiable: an empty rest is fine, and the only one that is."""
        total = parse_unsatisfied_range(response.headers.getall("Content-Range", ()))
        if total is None or total != self._start:
            known = "" if total is None else f" of {total} bytes"
            message = f"no byte {self._start} in blob {self._digest}{known}"
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

    def _hang_up(self) -> None:
        response, self._response = self._response, None
        if self._timed is not None:
            self._timed.close()
        if response is not None:
            response.close()
        if self._holds_place:
            self._holds_place = False
            self._client.limiter.bodies.release()


def _find_strong(etag: str | None) -> str | None:
    """A validator that is strong and can be sent back, or None."""
    return etag if etag is not None and _STRONG_ETAG.fullmatch(etag) else None


def find_urls(blob: Descriptor, options: RegistryOptions) -> tuple[URL, ...]:
    """Where a blob may be read from besides its registry, in order of preference.

    Returns:
        Nothing unless the options allow it and the blob is a layer that must not be
        distributed. URLs that are neither http nor https, or hold a user, are left out.
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
    """One attempt to read a whole blob: from its registry, or if that lacks it from elsewhere.

    Elsewhere nothing is told of us: no credentials, whatever is answered (rule CRED-03). An
    address has to be as public as the registry's, and https is not left for http. A body from
    there has no validator, since there is no going on with it in the middle (rule RES-08).

    Args:
        client: The registry.
        repository: The path of the repository.
        digest: The blob, a valid digest.
        urls: Where else it may be, in order of preference.
        caller: Who it is for.
    """

    __slots__ = ("_abroad", "_urls")

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        digest: str,
        *,
        urls: Sequence[URL],
        caller: Caller,
    ) -> None:
        super().__init__(client, repository, digest, start=0, end=None, caller=caller)
        self._urls = urls
        self._abroad = False

    async def _ask(self) -> aiohttp.ClientResponse:
        try:
            return await super()._ask()
        except BlobNotFoundError as error:
            missing = error
        self._abroad = True
        return await self._ask_elsewhere(missing)

    @property
    def resumable(self) -> bool:
        """Whether it came from the registry."""
        return not self._abroad

    def _inspect(self, response: aiohttp.ClientResponse) -> None:
        super()._inspect(response)
        if self._abroad:
            self.etag = None

    async def _ask_elsewhere(self, missing: BlobNotFoundError) -> aiohttp.ClientResponse:
        """Ask one after another.

        Raises:
            SupplementedError: The first failure that is more than a miss, else `missing`.
        """
        means = self._client.means
        site = await self._client.reach(self._caller)
        home = replace(site.home, insecure=False)
        courier = Courier(means.connections, means.options, home)
        failures: list[SupplementedError] = []
        for url in self._urls:
            try:
                return await self._ask_at(url, courier)
            except SupplementedError as error:
                failures.append(error)
        hard = [each for each in failures if not isinstance(each, NotFoundError)]
        verdict = hard[0] if hard else missing
        for each in (missing, *failures):
            if each is not verdict:
                verdict.add_note(f"another place failed as well: {each}")
        raise verdict

    async def _ask_at(self, url: URL, courier: Courier) -> aiohttp.ClientResponse:
        means = self._client.means
        return await retry(
            partial(self._try_at, url, courier),
            judge=judge,
            policy=self._patience,
            clock=means.clock,
            notify=self._caller.report_retry,
        )

    async def _try_at(self, url: URL, courier: Courier) -> aiohttp.ClientResponse:
        headers = CIMultiDict({hdrs.ACCEPT: "*/*"})
        response, _ = await courier.deliver(Parcel(url, headers, headers))
        if response.status == _OK:
            return response
        inquiry = Inquiry(f"blob {self._digest}", BlobNotFoundError, self._digest)
        raise await refuse(response, inquiry, self._client.means)
