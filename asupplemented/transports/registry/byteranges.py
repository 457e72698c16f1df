"""Byte ranges on the wire: asking for one, and checking what came (rules RES-04 to RES-06).

Several ranges of one content in one body: ``multipart/byteranges`` (rules PART-02, -03, -05).

A parser without I/O. It goes by lengths: each part says which range it is, so that its content
is taken as it is, and never searched for a boundary. What is not content is small, or refused.
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

# ASCII digits only: int() takes blanks, signs, underscores and the digits of other scripts.
_SATISFIED: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.ASCII)
_UNSATISFIED: Final = re.compile(r"bytes \*/([0-9]{1,19})", re.ASCII)


class ContentRange(NamedTuple):
    """Which bytes an answer holds: ``[start, end)`` of `total`, None if that is not said."""

    start: int
    end: int
    total: int | None


def format_range(start: int, end: int | None) -> str:
    """The ``Range`` header for ``[start, end)``; an end of None means until the last byte."""
    return format_ranges([(start, end)])


def format_ranges(ranges: Iterable[tuple[int, int | None]]) -> str:
    """The ``Range`` header for several of them; only the last one may be without an end."""
    specs = (f"{start}-{'' if end is None else end - 1}" for start, end in ranges)
    return f"bytes={','.join(specs)}"


def parse_content_range(values: Sequence[str]) -> ContentRange | None:
    """Read the ``Content-Range`` headers of an answer with status 206.

    Returns:
        None unless there is exactly one, in the one right form, that makes sense.
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
    """The size of the whole, from the ``Content-Range`` of an answer with status 416."""
    match = _UNSATISFIED.fullmatch(values[0]) if len(values) == 1 else None
    return None if match is None else int(match[1])


MAX_HEAD: Final = 8 * KIB
"""Bytes between the contents of two parts: boundary and headers."""

_Event: TypeAlias = ContentRange | bytes | None

# Colons belong in quotes, and a large network does without (rule PART-03).
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
    """The boundary that a ``Content-Type`` names, None if it names none that could be one."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        return None
    boundary: str = match[1] or match[2]
    return None if boundary.endswith(" ") else boundary


class Multipart:
    """Takes a body apart: `feed` it, and `advance` until there is nothing more to be had.

    Args:
        boundary: What stands between the parts.

    Attributes:
        ended: Whether all parts are over. What comes after that does not count.
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
        """Bytes since the content of the last part."""
        self._left = 0
        """Bytes that the content of this part still has."""
        self._line_end = b""
        """What comes before the line feeds: some servers have nothing there."""
        self._ranges: list[str] = []
        self._step: Callable[[bytes], _Event] = self._read_preamble
        """What the next line is."""
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take more of the body."""
        self._buffer = self._buffer + data if self._buffer else data

    def finish(self) -> None:
        """Take note that the body is over: its last line may do without an end."""
        if not self._left:
            self.feed(b"\n")

    def advance(self) -> ContentRange | bytes | None:
        """Go on to what comes next.

        Returns:
            A range if the part with that range begins; bytes of its content, never none; None
            if it takes more of the body to tell, or if all parts are over.

        Raises:
            ValueError: The body is no such parts; the message completes "parts that ...".
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
        """A line before the first part: the boundary, or words for those who know no parts."""
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
