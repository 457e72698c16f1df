"""Byte ranges as a server sees them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.testing import Answer, Request
from asupplemented.testing.content import apply_range, parse_ranges

BODY = b"0123456789"
WHOLE = Answer(headers=(("Content-Type", "text/plain"), ("ETag", '"x"')), body=BODY)


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=2-4", [(2, 5)]),
        ("bytes=2-", [(2, 10)]),
        ("bytes=-3", [(7, 10)]),
        ("bytes=-30", [(0, 10)]),
        ("bytes=8-99", [(8, 10)]),
        ("bytes= 1-2 , 4-5 ", [(1, 3), (4, 6)]),
        ("BYTES=1-2", [(1, 3)]),
        ("bytes=10-", []),
        ("bytes=10-12,1-1", [(1, 2)]),
        ("bytes=-0", []),
        ("bytes=4-2", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1-2,", None),
        ("bytes=+1-2", None),
        ("bytes=٣-4", None),
        ("items=1-2", None),
        ("bytes 1-2", None),
    ],
)
def test_SRV06_ranges_are_read(header: str, spans: list[tuple[int, int]] | None) -> None:
    assert parse_ranges(header, len(BODY)) == spans


@given(st.integers(0, 12), st.integers(0, 12))
def test_SRV06_a_range_is_a_slice(first: int, last: int) -> None:
    spans = parse_ranges(f"bytes={first}-{last}", len(BODY))
    expected = BODY[first : last + 1]
    assert b"".join(BODY[start:end] for start, end in spans or ()) == expected


def ask(*headers: tuple[str, str]) -> Answer:
    return apply_range(WHOLE, Request("GET", "/", headers))


def test_SRV06_a_single_range() -> None:
    answer = ask(("range", "bytes=2-4"))
    assert (answer.status, answer.body, answer.offset) == (206, b"234", 2)
    assert answer.header("Content-Range") == "bytes 2-4/10"
    assert answer.whole == BODY


def test_SRV06_nothing_satisfiable() -> None:
    answer = ask(("Range", "bytes=10-"))
    assert (answer.status, answer.body) == (416, b"")
    assert answer.header("Content-Range") == "bytes */10"


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("Range", "bytes=4-2"),),
        (("Range", "bytes=2-4"), ("If-Range", '"y"')),
        (("Range", "bytes=2-4"), ("If-Range", "Tue, 01 Jan 2030 00:00:00 GMT")),
        (("Range", "bytes=0-8,0-8"),),
    ],
    ids=["no range", "malformed", "If-Range differs", "If-Range by date", "more than all"],
)
def test_SRV06_the_answer_stays_whole(headers: tuple[tuple[str, str], ...]) -> None:
    assert ask(*headers) == WHOLE


def test_SRV06_if_range_that_matches() -> None:
    assert ask(("Range", "bytes=2-4"), ("If-Range", '"x"')).status == 206


def test_SRV06_an_empty_content_has_no_ranges() -> None:
    empty = Answer(body=b"")
    assert apply_range(empty, Request("GET", "/", (("Range", "bytes=0-"),))) == empty


def test_SRV06_several_ranges_are_multipart() -> None:
    answer = ask(("Range", "bytes=0-1,7-"))
    boundary = "THIS_STRING_SEPARATES"
    assert answer.status == 206
    assert answer.header("Content-Type") == f"multipart/byteranges; boundary={boundary}"
    assert answer.header("Content-Range") is None
    assert answer.body.decode().split(f"--{boundary}") == [
        "\r\n",
        "\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n",
        "\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-9/10\r\n\r\n789\r\n",
        "--\r\n",
    ]
