"""Requests and answers of a fake registry: plain values without I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ("BODILESS", "Answer", "Headers", "Pause", "Request", "fail")

Headers: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values, in the order in which they are sent."""

JSON: Final = "application/json"
BODILESS: Final = frozenset((100, 101, 102, 103, 204, 304))
"""Statuses of answers without a body."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it was received."""

    method: str
    """In upper case, as clients send it."""
    target: str
    """The request target, neither decoded nor normalised; its bytes as latin-1."""
    headers: Headers
    """With the order and the names that the client sent."""
    body: bytes = b""
    """All of it."""
    peer: tuple[str, int] | None = None
    """Address and port of the client."""
    connection: int = 0
    """The number of its connection to this server, from 1."""
    time: float = 0.0
    """The second at which it was complete, by the clock of the event loop."""

    @property
    def path(self) -> str:
        """The path of the target, percent-decoded, without the query."""
        target, _, _ = self.target.partition("?")
        if not target.startswith("/"):  # A whole URL, as it is sent to a proxy.
            target = "/" + target.partition("://")[2].partition("/")[2]
        return unquote(target)

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """Decoded names and values of the query, in order."""
        return tuple(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    def header(self, name: str) -> str | None:
        """The first value of the header `name`; None if it was not sent."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def argument(self, name: str) -> str | None:
        """The first value of `name` in the query; None if there is none."""
        return next((value for key, value in self.query if key == name), None)


@dataclass(frozen=True, slots=True)
class Pause:
    """What happens after a number of bytes of a body."""

    at: int | None
    """Body bytes that are sent before; None for before the head. Clamped to the end."""
    seconds: float = 0.0
    """Seconds to sleep first."""
    wait: Callable[[], Awaitable[object]] | None = None
    """What to await then."""
    end: Literal["fin", "rst"] | None = None
    """How to end the connection after that; None continues."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and how it is sent."""

    status: int = 200
    headers: Headers = ()
    """All headers but ``Content-Length`` and ``Transfer-Encoding``."""
    body: bytes = b""
    whole: bytes | None = None
    """The whole content if `body` is a range of it."""
    offset: int = 0
    """The offset of `body` in the content."""
    framing: Literal["length", "chunked", "close"] = "length"
    """How its end is told."""
    claim: int | None = None
    """A ``Content-Length`` in place of the true one."""
    chunk: int | None = None
    """Bytes per chunk of a chunked body; None for one chunk."""
    endless: bool = False
    """Whether the body is repeated until the client closes the connection."""
    bare: bool = False
    """Whether the body is sent alone, without status line and headers."""
    pauses: tuple[Pause, ...] = ()
    """Where it waits."""
    challenge: str | None = None
    """The value of ``WWW-Authenticate`` that this registry sends with a 401."""

    def header(self, name: str) -> str | None:
        """The first value of the header `name`; None if there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def with_headers(self, changes: Mapping[str, str | None]) -> Answer:
        """A copy with `changes` of headers: a value replaces one, None removes it."""
        gone = {name.lower() for name in changes}
        kept = [(key, value) for key, value in self.headers if key.lower() not in gone]
        new = [(name, value) for name, value in changes.items() if value is not None]
        return replace(self, headers=(*kept, *new))

    def with_pause(self, pause: Pause) -> Answer:
        """A copy with one more pause."""
        return replace(self, pauses=(*self.pauses, pause))

    def encode_head(self, *, close: bool) -> bytes:
        """Encode the status line and all headers.

        Args:
            close: Whether to send ``Connection: close``.
        """
        try:
            reason = HTTPStatus(self.status).phrase
        except ValueError:
            reason = "Unknown"
        headers = [*self.headers, *self._framing_headers()]
        if close:
            headers.append(("Connection", "close"))
        lines = [f"HTTP/1.1 {self.status} {reason}", *(f"{k}: {v}" for k, v in headers), "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def _framing_headers(self) -> Headers:
        if self.framing == "chunked":
            return (("Transfer-Encoding", "chunked"),)
        if self.framing == "close" or self.status in BODILESS:
            return ()
        length = len(self.body) if self.claim is None else self.claim
        return (("Content-Length", str(length)),)


def fail(
    status: int,
    code: str,
    message: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Make an error answer in the form of registries (rule SRV-09).

    Args:
        status: The HTTP status.
        code: The error code of the distribution protocol, such as "MANIFEST_UNKNOWN".
        message: The message; None derives one from the code.
        headers: Additional headers.
    """
    text = code.replace("_", " ").lower() if message is None else message
    document = {"errors": [{"code": code, "message": text, "detail": None}]}
    return Answer(
        status=status,
        headers=(("Content-Type", JSON), *(headers or {}).items()),
        body=json.dumps(document).encode(),
    )
