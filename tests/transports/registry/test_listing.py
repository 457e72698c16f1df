"""Links to the next page: which one is followed, and which never."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from asupplemented.errors import MalformedResponseError
from asupplemented.transports.registry.listing import find_next

CURRENT = URL("https://r.example:5000/v2/team/app/tags/list?n=2", encoded=True)
NEXT = "/v2/team/app/tags/list?last=b&n=2"


def follow(*values: str) -> str | None:
    target = find_next(values, CURRENT)
    return None if target is None else str(target.relative())


@pytest.mark.parametrize(
    "value",
    [
        f'<{NEXT}>; rel="next"',
        f"<{NEXT}>; rel=next",
        f"<{NEXT}>;rel=next",
        f"<{NEXT}> ; REL = NEXT",
        f'<{NEXT}>; rel="prev next"',
        f'<{NEXT}>; title="a, b; rel=prev"; rel="next"',
        f"<{NEXT}>; title; rel=next;",
        f"<{NEXT}>",
        f"{NEXT};rel=next",
        f'</first>; rel="first", <{NEXT}>; rel="next", </last>; rel="last"',
        f", <{NEXT}>",
        "<?last=b&n=2>; rel=next",
        "<list?last=b&n=2>; rel=next",
        f"<https://r.example:5000{NEXT}>; rel=next",
        f"<https://R.EXAMPLE:5000{NEXT}>; rel=next",
        f"<//r.example:5000{NEXT}>; rel=next",
        f"< {NEXT} >; rel=next",
    ],
)
def test_TAG01_a_link_to_the_next_page(value: str) -> None:
    assert follow(value) == NEXT


def test_TAG01_the_query_stays_as_it_was_written() -> None:
    assert follow("</v2/x/tags/list?last=%2B%7e&n=2#end>; rel=next") == (
        "/v2/x/tags/list?last=%2B%7e&n=2"
    )


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("",),
        (" , ",),
        ('</first>; rel="first"', "</last>; rel=last"),
        ('</x>; rel="nextish"',),
    ],
)
def test_TAG01_no_link_means_the_last_page(values: tuple[str, ...]) -> None:
    assert follow(*values) is None


def test_TAG01_of_several_headers_the_first_next_counts() -> None:
    assert follow("</first>; rel=first", f"<{NEXT}>; rel=next", "</v2/other>; rel=next") == NEXT


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("https://evil.example/v2/team/app/tags/list", "/v2/team/app/tags/list"),
        ("//evil.example/v2/x", "/v2/x"),
        ("http://r.example:5000/v2/x?a=%2F", "/v2/x?a=%2F"),
        ("https://r.example/v2/x", "/v2/x"),
        ("https://user:secret@r.example:5000/v2/x", "/v2/x"),
        ("https://r.example:5000@evil.example/v2/x", "/v2/x"),
        ("http://169.254.169.254/latest/meta-data", "/latest/meta-data"),
        ("https://a//evil.example/x", "/x"),
        ("https://a?last=b", "/?last=b"),
        ("file:///etc/passwd", "/etc/passwd"),
        ("https://", "/"),
    ],
)
def test_SEC01_TAG01_another_origin_is_ours(target: str, path: str) -> None:
    """Path and query count, and nothing leads elsewhere."""
    assert follow(f"<{target}>; rel=next") == path


@pytest.mark.parametrize("target", ["javascript:alert(1)", "", "https:\\\\evil.example"])
def test_TAG01_what_is_no_url_is_an_error(target: str) -> None:
    with pytest.raises(MalformedResponseError):
        follow(f"<{target}>; rel=next")


@pytest.mark.parametrize(
    "value",
    ["<unclosed", '</x>; rel="open', "</x>; =next", "</x> </y>", '"quoted"', "</x>; rel=next </y>"],
)
def test_TAG01_a_link_that_cannot_be_read_is_no_end_of_the_list(value: str) -> None:
    with pytest.raises(MalformedResponseError, match="malformed"):
        follow(value)


def test_SEC09_control_characters_are_no_part_of_a_link() -> None:
    with pytest.raises(MalformedResponseError):
        follow("</v2/x\r\nX: y>; rel=next")


@pytest.mark.parametrize(
    "value",
    [
        "<" * (1 << 20),
        "<x>;" * (1 << 18),
        "<x>; a" * (1 << 17),
        "<x>" + " " * (1 << 20) + "!",
        '<x>; a="' + "\\" * (1 << 20),
        "," * (1 << 20) + "!",
        "a" * (1 << 20) + '"',
        '<x>; rel="' + "next " * (1 << 17),
        "<x>; rel=prev," * (1 << 16),
    ],
    ids=range(9),
)
def test_SEC08_hostile_links_are_read_in_no_time(value: str) -> None:
    begin = time.process_time()
    with suppress(MalformedResponseError):
        follow(value)
    assert time.process_time() - begin < 1


@given(st.text(st.sampled_from('<>;,="\\ \trelnextp/?:a\x00é'), max_size=60))
def test_TAG01_whatever_a_link_says_the_origin_stays(value: str) -> None:
    try:
        target = find_next((value,), CURRENT)
    except MalformedResponseError:
        return
    assert target is None or target.origin() == CURRENT.origin()
