"""What happens in sources without a network, and what they were asked."""

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
    """An error of the source itself, once so many bytes are out. Not for servers.

    Args:
        error: Makes a new error each time; a class of errors does as well.
        after: Bytes of the body before it; None for an error in place of an answer.
    """

    error: Callable[[], Exception]
    after: int | None = None

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return answer.with_pause(Pause(at=self.after, wait=self._fail))

    async def _fail(self) -> None:
        raise self.error()


class SourceControl(Recorder):
    """What happens in sources, and what they were asked. Several may share one.

    Requests are logged and scripted as those of a `FakeRegistry`, with these paths: ``/open``,
    ``/manifests/default``, ``/manifests/DIGEST``, ``/blobs/DIGEST``, ``/signatures/default``,
    ``/signatures/DIGEST`` and ``/close``. A ``Range`` header tells which range of a blob was asked
    for. A `Status` becomes the error that a registry's would; `Cut` becomes a `TruncatedError`,
    or with "rst" a `NetworkError`.

    Args:
        sleep: What pauses by the clock.

    Attributes:
        sources_opened: Sources that were opened.
        sources_closed: Sources that were closed.
        bodies_opened: Blobs that were entered with success.
        bodies_closed: Those that were left.
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
        """Log a request, read its answer, have the script change it, and receive that whole.

        Raises:
            SupplementedError: The answer is an error, breaks off, or is larger than a manifest
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
        """Do the same for a body that is received bit by bit: it counts until `stack` is left."""
        stack.enter_context(self._counted(request))
        return self._revise(await read(), request)

    async def pause(self, pause: Pause, received: int) -> None:
        """Sit out a pause.

        Args:
            pause: What to wait for.
            received: Bytes of the body so far.

        Raises:
            TruncatedError: It ends the answer as a closed connection would.
            NetworkError: It ends the answer as a reset would.
        """
        await sit_out(pause, self._sleep)
        if pause.end == "fin":
            raise TruncatedError("the source stopped early", received=received)
        if pause.end == "rst":
            raise NetworkError("the source broke off", received=received)

    def note_source(self, *, opened: bool) -> None:
        """Count a source that was opened, or closed."""
        self.sources_opened += opened
        self.sources_closed += not opened
        self._pulse()

    def note_body(self, *, opened: bool) -> None:
        """Count a body that was opened, or closed."""
        self.bodies_opened += opened
        self.bodies_closed += not opened
        self._pulse()


def check_status(answer: Answer, path: str) -> None:
    """Raise the error that the status of an answer stands for, where there is one.

    Args:
        answer: What was answered.
        path: What was asked for.
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
    """The steps of an answer that has no framing; the first that is no pause is empty."""
    return take_steps(replace(answer, framing="length"))
