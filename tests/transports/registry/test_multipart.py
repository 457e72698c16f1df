"""Bodies of several parts, taken apart without I/O."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.transports.registry.byteranges import (
    MAX_HEAD,
    ContentRange,
    Multipart,
    is_multipart,
    parse_boundary,
)

CONTENT = bytes(range(256)) * 4
SIZE = len(CONTENT)


def encode(
    *spans: tuple[int, int], boundary: str = "sep", start: str = "\r\n", end: str = "\r\n"
) -> bytes:
    """Parts as servers write them."""
    body = start.encode()
    for first, last in spans:
        head = f"--{boundary}\r\nContent-Type: text/plain\r\n"
        body += f"{head}Content-Range: bytes {first}-{last - 1}/{SIZE}\r\n\r\n".encode()
        body += CONTENT[first:last] + b"\r\n"
    return body + f"--{boundary}--{end}".encode()


def take_apart(
    body: bytes, size: int | None = None, boundary: str = "sep"
) -> list[tuple[ContentRange, bytes]]:
    """All parts, the body fed in pieces."""
    parser = Multipart(boundary)
    found: list[tuple[ContentRange, bytes]] = []
    step = size or max(len(body), 1)
    for at in range(0, len(body), step):
        parser.feed(body[at : at + step])
        _drain(parser, found)
    parser.finish()
    _drain(parser, found)
    assert parser.ended
    return found


def _drain(parser: Multipart, found: list[tuple[ContentRange, bytes]]) -> None:
    while (event := parser.advance()) is not None:
        if isinstance(event, ContentRange):
            found.append((event, b""))
        else:
            assert event
            found[-1] = (found[-1][0], found[-1][1] + event)


def parts(*spans: tuple[int, int]) -> list[tuple[ContentRange, bytes]]:
    return [(ContentRange(first, last, SIZE), CONTENT[first:last]) for first, last in spans]


SPANS = ((0, 1), (5, 300), (1000, SIZE))


@pytest.mark.parametrize("size", [None, 1, 2, 3, 7, 64, 1000])
def test_PART02_parts_in_order_however_they_arrive(size: int | None) -> None:
    assert take_apart(encode(*SPANS), size) == parts(*SPANS)


@pytest.mark.parametrize(
    ("start", "end"), [("", "\r\n"), ("\r\n", ""), ("", ""), ("hello\r\n--septic\r\n", "\r\nbye")]
)
def test_PART02_what_is_around_the_parts_does_not_matter(start: str, end: str) -> None:
    assert take_apart(encode(*SPANS, start=start, end=end)) == parts(*SPANS)


def test_PART02_bare_line_feeds_are_read() -> None:
    body = encode((0, 1)).replace(b"\r\n", b"\n")
    assert take_apart(body) == parts((0, 1))


def test_PART02_blanks_after_a_boundary_do_not_matter() -> None:
    body = encode((0, 1), (3, 5)).replace(b"--sep", b"--sep \t").replace(b"--sep \t--", b"--sep-- ")
    assert take_apart(body) == parts((0, 1), (3, 5))


def test_PART05_a_boundary_within_a_content_is_content() -> None:
    content = b"\r\n--sep\r\n\r\n--sep--\r\n"
    head = f"--sep\r\ncontent-range:bytes 7-{6 + len(content)}/*\r\n\r\n".encode()
    [(span, found)] = take_apart(head + content + b"\r\n--sep--")
    assert (span, found) == (ContentRange(7, 7 + len(content), None), content)


def test_PART05_there_may_be_no_parts() -> None:
    assert take_apart(b"--sep--") == []


@pytest.mark.parametrize(
    "body",
    [
        encode((0, 4)).replace(b"0-3/", b"0-2/"),
        encode((0, 4)).replace(b"0-3/", b"0-4/"),
        encode((0, 4)).replace(b"bytes 0-3", b"bytes 3-0"),
        encode((0, 4)).replace(b"bytes 0-3", b"bytes +0-3"),
        encode((0, 4)).replace(b"bytes 0-3/1024", b"bytes 0-3/2"),
        encode((0, 4)).replace(b"Content-Range", b"X-Range"),
        encode((0, 4)).replace(b"Content-Type: text", b"Content-Range: bytes 0-3/1024\r\nX: "),
        encode((0, 4)).replace(b"Content-Type: text/plain", b" folded: x"),
        encode((0, 4)).replace(b"Content-Type: text/plain", b"no header"),
        encode((0, 4)).replace(b"Content-Type", b""),
        encode((0, 4)).replace(b"--sep--", b"--seq--"),
        encode((0, 4)).replace(b"\r\n--sep--", b"\r\n\r\n--sep--"),
        encode((0, 4)).replace(b"\r\n--sep--", b"--sep--"),
        encode((0, 4)).replace(
            b"\r\n--sep--", b"\r\nContent-Range: bytes 5-5/9\r\n\r\nx\r\n--sep--"
        ),
        encode((0, 4)).replace(b"\r\n--sep--", b"\n--sep--"),
        encode((0, 4)).replace(b"\r\n", b"\n").replace(b"\n--sep--", b"\r\n--sep--"),
    ],
)
def test_PART05_what_is_malformed_is_refused(body: bytes) -> None:
    for size in (None, 1):
        with pytest.raises(ValueError, match=r"^(have|do not|are) "):
            take_apart(body, size)


@pytest.mark.parametrize("at", range(1, len(encode((0, 9), (20, 22))) - 2))
def test_PART05_what_is_cut_never_looks_whole(at: int) -> None:
    parser = Multipart("sep")
    parser.feed(encode((0, 9), (20, 22))[:at])
    with suppress(ValueError):
        _drain(parser, [])
        parser.finish()
        _drain(parser, [])
    assert not parser.ended


@pytest.mark.parametrize("where", ["preamble", "header", "headers", "after"])
@pytest.mark.parametrize("size", [None, 1, 100])
def test_PART05_heads_have_a_limit(where: str, size: int | None) -> None:
    long = b"x" * (MAX_HEAD + 1)
    bodies = {
        "preamble": long + b"\r\n",
        "header": b"--sep\r\nX: " + long,
        "headers": b"--sep\r\n" + b"X: y\r\n" * (MAX_HEAD // 5),
        "after": encode((0, 4)).partition(b"--sep--")[0] + long,
    }
    with pytest.raises(ValueError, match=f"more than {MAX_HEAD} bytes"):
        take_apart(bodies[where], size)


def test_PART05_a_head_of_the_largest_size_passes() -> None:
    body = encode((0, 4), start="")
    spare = MAX_HEAD - body.index(b"\r\n\r\n") - len(b"\r\n\r\n") - len(b"X: \r\n")
    longer = body.replace(b"Content-Type", b"X: " + b"x" * spare + b"\r\nContent-Type")
    assert take_apart(longer, 1) == parts((0, 4))
    with pytest.raises(ValueError, match="more than"):
        take_apart(longer.replace(b"X: ", b"X: x"), 1)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/byteranges; boundary=THIS_STRING_SEPARATES", "THIS_STRING_SEPARATES"),
        ('multipart/byteranges; boundary="THIS STRING, OR"', "THIS STRING, OR"),
        ("multipart/byteranges;boundary=a", "a"),
        ("multipart/byteranges; charset=x ; BOUNDARY=a-b'+_./=?0; more=y", "a-b'+_./=?0"),
        ("multipart/byteranges; boundary=CloudFront:3F750DE7ED5E7", "CloudFront:3F750DE7ED5E7"),
        ("multipart/byteranges; boundary=" + "b" * 70, "b" * 70),
        ("multipart/byteranges; boundary=" + "b" * 71, None),
        ("multipart/byteranges; boundary=", None),
        ('multipart/byteranges; boundary=""', None),
        ('multipart/byteranges; boundary="a', None),
        ('multipart/byteranges; boundary="a "', None),
        ('multipart/byteranges; boundary="a\\"b"', None),
        ("multipart/byteranges; boundary=a b", None),
        ("multipart/byteranges; boundary=é", None),
        ("multipart/byteranges; xboundary=a", None),
        ("multipart/byteranges", None),
    ],
)
def test_PART03_boundaries(content_type: str, boundary: str | None) -> None:
    assert parse_boundary(content_type) == boundary


@pytest.mark.parametrize(
    ("content_type", "several"),
    [
        ("multipart/byteranges; boundary=a", True),
        (" MultiPart/Mixed", True),
        ("application/octet-stream", False),
        ("application/multipart", False),
        ("", False),
    ],
)
def test_PART02_what_announces_parts(content_type: str, *, several: bool) -> None:
    assert is_multipart(content_type) is several


@pytest.mark.parametrize(
    "text", ["; boundary=" * (1 << 17), ';boundary="' + "a" * (1 << 20), " " * (1 << 20), ";" * 9]
)
def test_SEC08_boundaries_are_found_in_no_time(text: str) -> None:
    begin = time.process_time()
    assert parse_boundary(text) is None
    assert time.process_time() - begin < 1


@given(
    st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 50)), max_size=5),
    st.integers(1, 50),
)
def test_PART05_what_is_written_is_read(spans: list[tuple[int, int]], size: int) -> None:
    wanted = [(first, min(first + length, SIZE)) for first, length in spans]
    assert take_apart(encode(*wanted), size) == parts(*wanted)


PIECES = (b"--sep", b"--", b"\r\n", b"\n", b"Content-Range:", b"bytes 0-3/9", b"abcd", b":", b" ")


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=5), max_size=30).map(b"".join))
def test_PART05_whatever_comes_it_ends_the_same_however_it_arrives(body: bytes) -> None:
    outcomes: list[object] = []
    for size in (None, 1, 3):
        parser = Multipart("sep")
        found: list[tuple[ContentRange, bytes]] = []
        fault: str | None = None
        try:
            step = size or max(len(body), 1)
            for at in range(0, len(body), step):
                parser.feed(body[at : at + step])
                _drain(parser, found)
            parser.finish()
            _drain(parser, found)
        except ValueError as error:
            fault = str(error)
        outcomes.append((found, fault, parser.ended))
    assert outcomes[0] == outcomes[1] == outcomes[2]
