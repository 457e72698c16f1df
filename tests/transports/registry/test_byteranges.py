"""Byte ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.transports.registry.byteranges import (
    ContentRange,
    format_range,
    parse_content_range,
    parse_unsatisfied_range,
)


def test_RES04_a_range_is_closed_where_its_end_is_known() -> None:
    assert format_range(5, 10) == "bytes=5-9"
    assert format_range(5, None) == "bytes=5-"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["bytes 0-9/10"], ContentRange(0, 10, 10)),
        (["bytes 5-9/*"], ContentRange(5, 10, None)),
        (["bytes 05-09/010"], ContentRange(5, 10, 10)),
        ([], None),
        (["bytes 0-9/10", "bytes 0-9/10"], None),
        (["bytes 0-9/10 "], None),
        ([" bytes 0-9/10"], None),
        (["bytes  0-9/10"], None),
        (["bytes=0-9/10"], None),
        (["Bytes 0-9/10"], None),
        (["items 0-9/10"], None),
        (["bytes 0-9"], None),
        (["bytes 9-0/10"], None),
        (["bytes 0-10/10"], None),
        (["bytes */10"], None),
        (["bytes +0-9/10"], None),
        (["bytes 0- 9/10"], None),
        (["bytes 0-1_0/20"], None),
        (["bytes \u0660-\u0669/10"], None),
        (["bytes 0-9/10\n"], None),
        (["bytes 0-" + "9" * 5000 + "/*"], None),
    ],
)
def test_RES05_RES06_content_range(values: list[str], expected: ContentRange | None) -> None:
    assert parse_content_range(values) == expected


@given(st.integers(0, 2**60), st.integers(1, 2**60), st.none() | st.integers(0, 2**60))
def test_RES05_what_is_written_is_read(start: int, length: int, rest: int | None) -> None:
    end = start + length
    total = None if rest is None else end + rest
    value = f"bytes {start}-{end - 1}/{'*' if total is None else total}"
    assert parse_content_range([value]) == ContentRange(start, end, total)


@pytest.mark.parametrize(
    ("values", "expected"),
    [(["bytes */10"], 10), (["bytes 0-1/10"], None), ([], None), (["bytes */*"], None)],
)
def test_PART04_unsatisfied_range(values: list[str], expected: int | None) -> None:
    assert parse_unsatisfied_range(values) == expected
