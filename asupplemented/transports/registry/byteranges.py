"""Byte ranges on the wire: asking for one, and checking what came (rules RES-04 to RES-06)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = (
    "ContentRange",
    "format_range",
    "format_ranges",
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
