"""What the hooks are told of one request; made only where there are hooks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

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
    from asupplemented.events import CacheUse, Route
    from asupplemented.web.request import Request, Target

__all__ = ("Record",)

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


class Record:
    """One request, from its beginning to the end of its answer.

    Attributes:
        target: What it asks for.
        principal: The client, once it was authenticated.
        source: The reference of what served the last bytes.
        cache: How the cache was used.
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
        "_sent",
        "cache",
        "principal",
        "source",
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

    def to_event(self, status: int | None) -> RequestServed:
        """The event, once the request is over.

        Args:
            status: The status of the answer, None if there was none.
        """
        target, request = self.target, self._request
        repository = (
            None if target is None or isinstance(target, Ping | Refusal) else (target.repository)
        )
        reference = None
        if isinstance(target, ManifestTarget):
            reference = target.reference
        elif isinstance(target, BlobTarget | ReferrersTarget):
            reference = target.digest
        return RequestServed(
            method=request.method,
            route=_ROUTES.get(type(target), "other"),
            registry=repository.registry if repository is not None and self._known else None,
            name=None if repository is None else repository.name,
            reference=reference,
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
