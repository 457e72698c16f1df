"""Byte ranges of requests (rules SRV-06, SRV-27, SRV-30). No input or output."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final, TypeAlias

__all__ = ("MAX_RANGES", "Span", "TooManyRangesError", "parse_range")

MAX_RANGES: Final = 1024
"""The most ranges of one request; podman asks for as many (rule SRV-27)."""

Span: TypeAlias = tuple[int, int]
"""Offset of the first byte, and offset behind the last one."""

_UNIT: Final = re.compile(r"bytes[ \t]*+=", re.IGNORECASE | re.ASCII)
_SPEC: Final = re.compile(
    r"[ \t]*+(?:([0-9]{1,19}+)-([0-9]{0,19}+)|-([0-9]{1,19}+))[ \t]*+", re.ASCII
)


class TooManyRangesError(ValueError):
    """More ranges than are served, or ranges that overlap or go back (rule SRV-27)."""


def parse_range(header: str, size: int) -> list[Span] | None:
    """Parse a ``Range`` header.

    Args:
        header: Its value.
        size: Bytes of the content, at least 1.

    Returns:
        The ranges that begin within the content, cut at its end; none if there is no such range:
        the answer is 416 then. None if the header is malformed or not in bytes: then it is
        ignored.

    Raises:
        TooManyRangesError: There are more than `MAX_RANGES`, or they are not ascending and
            disjoint.
    """
    unit = _UNIT.match(header)
    if unit is None:
        return None
    specs = header[unit.end() :].split(",", MAX_RANGES)
    if len(specs) > MAX_RANGES:
        raise TooManyRangesError
    spans: list[Span] = []
    for spec in specs:
        span = _parse_spec(spec, size)
        if span is None:
            return None
        if span[0] < span[1]:
            spans.append(span)
    if any(after[0] < before[1] for before, after in pairwise(spans)):
        raise TooManyRangesError
    return spans


def _parse_spec(spec: str, size: int) -> Span | None:
    match = _SPEC.fullmatch(spec)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return max(0, size - int(suffix)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size
