"""Byte ranges of requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.web.ranges import MAX_RANGES, Span, TooManyRangesError, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=2-", [(2, 10)]),
        ("bytes=2-99", [(2, 10)]),
        ("bytes=-3", [(7, 10)]),
        ("bytes=-99", [(0, 10)]),
        ("Bytes = 1-2 , 4-5", [(1, 3), (4, 6)]),
        ("bytes=0-1,2-3", [(0, 2), (2, 4)]),
        ("bytes=0-1,50-60", [(0, 2)]),
        pytest.param("bytes=10-", [], id="SRV-30 at the end"),
        pytest.param("bytes=-0", [], id="SRV-30 the last 0 bytes"),
        pytest.param("bytes=9-3", None, id="SRV-30 backwards"),
        *(("items=0-1", None), ("bytes=", None), ("bytes=a-b", None), ("bytes 0-1", None)),
        *(("bytes=1-2,", None), ("bytes=--1", None), ("bytes=٣-", None), ("bytes=0-1;2-3", None)),
        ("bytes=" + "9" * 4000 + "-", None),
    ],
)
def test_SRV06_ranges_are_read(header: str, expected: list[Span] | None) -> None:
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize(
    "header", ["bytes=4-5,0-1", "bytes=0-4,4-5", "bytes=0-,0-", "bytes=0-1,-99"]
)
def test_SRV27_ranges_ascend_and_do_not_overlap(header: str) -> None:
    with pytest.raises(TooManyRangesError):
        parse_range(header, 10)


def test_SRV27_1024_ranges_are_read_and_one_more_is_refused() -> None:
    specs = [f"{2 * number}-{2 * number}" for number in range(MAX_RANGES + 1)]
    found = parse_range("bytes=" + ",".join(specs[:-1]), 10_000)
    assert found == [(2 * number, 2 * number + 1) for number in range(MAX_RANGES)]
    with pytest.raises(TooManyRangesError):
        parse_range("bytes=" + ",".join(specs), 10_000)


@given(st.text(alphabet="0123456789-, bytes="), st.integers(1, 50))
def test_ranges_lie_in_the_content(text: str, size: int) -> None:
    try:
        spans = parse_range("bytes=" + text, size) or []
    except TooManyRangesError:
        return
    assert all(0 <= start < end <= size for start, end in spans)
    assert sum(end - start for start, end in spans) <= size
