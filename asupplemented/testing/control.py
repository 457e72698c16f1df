"""Scripts, a log and counters for sources without a network."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from asupplemented.errors import (
    BlobNotFoundError,
    ForbiddenError,
    ImageNotFoundError,
    LimitExceededError,
    ManifestNotFoundError,
    NetworkError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    TruncatedError,
    UnauthorizedError,
    UnexpectedStatusError,
)
from asupplemented.limits import MAX_MANIFEST
from asupplemented.testing.exchange import Pause, Request
from asupplemented.testing.recorder import Recorder
from asupplemented.testing.steps import sit_out, take_steps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from contextlib import ExitStack

    from asupplemented.errors import RegistryError
    from asupplemented.testing.exchange import Answer
    from asupplemented.testing.steps import Sleep, Step

__all__ = ("Raise", "SourceControl", "check_status", "take_content")

_ERRORS: Final[Mapping[int, type[RegistryError]]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    429: TooManyRequestsError,
}


@dataclass(frozen=True)
class Raise:
    """The source raises an error after some bytes of the body. Not for servers.

    Args:
        error: Makes a new error each time; an error class works, too.
        after: Bytes of the body before the error; None for an error in place of an answer.
    """

    error: Callable[[], Exception]
    after: int | None = None

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return answer.with_pause(Pause(at=self.after, wait=self._fail))

    async def _fail(self) -> None:
        raise self.error()


class SourceControl(Recorder):
    """The scripts and the log of sources. Several sources may share one.

    Requests are logged and scripted as those of a `FakeRegistry`, with these paths: ``/open``,
    ``/manifests/default``, ``/manifests/DIGEST``, ``/blobs/DIGEST``, ``/signatures/default``,
    ``/signatures/DIGEST`` and ``/close``. A ``Range`` header has the range of a blob. A `Status`
    becomes the error that a registry's would; `Cut` becomes a `TruncatedError`, or with "rst" a
    `NetworkError`.

    Args:
        sleep: Sleeps for a number of seconds.

    Attributes:
        sources_opened: Sources that were opened.
        sources_closed: Sources that were closed.
        bodies_opened: Blobs that were entered without an error.
        bodies_closed: Blobs that were left.
    """

    def __init__(self, *, sleep: Sleep = asyncio.sleep) -> None:
        super().__init__()
        self._sleep = sleep
        self.sources_opened = 0
        self.sources_closed = 0
        self.bodies_opened = 0
        self.bodies_closed = 0

    @property
    def left_open(self) -> int:
        """Sources and bodies that are open now."""
        opened = self.sources_opened + self.bodies_opened
        return opened - self.sources_closed - self.bodies_closed

    async def ask(self, path: str, read: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer to a request for a path, read and scripted, and received whole.

        Raises:
            SupplementedError: The answer is an error, is truncated, or is larger than a manifest
                may be.
        """
        request = Request("GET", path, ())
        with self._counted(request):
            answer = self._revise(await read(), request)
            body = bytearray()
            for step in take_content(answer):
                if isinstance(step, Pause):
                    await self.pause(step, len(body))
                else:
                    body += step
                if len(body) > MAX_MANIFEST:
                    message = f"the manifest has more than {MAX_MANIFEST} bytes"
                    raise LimitExceededError(message, limit=MAX_MANIFEST)
            check_status(answer, path)
            return replace(answer, body=bytes(body))

    async def begin(
        self, request: Request, read: Callable[[], Awaitable[Answer]], stack: ExitStack
    ) -> Answer:
        """The answer to a request; `read` makes the correct one.

        It is sent in chunks: the request is in flight until `stack` is left.
        """
        stack.enter_context(self._counted(request))
        return self._revise(await read(), request)

    async def pause(self, pause: Pause, received: int) -> None:
        """Wait as a pause says.

        Args:
            pause: The pause.
            received: Bytes of the body so far.

        Raises:
            TruncatedError: The pause ends the answer like a closed connection.
            NetworkError: The pause ends the answer like a reset connection.
        """
        await sit_out(pause, self._sleep)
        if pause.end == "fin":
            raise TruncatedError("the source stopped early", received=received)
        if pause.end == "rst":
            raise NetworkError("the source broke off", received=received)

    def note_source(self, *, opened: bool) -> None:
        """Count a source that was opened or closed."""
        self.sources_opened += opened
        self.sources_closed += not opened
        self._pulse()

    def note_body(self, *, opened: bool) -> None:
        """Count a body that was opened or closed."""
        self.bodies_opened += opened
        self.bodies_closed += not opened
        self._pulse()


def check_status(answer: Answer, path: str) -> None:
    """Raise the error for the status of an answer, unless it is a success.

    Args:
        answer: The answer.
        path: The path of the request.
    """
    if answer.status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        return
    if answer.status == HTTPStatus.NOT_FOUND:
        raise _miss(path)
    message = f"the source answered {answer.status}"
    kind = _ERRORS.get(answer.status, UnexpectedStatusError)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = ServerError
    delay = answer.header("Retry-After") or ""
    retry_after = float(delay) if delay.isdecimal() else None
    raise kind(message, status=answer.status, retry_after=retry_after)


def _miss(path: str) -> NotFoundError:
    _, kind, *rest = path.split("/")
    if kind == "blobs":
        return BlobNotFoundError("the source does not hold this blob", digest=rest[0])
    if kind == "manifests" and rest != ["default"]:
        return ManifestNotFoundError("the source does not hold this manifest", digest=rest[0])
    return ImageNotFoundError("there is no image here")


def take_content(answer: Answer) -> Iterator[Step]:
    """The steps of an answer without framing; the first one that is not a pause is empty."""
    return take_steps(replace(answer, framing="length"))
