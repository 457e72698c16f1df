"""One image in several registries: mirrors, then the registry itself (rules CONF-13 to CONF-20).

Each registry that may have the image is an endpoint. A request goes to one endpoint after the
other until one succeeds; the order is decided anew for each request:

1. The endpoint that served the default manifest comes first, then the others in the order of the
   configuration.
2. An endpoint that failed lately (`asupplemented.blobs.health`) comes after those that did not.

Other programs commit themselves to the first endpoint that has the default manifest. Here an
instance, a blob or a signature that one endpoint cannot give is read from the next one.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from asupplemented.abc import RawManifest
from asupplemented.aio.breaker import BreakerState, ReportOnce
from asupplemented.aio.threads import run_by_size
from asupplemented.blobs.health import health_of
from asupplemented.errors import (
    ClosedError,
    NotFoundError,
    RangeError,
    SourceTimeoutError,
    SupplementedError,
    UnsupportedOperationError,
    UsageError,
)
from asupplemented.hostconfig.registries import join_failures
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.manifest import Manifest, UnreadManifest
from asupplemented.transports.registry.adapter import enter
from asupplemented.transports.registry.blobs import HttpBlob
from asupplemented.transports.registry.failures import is_busy
from asupplemented.transports.registry.parts import HttpParts
from asupplemented.transports.registry.request import ClientDeps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from types import TracebackType

    from asupplemented.abc import Context
    from asupplemented.hostconfig.registries import ImageLocation
    from asupplemented.model.digest import Digest
    from asupplemented.model.name import ImageName
    from asupplemented.model.signature import Signature
    from asupplemented.transports.registry.adapter import RegistryAdapter
    from asupplemented.transports.registry.parts import HttpPart
    from asupplemented.transports.registry.request import RequestContext

__all__ = ("MirrorBlob", "MirrorEndpoint", "MirrorParts", "MirroredAdapter")

T = TypeVar("T")

_MISSES = (NotFoundError, RangeError, UnsupportedOperationError)
"""Answers of an endpoint that works."""


class MirrorEndpoint:
    """One registry that may have the image. It has no client before the first request.

    Args:
        candidate: The image there, and how the registry is reached.
        request_context: The reference that requests are made for.
        context: The session.
    """

    __slots__ = (
        "_adapter",
        "_context",
        "_open",
        "_patient",
        "_trouble",
        "candidate",
        "origin",
        "request_context",
    )

    def __init__(
        self, candidate: ImageLocation, request_context: RequestContext, context: Context
    ) -> None:
        self.candidate = candidate
        self.request_context = request_context
        self._context = context
        self._adapter: RegistryAdapter | None = None
        self._trouble = ReportOnce()
        self._open = True
        self._patient: MirrorEndpoint | None = None
        self.origin = self
        """The endpoint that this one stands for, see `be_patient`."""

    def be_patient(self) -> MirrorEndpoint:
        """The same endpoint for requests that no other registry can serve, so they are retried."""
        if self._patient is None:
            request_context = self.request_context._replace(has_alternatives=False)
            self._patient = MirrorEndpoint(self.candidate, request_context, self._context)
            self._patient.origin = self
        return self._patient

    @property
    def reference(self) -> str:
        """The image as it is called in this registry."""
        return self.request_context.reference

    async def enter(self) -> RegistryAdapter:
        """The adapter that reads from this registry.

        Raises:
            ConfigurationError: The registry is blocked, or its configuration cannot be used.
            ClosedError: The endpoint was closed meanwhile.
        """
        if self._adapter is None:
            await self._keep(await enter(self.candidate, self.request_context, self._context))
        if not self._open or self._adapter is None:
            raise ClosedError("the source was closed; open the reference again")
        return self._adapter

    def open_blob(
        self, blob: Descriptor, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> MirrorBlob:
        """Prepare to read ``[start, end)`` of a blob from this registry."""
        return MirrorBlob(self, blob, start, end, etag)

    def scrub(self, error: SupplementedError) -> None:
        """See `RegistryAdapter.scrub`."""
        if self._adapter is not None:
            self._adapter.scrub(error)
        if self._patient is not None:
            self._patient.scrub(error)

    def report_success(self) -> None:
        """A request succeeded: the next failure is worth a warning again."""
        self._trouble.end()

    def report_failure(self, error: SupplementedError) -> None:
        """Warn that a request failed, once, if another endpoint can be asked."""
        if self.request_context.has_alternatives and not isinstance(error, _MISSES):
            message = f"{self.reference} failed, so the next place is asked: {error.message}"
            self._trouble.report(self.request_context.warn, message)

    async def _keep(self, made: RegistryAdapter) -> None:
        """Keep an adapter, unless another task was faster or has closed the endpoint."""
        if self._open and self._adapter is None:
            self._adapter = made
        else:
            await made.aclose()

    async def aclose(self) -> None:
        """Give the client back."""
        self._open = False
        if self._adapter is not None:
            await self._adapter.aclose()
        if self._patient is not None:
            await self._patient.aclose()


class MirroredAdapter:
    """One image in several registries, raw.

    Args:
        name: The image as the caller named it.
        endpoints: The mirrors, then the registry itself.
        context: The session.
    """

    __slots__ = (
        "_context",
        "_default",
        "_endpoints",
        "_first",
        "_health",
        "_limit",
        "_name",
        "_open",
    )

    def __init__(
        self, name: ImageName, endpoints: Iterable[MirrorEndpoint], context: Context
    ) -> None:
        self._name = name
        self._context = context
        self._endpoints = tuple(endpoints)
        self._health = health_of(context)
        self._limit = ClientDeps.of(context).options.limits.mirror
        self._default: Manifest | None = None
        self._first: MirrorEndpoint | None = None
        """The endpoint that served the default manifest."""
        self._open = True

    @property
    def default_descriptor(self) -> Descriptor | None:
        """The digest of the reference, None if it has only a tag."""
        digest = self._name.digest
        return None if digest is None else Descriptor(digest=digest)

    async def fetch_manifest(self, instance: Digest | None) -> RawManifest:
        """Read the default manifest (None), or that of a digest, from the first success.

        Bytes that do not have the digest, and a default that is no manifest, are failures like any
        other.

        Raises:
            SupplementedError: No endpoint has it: the error of the registry itself, which
                repeats those of the mirrors (rule CONF-15).
            ClosedError: The source was closed.
        """
        if instance is None:
            manifest = await self._read_default()
            return RawManifest(manifest.raw, manifest.media_type)
        return await self._first_success(lambda endpoint: self._read_instance(endpoint, instance))

    def blob_places(self) -> tuple[MirrorEndpoint, ...]:
        """The endpoints to read blobs from, best first.

        Raises:
            ClosedError: The source was closed.
        """
        return self._ranked()

    def open_parts(self, blob: Descriptor, ranges: Sequence[tuple[int, int | None]]) -> MirrorParts:
        """Prepare to read ranges of a blob from the first endpoint that has them.

        Raises:
            ClosedError: The source was closed.
        """
        self._check_open()

        async def enter(endpoint: MirrorEndpoint) -> HttpParts:
            parts = (await endpoint.enter()).open_parts(blob, ranges)
            return await parts.__aenter__()

        return MirrorParts(lambda: self._first_success(enter))

    async def fetch_signatures(self, instance: Digest | None) -> tuple[Signature, ...]:
        """The signatures of the default manifest (None), or of an instance.

        They are those of the endpoint that is asked, by the name of the image there
        (rule CONF-18). That it has none is an answer. A failure says nothing of the registry:
        signatures may be on a server beside it.

        Raises:
            SupplementedError: See `Signatures.fetch`.
            ClosedError: The source was closed.
        """
        digest = instance or await self._find_default()

        async def fetch(endpoint: MirrorEndpoint) -> tuple[Signature, ...]:
            return await (await endpoint.enter()).fetch_signatures(digest)

        return await self._first_success(fetch, recorded=False)

    async def fetch_referrers(
        self, subject: Digest, artifact_type: str | None
    ) -> tuple[Descriptor, ...]:
        """The referrers of a manifest, from the first endpoint that has any.

        Mirrors often keep no such lists, so an empty one is believed of the last endpoint only.

        Raises:
            SupplementedError: See `asupplemented.transports.registry.referrers`.
            ClosedError: The source was closed.
        """

        async def fetch(endpoint: MirrorEndpoint) -> tuple[Descriptor, ...]:
            adapter = await endpoint.enter()
            found = await adapter.fetch_referrers(subject, artifact_type)
            if not found and endpoint.request_context.has_alternatives:
                message = f"{endpoint.reference} has no referrers of {subject}"
                raise NotFoundError(message, digest=subject)
            return found

        return await self._first_success(fetch)

    def scrub(self, error: SupplementedError) -> None:
        """See `RegistryAdapter.scrub`."""
        for endpoint in self._endpoints:
            endpoint.scrub(error)

    async def aclose(self) -> None:
        """Give all clients back."""
        self._open = False
        for endpoint in self._endpoints:
            await endpoint.aclose()

    async def _read_default(self) -> Manifest:
        """Read the default manifest. Blocked endpoints take part, for the error (rule CONF-17)."""

        async def read(endpoint: MirrorEndpoint) -> Manifest:
            raw = await self._fetch_in_time(endpoint, None)
            verify = partial(Manifest.verified, raw.raw, raw.media_type, self._name.digest)
            manifest = await run_by_size(self._context, len(raw.raw), verify)
            self._first = endpoint.origin
            return manifest

        self._default = manifest = await self._first_success(read, blocked=True)
        return manifest

    async def _read_instance(self, endpoint: MirrorEndpoint, instance: Digest) -> RawManifest:
        """Read the bytes of an instance; its media type is for the list that names it to say."""
        raw = await self._fetch_in_time(endpoint, instance)
        verify = partial(UnreadManifest.verified, raw.raw, raw.media_type, instance)
        await run_by_size(self._context, len(raw.raw), verify)
        return raw

    async def _fetch_in_time(
        self, endpoint: MirrorEndpoint, instance: Digest | None
    ) -> RawManifest:
        """Fetch a manifest; an endpoint that is not the last one must begin to answer in time."""
        limit = self._limit if endpoint.request_context.has_alternatives else None
        try:
            async with asyncio.timeout(limit) as deadline:
                adapter = await endpoint.enter()
                return await adapter.fetch_manifest(instance, lambda: deadline.reschedule(None))
        except SupplementedError:
            raise
        except TimeoutError as error:
            message = f"{endpoint.reference} did not begin to answer within {limit} s"
            raise SourceTimeoutError(message) from error

    async def _find_default(self) -> Digest:
        """The digest of what was read, so that all agrees while a tag moves (HTTP-09, SIG-03)."""
        named = self._name.digest
        if named is not None and named.algorithm == "sha256":
            return named
        return (self._default or await self._read_default()).digest

    async def _first_success(
        self,
        ask: Callable[[MirrorEndpoint], Awaitable[T]],
        *,
        blocked: bool = False,
        recorded: bool = True,
    ) -> T:
        """Ask one endpoint after the other until one succeeds.

        A caller that is cancelled ends it: no other endpoint is asked then (rule CONF-16).

        Args:
            ask: Makes a request to one endpoint.
            blocked: Whether blocked endpoints take part.
            recorded: Whether the outcome says something of the endpoint.

        Raises:
            UsageError: The source was closed.
            SupplementedError: No endpoint succeeded: the error of the registry itself, which
                repeats those of its mirrors (rule CONF-15).
        """
        failures: list[tuple[ImageLocation, SupplementedError]] = []
        busy: list[MirrorEndpoint] = []
        endpoints = list(self._ranked(blocked=blocked))
        while endpoints:
            endpoint = endpoints.pop(0)
            try:
                with self._health.recording(endpoint.reference) if recorded else nullcontext():
                    answer = await ask(endpoint)
            except UsageError:
                raise
            except SupplementedError as error:
                endpoint.scrub(error)
                endpoint.report_failure(error)
                failures.append((endpoint.candidate, error))
                if is_busy(error) and endpoint.request_context.has_alternatives:
                    busy.append(endpoint.be_patient())
            else:
                endpoint.report_success()
                return answer
            if not endpoints and not _has_answered(failures):
                # The registry itself failed, so the pauses of its mirrors are worth waiting for.
                endpoints, busy = busy, []
        failures.sort(key=lambda failure: not failure[0].is_mirror)
        raise join_failures(failures)

    def _ranked(self, *, blocked: bool = False) -> tuple[MirrorEndpoint, ...]:
        """The endpoints in the order in which they are asked.

        Blocked ones are left out, unless `blocked` is set or all are (rule CONF-17).
        """
        self._check_open()
        allowed = [each for each in self._endpoints if each.candidate.blocked is None]
        endpoints = self._endpoints if blocked else allowed or self._endpoints
        return tuple(sorted(endpoints, key=self._rank))

    def _rank(self, endpoint: MirrorEndpoint) -> tuple[bool, bool]:
        failed = self._health.state(endpoint.reference) is BreakerState.OPEN
        return failed, endpoint is not self._first

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError("the source was closed; open the reference again")


def _has_answered(failures: Iterable[tuple[ImageLocation, SupplementedError]]) -> bool:
    """Whether the registry itself says that it has not what was asked for."""
    return any(isinstance(error, _MISSES) for where, error in failures if not where.is_mirror)


class _Body(Protocol):
    """A scope that is entered before it is read."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


