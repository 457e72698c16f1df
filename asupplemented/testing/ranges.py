"""Byte ranges as a server sees them (rule SRV-06)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.testing.exchange import Answer, Request

__all__ = ("apply_range", "parse_ranges")

BOUNDARY: Final = "THIS_STRING_SEPARATES"

_SPEC: Final = re.compile(r"\s*(?:([0-9]+)-([0-9]*)|-([0-9]+))\s*")


def parse_ranges(header: str, size: int) -> list[tuple[int, int]] | None:
    """The spans ``[start, end)`` that a ``Range`` header asks for.

    Returns:
        Spans that lie within the content, in the order asked, clamped to its end; an empty
        list if none does; None if the header is malformed or not about bytes.
    """
    unit, _, specs = header.partition("=")
    spans = [_parse_spec(spec, size) for spec in specs.split(",")]
    if unit.strip().lower() != "bytes" or None in spans:
        return None
    return [span for span in spans if span is not None and span[0] < span[1]]


def _parse_spec(spec: str, size: int) -> tuple[int, int] | None:
    match = _SPEC.fullmatch(spec)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return max(0, size - int(suffix)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


def apply_range(answer: Answer, request: Request) -> Answer:
    """Cut a whole answer down to the ranges that were asked for, where there are any.

    ``If-Range`` must equal the ``ETag`` of the answer, else the answer stays whole. So it does
    for an empty content, a malformed header, and ranges that sum up to more than the content.
    """
    header, condition, size = request.header("Range"), request.header("If-Range"), len(answer.body)
    if header is None or size == 0 or condition not in {None, answer.header("ETag")}:
        return answer
    spans = parse_ranges(header, size)
    if spans is None or sum(end - start for start, end in spans) > size:
        return answer
    if not spans:
        changes = {"Content-Range": f"bytes */{size}"}
        return replace(answer, status=416, body=b"", whole=answer.body).with_headers(changes)
    if len(spans) > 1:
        return _multipart(answer, spans)
    ((start, end),) = spans
    part = replace(answer, status=206, body=answer.body[start:end], whole=answer.body, offset=start)
    return part.with_headers({"Content-Range": f"bytes {start}-{end - 1}/{size}"})


def _multipart(answer: Answer, spans: Sequence[tuple[int, int]]) -> Answer:
    size = len(answer.body)
    pieces: list[bytes] = []
    for start, end in spans:
        head = (
            f"\r\n--{BOUNDARY}\r\nContent-Type: {answer.header('Content-Type')}\r\n"
            f"Content-Range: bytes {start}-{end - 1}/{size}\r\n\r\n"
        )
        pieces += [head.encode(), answer.body[start:end]]
    body = b"".join((*pieces, f"\r\n--{BOUNDARY}--\r\n".encode()))
    media_type = f"multipart/byteranges; boundary={BOUNDARY}"
    part = replace(answer, status=206, body=body, whole=answer.body)
    return part.with_headers({"Content-Type": media_type})
