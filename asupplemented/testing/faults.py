"""Faults in the content of an answer, as small frozen values.

Each is a function from an answer to another one. One turn of a script applies several of them in
order: put faults that change the body before those that count its bytes. Functions of your own
with the same signature work, too. Faults in sending are in `asupplemented.testing.delivery`.
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


# Status and headers


@dataclass(frozen=True)
class Status:
    """Another status in place of the answer.

    Args:
        code: The HTTP status.
        headers: All headers but those of the framing.
        body: The body; None for an error document in the form of registries.
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
    """A 401 with the challenge of this registry, as if the credentials were insufficient.

    Args:
        error: "invalid_token" or "insufficient_scope" to add to the challenge; None for neither.
        scope: The scope of the challenge; None keeps it.
        challenge: The whole challenge; needed if the registry has no access control.
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
        to: The exact ``Location``, or a function that makes it of the request.
        code: The HTTP status.
    """

    to: str | Callable[[Request], str]
    code: int = 307

    def __call__(self, answer: Answer, request: Request) -> Answer:
        location = self.to(request) if callable(self.to) else self.to
        return Status(self.code, {"Location": location}, b"")(answer, request)


@dataclass(frozen=True)
class Html:
    """An HTML page with a status code in place of the answer, like that of a captive portal."""

    code: int = 200

    def __call__(self, answer: Answer, request: Request) -> Answer:
        return Status(self.code, {"Content-Type": "text/html"}, HTML)(answer, request)


@dataclass(frozen=True)
class Headers:
    """Changes of headers: a value sets a header, None removes it."""

    changes: Mapping[str, str | None]

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        return answer.with_headers(self.changes)


# Body


@dataclass(frozen=True)
class Body:
    """Another body, with the same headers and a correct ``Content-Length``.

    Args:
        data: The new body.
        media_type: Its ``Content-Type``; None keeps it.
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
    """One byte of the content flipped.

    Args:
        at: The offset of the byte in the whole content, whichever range is sent; negative from
            the end. A range without that byte is unchanged.
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
    """A body truncated or padded with zeros, with a matching ``Content-Length``.

    Args:
        to: Bytes of the new body; negative for bytes fewer than now.
    """

    to: int

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        size = self.to if self.to >= 0 else max(0, len(answer.body) + self.to)
        return replace(answer, body=answer.body[:size].ljust(size, b"\0"))


@dataclass(frozen=True)
class Encoding:
    """An unrequested ``Content-Encoding`` by its name. "gzip" and "deflate" do encode the body."""

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
    """The whole content with status 200 in place of a range."""

    def __call__(self, answer: Answer, _request: Request) -> Answer:
        if answer.whole is None:
            return answer
        answer = replace(answer, status=200, body=answer.whole, whole=None, offset=0)
        return answer.with_headers({"Content-Range": None})


@dataclass(frozen=True)
class WrongRange:
    """A wrong range, with a ``Content-Range`` that matches it.

    Answers that are not a single range are unchanged.

    Args:
        shift: Bytes by which the start moves towards the end; negative towards the beginning.
        lie: Whether ``Content-Range`` claims the requested range.
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
