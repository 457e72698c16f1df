"""Where redirects lead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from asupplemented.errors import MalformedResponseError
from asupplemented.transports.registry.redirects import REDIRECTS, next_url, parse_url

HERE = URL("https://registry.example/v2/a/blobs/sha256:00?x=secret", encoded=True)


def follow(
    location: str | None, *, insecure: bool = False, visited: list[URL] | None = None
) -> URL:
    return next_url(visited or [HERE], location, limit=10, insecure=insecure)


def test_REDIR04_the_codes() -> None:
    assert frozenset({301, 302, 303, 307, 308}) == REDIRECTS


@pytest.mark.parametrize(
    ("location", "target"),
    [
        (
            "https://cdn.example/b?sig=a%2Bb%2Fc%3D&x=%7E%41",
            "https://cdn.example/b?sig=a%2Bb%2Fc%3D&x=%7E%41",
        ),
        ("https://cdn.example/a/../b//c?q=%zz", "https://cdn.example/a/../b//c?q=%zz"),
        ("//cdn.example/b?s=%2F", "https://cdn.example/b?s=%2F"),
        ("/files/b?s=%2F", "https://registry.example/files/b?s=%2F"),
        ("b", "https://registry.example/v2/a/blobs/b"),
        ("?s=1", "https://registry.example/v2/a/blobs/sha256:00?s=1"),
        ("https://cdn.example/b#fragment", "https://cdn.example/b"),
        ("https://cdn.example/a b/é", "https://cdn.example/a%20b/%C3%A9"),
        ("HTTPS://cdn.example:8443/b", "https://cdn.example:8443/b"),
    ],
)
def test_REDIR03_a_location_is_taken_as_it_is_written(location: str, target: str) -> None:
    assert str(follow(location)) == target


@pytest.mark.parametrize(
    ("location", "why"),
    [
        (None, "without a location"),
        ("", "without a location"),
        ("ftp://cdn.example/b", "no http or https"),
        ("file:///etc/passwd", "no http or https"),
        ("data:text/plain,x", "no http or https"),
        ("https:///b", "no http or https"),
        ("https://user:sentinel@cdn.example/b", "user or password"),
        ("https://@cdn.example/b", "user or password"),
        ("https://evil.example\\@cdn.example/", "control characters or backslashes"),
        ("https://cdn.example/\r\nX: y", "control characters"),
        ("https://cdn.example:99999/", "no http or https"),
        ("https://cdn.example:x/", "no http or https"),
        ("https://[::1/", "no http or https"),
        ("http://registry.example/b", "from https to plain http"),
    ],
)
def test_REDIR04_refused(location: str | None, why: str) -> None:
    with pytest.raises(MalformedResponseError, match=why) as caught:
        follow(location)
    assert "secret" not in str(caught.value)
    assert "sentinel" not in str(caught.value)
    assert caught.value.url == "https://registry.example/v2/a/blobs/sha256:00"


def test_REDIR04_an_insecure_registry_may_leave_https() -> None:
    assert follow("http://cdn.example/b", insecure=True) == URL("http://cdn.example/b")


def test_REDIR04_ten_redirects_and_no_more() -> None:
    visited = [HERE, *(URL(f"https://registry.example/{n}") for n in range(9))]
    visited.append(follow("/tenth", visited=visited))
    with pytest.raises(MalformedResponseError, match="10"):
        follow("/eleventh", visited=visited)


def test_REDIR04_a_circle() -> None:
    with pytest.raises(MalformedResponseError, match="circle"):
        follow(str(HERE))


@pytest.mark.parametrize("location", ["https://cdn/b?s=secret", "ftp://u:secret@cdn/?secret"])
def test_REDIR05_no_query_in_errors(location: str) -> None:
    visited = [URL("https://cdn/b?s=secret", encoded=True)]
    with pytest.raises(MalformedResponseError) as caught:
        follow(location, visited=visited)
    assert "secret" not in f"{caught.value} {caught.value.url} {caught.value!r}"
    assert caught.value.__cause__ is None


@given(st.text(max_size=40) | st.text(alphabet="htps:/@[]\\.?#%0a\r\n ", max_size=40))
def test_REDIR04_nothing_breaks_the_reader(location: str) -> None:
    try:
        target = follow(location, insecure=True)
    except MalformedResponseError:
        return
    assert target.scheme in {"http", "https"}
    assert target.raw_host
    assert str(target).isascii()
    assert target.raw_user is None


@given(st.text(max_size=40))
def test_parse_url_raises_value_errors_only(text: str) -> None:
    try:
        parse_url(text)
    except ValueError:
        return
