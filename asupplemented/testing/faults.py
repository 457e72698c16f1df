"""Everything that can be wrong in an answer, as small frozen values.

Each is a function from an answer to another one, and can be combined with others in one turn of
a script, where they are applied in order: put what changes the body before what counts its
bytes. A function of your own with the same signature does as
well. How an answer is sent, or fails to be, is the matter of `asupplemented.testing.delivery`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from asupplemented.testing.exchange import fail
from asupplemented.testing.images import wrap_gzip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asupplemented.testing.exchange import Answer, Request

__all__ = (
    "Body",
    "Corrupt",
    "Encoding",
    "Headers",
    "Html",
    "IgnoreRange",
    "Redirect",
    "Resize",
    "Status",
    "Unauthorized",
    "WrongRange",
)

HTML: Final = b"<!DOCTYPE html>\n<html><body><h1>Welcome to the portal</h1></body></html>\n"
CODES: Final = {
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "MANIFEST_UNKNOWN",
    405: "UNSUPPORTED",
    416: "RANGE_INVALID",
    429: "TOOMANYREQUESTS",
}


# What is answered.


@dataclass(frozen=True)
class Status:
    """Another status in place of the answer.

    Args:
        code: HTTP status.
        headers: All its headers, besides those of the framing.
        body: None for an error in the form that registries use.
    """

    code: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        new = fail(self.code, CODES.get(self.code, "UNKNOWN"), _phrase(self.code))
        new = new.with_headers(self.headers)
        if self.body is not None:
            new = replace(new, headers=tuple(self.headers.items()), body=self.body)
        return replace(new, pauses=answer.pauses, challenge=answer.challenge)


@dataclass(frozen=True)
class Unauthorized:
    """A 401 with the challenge of this registry, as if the credentials were not good enough.

    Args:
        error: "invalid_token" or "insufficient_scope", added to the challenge; or None.
        scope: Replaces the scope of the challenge, or None.
        challenge: Replaces the challenge as a whole; needed where the registry has none.
    """

    error: str | None = None
    scope: str | None = None
    challenge: str | None = None

    def __call__(self, answer: Answer, request: Request) -> Answer:
        challenge = self.challenge or answer.challenge or 'Basic realm="fake"'
        if self.scope is not None:
            challenge = f'{challenge.partition(",scope=")[0]},scope="{self.scope}"'
        if self.error is not None:
            challenge += f',error="{self.error}"'
        return Status(401, {"WWW-Authenticate": challenge})(answer, request)


@dataclass(frozen=True)
class Redirect:
    """A redirect in place of the answer.

    Args:
        to: The ``Location``, byte for byte, or a function of the request that gives it.
        code: HTTP status.
    """

    to: str | Callable[[Request], str]
    code: int = 307

    def __call__(self, answer: Answer, request: Request) -> Answer:
        location = self.to(request) if callable(self.to) else self.to
        return Status(self.code, {"Location": location}, b"")(answer, request)


@dataclass(frozen=True)
class Html:
    """A page for people in place of the answer, as captive portals give."""

    code: int = 200

    def __call__(self, answer: Answer, request: Request) -> Answer:
        return Status(self.code, {"Content-Type": "text/html"}, HTML)(answer, request)


@dataclass(frozen=True)
class Headers:
    """Other headers: a value replaces, or adds, a header; None removes it."""

    changes: Mapping[str, str | None]

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return answer.with_headers(self.changes)


# What is in the body.


@dataclass(frozen=True)
class Body:
    """Another body, with the headers as they were and a ``Content-Length`` that is true.

    Args:
        data: The new body.
        media_type: Its ``Content-Type``, None to leave that as it was.
    """

    data: bytes
    media_type: str | None = None

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        answer = replace(answer, body=self.data)
        if self.media_type is None:
            return answer
        return answer.with_headers({"Content-Type": self.media_type})


@dataclass(frozen=True)
class Corrupt:
    """One byte of the content flipped, its length unchanged.

    Args:
        at: Which byte, counted within the whole content, whichever range of it is sent. Negative
            from its end. A range without that byte stays as it was.
    """

    at: int = 0

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        whole = answer.body if answer.whole is None else answer.whole
        at = (self.at if self.at >= 0 else len(whole) + self.at) - answer.offset
        if not 0 <= at < len(answer.body):
            return answer
        flipped = bytes((answer.body[at] ^ 0xFF,))
        return replace(answer, body=answer.body[:at] + flipped + answer.body[at + 1 :])


@dataclass(frozen=True)
class Resize:
    """A body cut off, or padded with zeros, to some length, and a ``Content-Length`` to match.

    Args:
        to: Bytes; negative for so many fewer than there are.
    """

    to: int

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        size = self.to if self.to >= 0 else max(0, len(answer.body) + self.to)
        return replace(answer, body=answer.body[:size].ljust(size, b"\0"))


@dataclass(frozen=True)
class Encoding:
    """A ``Content-Encoding`` that nobody asked for. "gzip" and "deflate" do encode the body."""

    name: str = "gzip"

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        body = answer.body
        if self.name == "gzip":
            body = wrap_gzip(body)
        elif self.name == "deflate":
            body = zlib.compress(body)
        return replace(answer, body=body).with_headers({"Content-Encoding": self.name})


@dataclass(frozen=True)
class IgnoreRange:
    """The whole content with status 200, whatever range was asked for."""

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        if answer.whole is None:
            return answer
        answer = replace(answer, status=200, body=answer.whole, whole=None, offset=0)
        return answer.with_headers({"Content-Range": None})


@dataclass(frozen=True)
class WrongRange:
    """Another range than the one asked for, with a ``Content-Range`` that says so.

    Answers that are not a single range stay as they were.

    Args:
        shift: Bytes by which the start is moved towards the end; negative towards the start.
        lie: Whether ``Content-Range`` claims that it is the range asked for.
    """

    shift: int
    lie: bool = False

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        if answer.whole is None or answer.header("Content-Range") is None:
            return answer
        end, size = answer.offset + len(answer.body), len(answer.whole)
        start = min(max(0, answer.offset + self.shift), size - 1)
        body = answer.whole[start : max(end, start + 1)]
        answer = replace(answer, body=body, offset=start)
        if self.lie:
            return answer
        span = f"bytes {start}-{start + len(body) - 1}/{size}"
        return answer.with_headers({"Content-Range": span})


def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase.lower()
    except ValueError:
        return "unknown"
