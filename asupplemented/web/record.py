"""What hooks are told of one request, and which requests run; kept only where there are hooks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.abc import ResourceKey
from asupplemented.errors import NameUnknownError, SupplementedError
from asupplemented.events import RequestServed
from asupplemented.web.request import (
    BlobTarget,
    ManifestTarget,
    Ping,
    ReferrersTarget,
    Refusal,
    TagsTarget,
)

if TYPE_CHECKING:
    from asupplemented.abc import BlobStream, Context
    from asupplemented.events import CacheUse, Route
    from asupplemented.web.request import Repository, Request, Target

__all__ = ("Record", "RunningRequest", "running_requests")

NO_ANSWER: Final = 499
"""The status of a request whose client left before there was one, as in the logs of nginx."""

_ROUTES: Final[dict[type[object], Route]] = {
    Ping: "base",
    ManifestTarget: "manifest",
    BlobTarget: "blob",
    TagsTarget: "tags",
    ReferrersTarget: "referrers",
    Refusal: "other",
}


_RUNNING: Final = ResourceKey["dict[Record, None]"]("requests that are being answered")


class RunningRequest(NamedTuple):
    """A request that is being answered."""

    name: str | None
    """The repository, with its registry if the client named one."""
    reference: str | None
    """Tag or digest."""
    client: str | None
    """The address of the client."""
    source: str | None
    """The reference of what serves the bytes now, as text; None until something does."""
    cache: CacheUse
    sent: int
    """Bytes of the body."""
    size: int | None
    """Bytes of the whole body, None until that is known."""
    seconds: float
    """Since the request."""


class Record:
    """One request, from its beginning to the end of its answer.

    Attributes:
        target: What it asks for.
        principal: The client, once it was authenticated.
        source: The reference of what served the last bytes.
        cache: How the cache was used.
        stream: What the blob is read from, None until it is open.
        size: Bytes of the body, None until the answer is known.
    """

    __slots__ = (
        "_began",
        "_complete",
        "_end",
        "_error",
        "_first_byte",
        "_known",
        "_loop",
        "_request",
        "_running",
        "_sent",
        "cache",
        "principal",
        "size",
        "source",
        "stream",
        "target",
    )

    def __init__(self, request: Request) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._end: float | None = None
        self._first_byte: float | None = None
        self._sent = 0
        self._complete = False
        self._error: str | None = None
        self._known = True
        """Whether the name may be one of the catalog."""
        self.target: Target | Refusal | None = None
        self.principal: str | None = None
        self.source: str | None = None
        self.cache: CacheUse = ""
        self.stream: BlobStream | None = None
        self.size: int | None = None
        self._running: dict[Record, None] = {}
        """The records of the session that run."""

    def begin(self, session: Context) -> None:
        """Have the request counted among those that run.

        Raises:
            ClosedError: The session is closed.
        """
        self._running = session.resource(_RUNNING, dict[Record, None])
        self._running[self] = None

    def add_sent(self, size: int) -> None:
        """Bytes of the body were sent."""
        if size and self._first_byte is None:
            self._first_byte = self._loop.time() - self._began
        self._sent += size

    def finish(self) -> None:
        """The answer was sent."""
        self._complete, self._end = True, self._loop.time()

    def fail(self, error: BaseException) -> None:
        """The request is answered with an error, or its answer is cut.

        A client that leaves is no error.
        """
        self._known = not isinstance(error, NameUnknownError)
        left = isinstance(error, asyncio.CancelledError | ConnectionError)
        if isinstance(error, SupplementedError) or not left:
            self._error = type(error).__name__

    @property
    def _repository(self) -> Repository | None:
        target = self.target
        return None if target is None or isinstance(target, Ping | Refusal) else target.repository

    @property
    def _reference(self) -> str | None:
        """The tag or digest."""
        match self.target:
            case ManifestTarget() as target:
                return target.reference
            case BlobTarget() | ReferrersTarget() as target:
                return target.digest
            case _:
                return None

    def look(self) -> RunningRequest:
        """What is done for the request now."""
        repository, stream = self._repository, self.stream
        name = None if repository is None else repository.name
        if repository is not None and repository.registry is not None:
            name = f"{repository.registry}/{name}"
        return RunningRequest(
            name=name,
            reference=self._reference,
            client=self._request.client,
            source=self.source if stream is None else stream.reference,
            cache=self.cache if stream is None else stream.cache_use,
            sent=self._sent,
            size=self.size,
            seconds=self._loop.time() - self._began,
        )

    def end(self, status: int | None) -> RequestServed:
        """The event, once the request is over.

        Args:
            status: The status of the answer, None if there was none.
        """
        self._running.pop(self, None)
        request, repository = self._request, self._repository
        return RequestServed(
            method=request.method,
            route=_ROUTES.get(type(self.target), "other"),
            registry=repository.registry if repository is not None and self._known else None,
            name=None if repository is None else repository.name,
            reference=self._reference,
            status=NO_ANSWER if status is None else status,
            sent=self._sent,
            seconds=(self._loop.time() if self._end is None else self._end) - self._began,
            first_byte=self._first_byte,
            source=self.source,
            cache=self.cache,
            principal=self.principal,
            client=request.client,
            complete=self._complete,
            error=self._error,
            scheme=request.scheme,
        )


def running_requests(session: Context) -> list[RunningRequest]:
    """The requests that are being answered with a session, the oldest first.

    They are known if the session has hooks.
    """
    return [record.look() for record in session.resource(_RUNNING, dict[Record, None])]
