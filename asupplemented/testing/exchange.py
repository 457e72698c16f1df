"""What a fake registry receives and what it sends: plain values, no input or output."""

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
"""Names and values in the order of the wire."""

JSON: Final = "application/json"
BODILESS: Final = frozenset((100, 101, 102, 103, 204, 304))
"""Statuses whose answers never have a body."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came over the wire."""

    method: str
    target: str
    """The request target byte for byte, neither decoded nor normalised; read as latin-1."""
    headers: Headers
    """In the order, and with the names, that the client sent."""
    body: bytes = b""
    peer: tuple[str, int] | None = None
    """Address and port of the client."""
    connection: int = 0
    """Which connection of this server it came over; the first is number 1."""
    time: float = 0.0
    """When it had arrived whole, by the clock of the event loop."""

    @property
    def path(self) -> str:
        """The target without its query, percent escapes decoded; of a whole URL, the path."""
        target, _, _ = self.target.partition("?")
        if not target.startswith("/"):  # as it is sent to a proxy
            target = "/" + target.partition("://")[2].partition("/")[2]
        return unquote(target)

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """Names and values of the query, in order, decoded."""
        return tuple(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    def header(self, name: str) -> str | None:
        """The first value of a header, None where it was not sent."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def argument(self, name: str) -> str | None:
        """The first value of a query argument, None where there is none."""
        return next((value for key, value in self.query if key == name), None)


@dataclass(frozen=True, slots=True)
class Pause:
    """What happens when so many bytes of a body are out."""

    at: int | None
    """Body bytes sent before; None for before the head. Past the end means at the end."""
    seconds: float = 0.0
    """How long to sleep first."""
    wait: Callable[[], Awaitable[object]] | None = None
    """What to wait for then."""
    end: Literal["fin", "rst"] | None = None
    """How to end the connection after that, None to go on."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and how it is put on the wire."""

    status: int = 200
    headers: Headers = ()
    """Without those of the framing (``Content-Length``, ``Transfer-Encoding``)."""
    body: bytes = b""
    whole: bytes | None = None
    """All of the content, where `body` is a range of it."""
    offset: int = 0
    """Where `body` begins in the content."""
    framing: Literal["length", "chunked", "close"] = "length"
    claim: int | None = None
    """A ``Content-Length`` to claim in place of the true one."""
    chunk: int | None = None
    """Bytes per chunk of a chunked body; None for one chunk."""
    endless: bool = False
    """Whether the body is sent again and again until the client leaves."""
    bare: bool = False
    """Whether the body is all that is sent: no status line, no headers."""
    pauses: tuple[Pause, ...] = ()
    challenge: str | None = None
    """The value of ``WWW-Authenticate`` that this registry would send."""

    def header(self, name: str) -> str | None:
        """The first value of a header, None where there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def with_headers(self, changes: Mapping[str, str | None]) -> Answer:
        """The same with headers replaced or, where the value is None, removed."""
        gone = {name.lower() for name in changes}
        kept = [(key, value) for key, value in self.headers if key.lower() not in gone]
        new = [(name, value) for name, value in changes.items() if value is not None]
        return replace(self, headers=(*kept, *new))

    def with_pause(self, pause: Pause) -> Answer:
        """The same with one more pause."""
        return replace(self, pauses=(*self.pauses, pause))

    def encode_head(self, *, close: bool) -> bytes:
        """Status line and headers, with those of the framing.

        Args:
            close: Whether to announce that the connection ends after this answer.
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
    """An error as registries give it (rule SRV-09).

    Args:
        status: HTTP status.
        code: Of the distribution protocol, "MANIFEST_UNKNOWN" and so on.
        message: For people; None makes one of the code.
        headers: More headers.
    """
    text = code.replace("_", " ").lower() if message is None else message
    document = {"errors": [{"code": code, "message": text, "detail": None}]}
    return Answer(
        status=status,
        headers=(("Content-Type", JSON), *(headers or {}).items()),
        body=json.dumps(document).encode(),
    )
