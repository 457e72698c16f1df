"""Byte ranges in headers and bodies, without I/O (rules RES-04 to RES-06, PART-02 to PART-05).

The functions write ``Range`` headers and parse ``Content-Range``. `Multipart` parses a body of
several ranges, ``multipart/byteranges``, line by line between the parts. Each part names its
range, so its length is known: the parser counts its bytes, and never searches them for the
boundary. More than `MAX_HEAD` bytes between two parts are refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from asupplemented.limits import KIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = (
    "ContentRange",
    "Multipart",
    "format_range",
    "format_ranges",
    "is_multipart",
    "parse_boundary",
    "parse_content_range",
    "parse_unsatisfied_range",
)

# ASCII digits only: int() accepts blanks, signs, underscores and digits of other scripts.
_SATISFIED: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.ASCII)
_UNSATISFIED: Final = re.compile(r"bytes \*/([0-9]{1,19})", re.ASCII)


class ContentRange(NamedTuple):
    """The bytes in a response: ``[start, end)`` of `total`, which is None if unknown."""

    start: int
    end: int
    total: int | None


def format_range(start: int, end: int | None) -> str:
    """The ``Range`` header for ``[start, end)``; an end of None means until the last byte."""
    return format_ranges([(start, end)])


def format_ranges(ranges: Iterable[tuple[int, int | None]]) -> str:
    """The ``Range`` header for several ranges; only the last one may have no end."""
    specs = (f"{start}-{'' if end is None else end - 1}" for start, end in ranges)
    return f"bytes={','.join(specs)}"


def parse_content_range(values: Sequence[str]) -> ContentRange | None:
    """Read the ``Content-Range`` headers of a response with status 206.

    Returns:
        None unless there is exactly one, it is well-formed, and the range is within the total.
    """
    match = _SATISFIED.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        return None
    start, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if last < start or (total is not None and last >= total):
        return None
    return ContentRange(start, last + 1, total)


def parse_unsatisfied_range(values: Sequence[str]) -> int | None:
    """The size of the blob, from the ``Content-Range`` of a response with status 416."""
    match = _UNSATISFIED.fullmatch(values[0]) if len(values) == 1 else None
    return None if match is None else int(match[1])


MAX_HEAD: Final = 8 * KIB
"""Bytes between the contents of two parts: boundary and headers."""

_Event: TypeAlias = ContentRange | bytes | None

# RFC 2046 wants colons in quotes; a large CDN sends them without (rule PART-03).
_BOUNDARY: Final = re.compile(
    r";[ \t]*+boundary=(?:\"([0-9A-Za-z'()+_,./:=? -]{1,70})\"|([0-9A-Za-z'+_./:=?-]{1,70}))"
    r"[ \t]*+(?:;|\Z)",
    re.ASCII | re.IGNORECASE,
)
_BLANK: Final = b"\r \t"
_MULTIPART: Final = re.compile(r"[ \t]*+multipart/", re.IGNORECASE)


def is_multipart(content_type: str) -> bool:
    """Whether a ``Content-Type`` announces several parts."""
    return _MULTIPART.match(content_type) is not None


def parse_boundary(content_type: str) -> str | None:
    """The boundary that a ``Content-Type`` names, None if it is absent or invalid."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        return None
    boundary: str = match[1] or match[2]
    return None if boundary.endswith(" ") else boundary


class Multipart:
    """Parses a body: `feed` it bytes, and call `advance` until it returns None.

    Args:
        boundary: The boundary between the parts, without its hyphens.

    Attributes:
        ended: Whether the closing boundary was read. All that follows is ignored.
    """

    __slots__ = (
        "_buffer",
        "_closing",
        "_delimiter",
        "_head",
        "_left",
        "_line_end",
        "_ranges",
        "_step",
        "ended",
    )

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"--" + boundary.encode("ascii")
        self._closing = self._delimiter + b"--"
        self._buffer = b""
        self._head = 0
        """Bytes read since the content of the last part."""
        self._left = 0
        """Bytes of this part that are not read yet."""
        self._line_end = b""
        """The byte before line feeds: a carriage return, or nothing at some servers."""
        self._ranges: list[str] = []
        self._step: Callable[[bytes], _Event] = self._read_preamble
        """Reads the next line."""
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Add bytes of the body."""
        self._buffer = self._buffer + data if self._buffer else data

    def finish(self) -> None:
        """Note the end of the body; its last line may have no line feed."""
        if not self._left:
            self.feed(b"\n")

    def advance(self) -> ContentRange | bytes | None:
        """The next event.

        Returns:
            A range if the part with that range begins; bytes of its content, never empty; None
            if more of the body is needed, or if all parts were read.

        Raises:
            ValueError: The body is malformed; the message completes "parts that ...".
        """
        event: _Event = None
        while event is None and not self.ended:
            if self._left:
                return self._take_content()
            line = self._take_line()
            if line is None:
                return None
            event = self._step(line)
        return event

    def _take_content(self) -> bytes | None:
        content = self._buffer[: self._left]
        self._buffer = self._buffer[self._left :]
        self._left -= len(content)
        return content or None

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", 0, MAX_HEAD + 1)
        size = len(self._buffer) if end < 0 else end + 1
        if self._head + size > MAX_HEAD:
            message = f"have more than {MAX_HEAD} bytes between them"
            raise ValueError(message)
        if end < 0:
            return None
        line = self._buffer[:end]
        self._buffer = self._buffer[size:]
        self._head += size
        return line

    # The kinds of lines

    def _read_preamble(self, line: bytes) -> None:
        """A line before the first part: the boundary, or text to ignore (RFC 2046)."""
        if line.rstrip(_BLANK) in {self._delimiter, self._closing}:
            self._line_end = b"\r" if line.endswith(b"\r") else b""
            self._read_delimiter(line)

    def _read_end(self, line: bytes) -> None:
        """The end of the line behind a content."""
        if line != self._line_end:
            message = "are longer than they say"
            raise ValueError(message)
        self._step = self._read_delimiter

    def _read_delimiter(self, line: bytes) -> None:
        line = line.rstrip(_BLANK)
        if line == self._closing:
            self.ended = True
        elif line == self._delimiter:
            self._ranges = []
            self._step = self._read_header
        else:
            message = "are not followed by their boundary"
            raise ValueError(message)

    def _read_header(self, line: bytes) -> ContentRange | None:
        line = line.rstrip(_BLANK)
        if not line:
            return self._begin()
        name, colon, value = line.partition(b":")
        if not colon or not name.strip() or name[:1] in b" \t":
            message = "have a header that cannot be read"
            raise ValueError(message)
        if name.strip().lower() == b"content-range":
            self._ranges.append(value.strip().decode("latin-1"))
        return None

    def _begin(self) -> ContentRange:
        found = parse_content_range(self._ranges)
        if found is None:
            message = "do not say which range they are"
            raise ValueError(message)
        self._left = found.end - found.start
        self._head = 0
        self._step = self._read_end
        return found