BodyT = TypeVar("BodyT", bound=_Body)


class _Deferred(Generic[BodyT]):
    """A body whose adapter is not known before it is entered.

    Args:
        opener: Gives the body, entered.
    """

    __slots__ = ("_body", "_opener")

    def __init__(self, opener: Callable[[], Awaitable[BodyT]]) -> None:
        self._opener: Callable[[], Awaitable[BodyT]] | None = opener
        self._body: BodyT | None = None

    async def __aenter__(self) -> Self:
        opener, self._opener = self._opener, None
        if opener is None:
            message = "a body is entered once; ask for it again for another one"
            raise UsageError(message)
        self._body = await opener()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._body is not None:
            await self._body.__aexit__(exc_type, exc, traceback)

    @property
    def body(self) -> BodyT:
        """The body.

        Raises:
            UsageError: It was not entered.
        """
        if self._body is None:
            message = "the body is read after it was entered"
            raise UsageError(message)
        return self._body


class MirrorBlob(_Deferred[HttpBlob]):
    """One attempt to read a blob, or a range of it, from one endpoint.

    Args:
        endpoint: The endpoint.
        blob: Its digest is valid.
        start: Offset of the first byte that is wanted.
        end: Offset behind the last one, None for the end of the blob.
        etag: The strong validator that the beginning came with, from this endpoint.
    """

    __slots__ = ("_hasty",)

    def __init__(
        self,
        endpoint: MirrorEndpoint,
        blob: Descriptor,
        start: int,
        end: int | None,
        etag: str | None,
    ) -> None:
        async def enter() -> HttpBlob:
            body = (await endpoint.enter()).open_blob(blob, start, end, etag)
            if self._hasty:
                body.hurry()
            return await body.__aenter__()

        super().__init__(enter)
        self._hasty = False

    def hurry(self) -> None:
        """See `HttpBlob.hurry`."""
        self._hasty = True

    @property
    def resumable(self) -> bool:
        """See `HttpBlob.resumable`."""
        return self.body.resumable

    @property
    def start(self) -> int:
        return self.body.start

    @property
    def size(self) -> int | None:
        return self.body.size

    @property
    def etag(self) -> str | None:
        return self.body.etag

    @property
    def encoding(self) -> str | None:
        return self.body.encoding

    @property
    def delimited(self) -> bool:
        return self.body.delimited

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes; see `HttpBlob`."""
        return await self.body.__anext__()


class MirrorParts(_Deferred[HttpParts]):
    """One attempt to read ranges of a blob, from the first endpoint that has them."""

    __slots__ = ()

    @property
    def size(self) -> int | None:
        return self.body.size

    def __aiter__(self) -> AsyncIterator[HttpPart]:
        return self.body.__aiter__()
