"""One request from its reading to the parts of its body: what both applications share.

An exchange has three phases. Entering it authenticates, asks the catalog and opens the blob, within
one deadline; it never raises but for cancellation, since every failure is an answer. Reading it
gives the pieces of a body that must come from a stream. Leaving it frees the image and the stream,
also in the middle, when the client has gone.

The first chunk of a blob is awaited before the head goes out, so that a blob that is wrong or does
not begin is an error rather than a body without bytes (rule SRV-24). If it takes longer than the
head may, because a source is slow or a small blob is verified first, the head goes first: a client
that waits is served then, and one that is refused would ask again for the same (rule SRV-25).
"""

from __future__ import annotations

import asyncio
import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio

from asupplemented.abc import AsyncResource
from asupplemented.aio.closing import CLOSE_TIMEOUT
from asupplemented.aio.threads import run_blocking, run_opening
from asupplemented.aio.timers import WaitTimers
from asupplemented.errors import (
    BlobNotFoundError,
    ConfigurationError,
    ForbiddenError,
    ImageNotFoundError,
    LayoutError,
    NameUnknownError,
    RangeError,
    SizeMismatchError,
    SourceTimeoutError,
    SupplementedError,
    TruncatedError,
    UnauthorizedError,
)
from asupplemented.limits import BLOCK
from asupplemented.web.access import AccessRequest, Challenge, Denied
from asupplemented.web.answers import (
    BlobParts,
    answer_blob,
    answer_error,
    answer_manifest,
    answer_ping,
    answer_referrers,
    answer_refusal,
    answer_tags,
    answer_unauthorized,
    name_registry,
    tell_cache,
)
from asupplemented.web.record import Record
from asupplemented.web.request import (
    BlobTarget,
    ManifestTarget,
    Ping,
    ReferrersTarget,
    Refusal,
    TagsTarget,
    plan,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from io import FileIO
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from asupplemented.abc import BlobStream
    from asupplemented.session import Session
    from asupplemented.web.access import Authenticate
    from asupplemented.web.answers import Answer
    from asupplemented.web.contract import ServedCatalog, ServedImage
    from asupplemented.web.ranges import Span
    from asupplemented.web.request import Repository, Request, Target

__all__ = ("Exchange", "FileReader", "Limits", "RangeReader", "Service", "report")

BEGIN_WITHIN: Final = 0.9
"""The part of the time of a head in which the first chunk is awaited."""

_DENIED: Final = Refusal(403, "DENIED", "access to this repository is denied")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long clients wait, and how long the registry waits for them. All are seconds.

    Attributes:
        head: From a request to the head of its answer; 504 after that (rule SRV-25).
        stall: Within a body: after so long without a byte the source is left for the next one. It
            may be silent for half of that, for it is asked once more before it is left. The wait
            for the head of that answer is limited by `Timeouts.first_byte` of the session.
        write: After so long without a byte taken by the client the connection is cut.

    Raises:
        ConfigurationError: A limit is not above 0.
    """

    head: float = 10.0
    stall: float = 5.0
    write: float = 60.0

    def __post_init__(self) -> None:
        for name in ("head", "stall", "write"):
            value: object = getattr(self, name)
            if not isinstance(value, int | float) or not value > 0:
                message = f"limits.{name} is a number of seconds above 0, not {value!r}"
                raise ConfigurationError(message)


class Service:
    """A catalog as it is served: makes an exchange for each request."""

    __slots__ = ("_session", "authenticate", "catalog", "heads", "hide_refused", "limits")

    def __init__(
        self,
        catalog: ServedCatalog,
        session: Session,
        *,
        authenticate: Authenticate | None,
        limits: Limits,
        hide_refused: bool,
    ) -> None:
        self.catalog = catalog
        self.authenticate = authenticate
        self.limits = limits
        self.heads = WaitTimers(limits.head)
        """Limits the time of all heads with one timer."""
        self.hide_refused = hide_refused
        timeouts = session.timeouts
        stall = limits.stall / 2
        if timeouts.stall is not None:
            stall = min(stall, timeouts.stall)
        self._session = session.with_timeouts(replace(timeouts, stall=stall))

    @property
    def session(self) -> Session:
        """The session whose bodies stall no longer than the limits allow."""
        return self._session

    @property
    def names_clients(self) -> bool:
        """Whether the address of a client is of use."""
        return self.authenticate is not None or self._session.observed

    def exchange(self, request: Request) -> Exchange:
        """An exchange, to be entered."""
        return Exchange(self, request)

    async def open_file(self, path: Path) -> FileReader:
        """Open the file of a blob in a thread of the session.

        Raises:
            LayoutError: The file is gone, or cannot be read.
        """
        try:
            file = await run_opening(self._session, lambda: path.open("rb", buffering=0), _close)
        except OSError as error:
            raise LayoutError("the file of a blob cannot be opened any more") from error
        return FileReader(self._session, file)


class Exchange(AsyncResource):
    """One request and its answer.

    Attributes:
        answer: The answer, once the exchange was entered.
        path: The verified file that holds the blob, if the body is one part of a blob and there
            is such a file. It stays until the exchange is left.
        file: That file, open.
    """

    __slots__ = (
        "_due",
        "_first",
        "_image",
        "_opening",
        "_record",
        "_request",
        "_service",
        "_stream",
        "answer",
        "file",
        "path",
    )

    answer: Answer

    def __init__(self, service: Service, request: Request) -> None:
        self.path: Path | None = None
        self.file: FileReader | None = None
        self._service = service
        self._request = request
        self._opening: AbstractAsyncContextManager[ServedImage] | None = None
        self._image: ServedImage | None = None
        self._stream: BlobStream | None = None
        self._first: asyncio.Task[bytes] | None = None
        """Reads the first chunk of the stream."""
        self._record = Record(request) if service.session.observed else None
        self._due = 0.0
        """When the head is to go out, with the first chunk or without it."""

    @property
    def parts(self) -> BlobParts | None:
        """The body, if it is to be read from a blob."""
        return self.answer.body if isinstance(self.answer.body, BlobParts) else None

    async def __aenter__(self) -> Self:
        """Find the answer."""
        target = plan(self._request)
        if self._record is not None:
            self._record.target = target
        if isinstance(target, Refusal):
            self.answer = answer_refusal(self._request, target)
            return self
        try:
            if self._record is not None:
                self._record.begin(self._service.session)
            answer = await self._find_in_time(target)
        except SupplementedError as error:
            answer = self._answer_failure(error)
        except Exception as error:  # noqa: BLE001 - functions of the user may raise anything
            report("a request to the registry failed", error)
            self.fail(error)
            answer = answer_error(self._request, SupplementedError("the registry failed"))
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        if not isinstance(target, Ping):
            answer = name_registry(answer, target.repository)
        self.answer = answer
        if self._record is not None:
            self._record.size = answer.length
        return self

    async def _find_in_time(self, target: Target) -> Answer:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an exchange is entered in a task
        heads = self._service.heads
        self._due = task.get_loop().time() + BEGIN_WITHIN * self._service.limits.head
        heads.begin(task)
        before = task.cancelling()
        try:
            return await self._find(target)
        except asyncio.CancelledError:
            if heads.end(task) and task.cancelling() <= before:
                raise SourceTimeoutError("the catalog did not answer in time") from None
            raise
        finally:
            heads.end(task)

    def _answer_failure(self, error: SupplementedError) -> Answer:
        self.fail(error)
        if self._service.hide_refused and isinstance(error, UnauthorizedError | ForbiddenError):
            error = NameUnknownError("upstream refused access")
        return answer_error(self._request, error)

    async def _find(self, target: Target) -> Answer:
        request, service = self._request, self._service
        if service.authenticate is None:
            return await self._look_up(target, service.session)
        decision = await service.authenticate(_access(request, target))
        if isinstance(decision, Challenge):
            return answer_unauthorized(request, str(decision))
        if isinstance(decision, Denied):
            return answer_refusal(request, _DENIED)
        if self._record is not None:
            self._record.principal = decision.principal
        session = service.session
        if not decision.shared:
            session = session.scoped(decision.principal, credentials=decision.credentials)
        return await self._look_up(target, session)

    async def _look_up(self, target: Target, session: Session) -> Answer:
        request, catalog = self._request, self._service.catalog
        private = self._service.authenticate is not None
        match target:
            case Ping():
                return answer_ping(request)
            case ManifestTarget():
                return await self._find_manifest(target, session, private=private)
            case BlobTarget():
                return await self._find_blob(target, session, private=private)
            case TagsTarget(repository, page):
                try:
                    tags = await catalog.list_tags(
                        session, repository.name, registry=repository.registry
                    )
                except ImageNotFoundError as error:  # no member has the repository
                    raise NameUnknownError(error.message) from error
                return answer_tags(request, repository, tags, page)
            case ReferrersTarget(repository, digest, artifact_type, page):
                found = await catalog.list_referrers(
                    session,
                    repository.name,
                    digest,
                    registry=repository.registry,
                    artifact_type=artifact_type,
                )
                return answer_referrers(request, repository, digest, found, page, artifact_type)

    async def _open(
        self, session: Session, repository: Repository, reference: str, *, blob: bool = False
    ) -> ServedImage:
        opening = self._service.catalog.open(
            session, repository.name, reference, registry=repository.registry, blob=blob
        )
        self._image = image = await opening.__aenter__()
        self._opening = opening
        return image

    async def _close_image(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            await opening.__aexit__(None, None, None)

    async def _find_manifest(
        self, target: ManifestTarget, session: Session, *, private: bool
    ) -> Answer:
        image = await self._open(session, target.repository, target.reference)
        manifest = await image.get_manifest()
        origin = image.origin
        if self._record is not None and origin is not None:
            self._record.source, self._record.cache, _ = origin
        by_digest = target.digest is not None
        answer = answer_manifest(self._request, manifest, by_digest=by_digest, private=private)
        use = "stale" if image.stale else "" if origin is None else origin.cache_use
        return tell_cache(answer, use, stored=True, age=None if by_digest else image.age)

    async def _find_blob(self, target: BlobTarget, session: Session, *, private: bool) -> Answer:
        digest = target.digest
        image = await self._open(session, target.repository, digest, blob=True)
        descriptor = await image.describe_blob(digest)
        if descriptor is None:
            raise BlobNotFoundError("no image of this name has the blob", digest=digest)
        size = descriptor.size
        if size is None:
            size = await _ask_size(image, digest)
        answer = answer_blob(self._request, digest, size, private=private)
        if not isinstance(answer.body, BlobParts):
            return answer
        start, end = answer.body.parts[0].span
        stream = await self._open_stream(digest, (start, end), whole=answer.body.is_whole)
        if stream.size is not None and stream.size != size:
            message = "the blob has another size than its manifest says"
            raise SizeMismatchError(message, digest=digest, expected=size, actual=stream.size)
        if len(answer.body.parts) == 1:
            self.path = stream.take_path()
        if self.path is not None:
            # Opened before the head goes out, so that nothing can take it away after that.
            self.file = await self._service.open_file(self.path)
        elif end > start:
            await self._begin(stream)
        cache = session.cache
        if cache is None:
            return answer
        use = "hit" if self.path is not None else stream.cache_use
        return tell_cache(answer, use, stored=answer.body.is_whole or cache.fills)

    async def _open_stream(self, digest: str, span: Span, *, whole: bool) -> BlobStream:
        assert self._image is not None  # noqa: S101 - parts are made from an image
        await self._close_stream()
        start, end = span
        opened = self._image.open_blob(digest, start=start, end=None if whole else end)
        self._stream = await opened.__aenter__()
        if self._record is not None:
            self._record.stream = opened
        return opened

    async def _begin(self, stream: BlobStream) -> None:
        """Wait for the first chunk, as long as the head may wait.

        Raises:
            SupplementedError: No source serves it.
        """
        self._first = first = asyncio.ensure_future(anext(stream))
        left = self._due - asyncio.get_running_loop().time()
        await asyncio.wait((first,), timeout=max(left, 0.0))
        if first.done() and (error := first.exception()) is not None:
            raise error

    async def _close_file(self) -> None:
        if self.file is not None:
            await self.file.aclose()

    async def _close_stream(self) -> None:
        first, self._first = self._first, None
        stream, self._stream = self._stream, None
        try:
            if first is not None and not first.done():
                first.cancel()
                await asyncio.wait((first,))
        finally:
            if stream is not None:
                await stream.aclose()
        if first is not None and not first.cancelled():
            first.exception()  # A client that has gone is not told of it.

    # What hooks are told

    def add_sent(self, size: int) -> None:
        """Count bytes of the body that were sent."""
        if self._record is not None:
            self._record.add_sent(size)

    def finish(self) -> None:
        """The whole answer was sent."""
        if self._record is not None:
            self._record.finish()

    def fail(self, error: BaseException) -> None:
        """The request failed, or sending the answer did."""
        if self._record is not None:
            self._record.fail(error)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        record = self._record
        if record is None:
            return await self.aclose()
        if exc is not None:
            record.fail(exc)
        if self._stream is not None:
            record.source, record.cache = self._stream.reference, self._stream.cache_use
        try:
            await self.aclose()
        finally:
            answer: Answer | None = getattr(self, "answer", None)
            self._service.session.emit(record.end(None if answer is None else answer.status))
        return None

    # The body

    def pieces(self) -> Iterator[bytes | Span]:
        """What the body is made of: bytes as they are, and ranges to be read from the blob."""
        body = self.answer.body
        if not isinstance(body, BlobParts):
            yield body
            return
        for part in body.parts:
            if part.head:
                yield part.head
            yield part.span
        if body.tail:
            yield body.tail

    async def open_range(self, span: Span) -> RangeReader:
        """Read a range of the blob; the first one is open already.

        Raises:
            SupplementedError: No source serves it.
        """
        body = self.answer.body
        assert isinstance(body, BlobParts)  # noqa: S101 - only parts have ranges
        stream, first = self._stream, None
        if stream is None or span != body.parts[0].span:
            stream = await self._open_stream(body.digest, span, whole=False)
        else:
            first = self._first
        return RangeReader(stream, span[1] - span[0], first)

    async def aclose(self) -> None:
        """Free the stream and the image, also for a client that has gone.

        What fails is reported: the answer is out.
        """
        if self._opening is None:
            return
        cancelled: asyncio.CancelledError | None = None
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True) if self._stream else nullcontext():
            for close in (self._close_file, self._close_stream, self._close_image):
                try:
                    await close()
                except asyncio.CancelledError as error:
                    # A server may cancel the handler of a connection that it lost: our own cuts
                    # are among them.
                    cancelled = error
                except Exception as error:  # noqa: BLE001 - the other one is closed as well
                    report("closing what a client asked for failed", error)
        if cancelled is not None:
            raise cancelled


class RangeReader:
    """The chunks of one range, exactly as many bytes as were announced."""

    __slots__ = ("_first", "_left", "_stream")

    def __init__(
        self, stream: BlobStream, length: int, first: asyncio.Task[bytes] | None = None
    ) -> None:
        self._first = first
        self._stream = stream
        self._left = length

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next chunk.

        Raises:
            TruncatedError: The stream ended too soon.
            SizeMismatchError: It goes on behind the end.
            SupplementedError: It failed.
        """
        try:
            if self._first is None:
                chunk = await anext(self._stream)
            else:
                first, self._first = self._first, None
                chunk = await first
        except StopAsyncIteration:
            if self._left:
                raise TruncatedError("the blob ended before its announced size") from None
            raise
        self._left -= len(chunk)
        if self._left < 0:
            raise SizeMismatchError("the blob is longer than announced")
        return chunk


class FileReader(AsyncResource):
    """The verified file of a blob.

    Attributes:
        file: The open file.
    """

    __slots__ = ("_session", "file")

    def __init__(self, session: Session, file: FileIO) -> None:
        self._session = session
        self.file = file

    async def read(self, start: int, size: int) -> bytes:
        """Read up to `size` bytes in a thread, at most 1 MiB.

        Raises:
            TruncatedError: The file ends before `start` (rule SRV-39).
        """
        size = min(BLOCK, size)
        block = await run_blocking(self._session, os.pread, self.file.fileno(), size, start)
        if not block:
            raise TruncatedError("the file of a blob is shorter than the blob")
        return block

    async def aclose(self) -> None:
        self.file.close()


def _close(file: FileIO) -> None:
    file.close()


async def _ask_size(image: ServedImage, digest: str) -> int:
    """The size of a blob that no manifest tells, without its bytes (rule SRV-28)."""
    try:
        async with image.open_blob(digest, start=0, end=1) as stream:
            size = stream.size
    except RangeError:
        return 0  # There is no first byte.
    if size is None:
        message = "no source tells the size of this blob"
        raise TruncatedError(message, digest=digest)
    return size


_Named: TypeAlias = ManifestTarget | BlobTarget | TagsTarget | ReferrersTarget


def _access(request: Request, target: Ping | _Named) -> AccessRequest:
    if isinstance(target, Ping):
        return AccessRequest(None, None, request)
    repository = target.repository
    registry = repository.registry
    name = repository.name if registry is None else f"{registry}/{repository.name}"
    return AccessRequest(name, repository.path, request)


def report(message: str, error: Exception) -> None:
    """Tell the event loop of an error that no client is told of."""
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
