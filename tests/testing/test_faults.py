"""Each fault of an answer, seen by a plain client."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING

import aiohttp
import pytest

from asupplemented.testing import (
    Body,
    Corrupt,
    Encoding,
    FakeRegistry,
    Headers,
    Html,
    IgnoreRange,
    Redirect,
    Resize,
    Status,
    Unauthorized,
    WrongRange,
)

if TYPE_CHECKING:
    from asupplemented.testing import Fault

BODY = b"0123456789"


class Fetched:
    def __init__(self, answer: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = body


async def fetch(registry: FakeRegistry, *faults: Fault, span: str | None = None) -> Fetched:
    registry.put_file("/x", BODY)
    registry.script("/x", faults)
    headers = {} if span is None else {"Range": span}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as http,
        http.get(registry.url + "/x", headers=headers, allow_redirects=False) as answer,
    ):
        return Fetched(answer, await answer.read())


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "UNAUTHORIZED"), (403, "DENIED"), (429, "TOOMANYREQUESTS"), (503, "UNKNOWN")],
)
async def test_status(registry: FakeRegistry, status: int, code: str) -> None:
    got = await fetch(registry, Status(status, {"Retry-After": "7"}))
    assert (got.status, got.headers["Retry-After"]) == (status, "7")
    assert got.headers["Content-Type"] == "application/json"
    assert json.loads(got.body)["errors"][0]["code"] == code


async def test_a_status_with_its_own_body(registry: FakeRegistry) -> None:
    got = await fetch(registry, Status(599, {"Content-Type": "text/x"}, b"text"))
    assert (got.status, got.body, got.headers["Content-Type"]) == (599, b"text", "text/x")


async def test_a_status_is_followed_by_a_right_answer(registry: FakeRegistry) -> None:
    assert (await fetch(registry, Status(500))).status == 500
    assert (await fetch(registry)).body == BODY


async def test_redirect_keeps_the_location_byte_for_byte(registry: FakeRegistry) -> None:
    location = "https://else/x?sig=a%2Bb%2Fc%3D&x=%7E%41"
    got = await fetch(registry, Redirect(location))
    assert (got.status, got.headers["Location"], got.body) == (307, location, b"")
    got = await fetch(registry, Redirect(lambda r: r.target + "/again", code=302))
    assert (got.status, got.headers["Location"]) == (302, "/x/again")


async def test_redirect_to_a_second_origin(http: aiohttp.ClientSession) -> None:
    async with FakeRegistry() as storage, FakeRegistry() as registry:
        digest = registry.put_blob("app", BODY)
        url = storage.put_file("/bucket/1", BODY)
        registry.script("/v2/*/blobs/*", Redirect(url), forever=True)
        async with http.get(f"{registry.url}/v2/app/blobs/{digest}") as answer:
            assert await answer.read() == BODY
        assert (registry.count(), storage.count("/bucket/*")) == (1, 1)


async def test_html(registry: FakeRegistry) -> None:
    got = await fetch(registry, Html())
    assert (got.status, got.headers["Content-Type"]) == (200, "text/html")
    assert b"<html>" in got.body


async def test_headers_are_replaced_added_and_removed(registry: FakeRegistry) -> None:
    changes = {"content-TYPE": "text/x", "Accept-Ranges": None, "X-New": "1"}
    got = await fetch(registry, Headers(changes))
    assert (got.headers["Content-Type"], got.headers["X-New"]) == ("text/x", "1")
    assert "Accept-Ranges" not in got.headers
    assert got.body == BODY


async def test_body(registry: FakeRegistry) -> None:
    got = await fetch(registry, Body(b"other"))
    assert (got.body, got.headers["Content-Length"]) == (b"other", "5")
    assert got.headers["Content-Type"] == "application/octet-stream"
    assert (await fetch(registry, Body(b"", "text/x"))).headers["Content-Type"] == "text/x"


@pytest.mark.parametrize(
    ("at", "span", "body"),
    [
        (0, None, b"\xcf123456789"),
        (9, None, b"012345678\xc6"),
        (-1, None, b"012345678\xc6"),
        (10, None, BODY),
        (-11, None, BODY),
        (5, "bytes=4-6", b"4\xca6"),
        (-5, "bytes=4-6", b"4\xca6"),
        (3, "bytes=4-6", b"456"),
        (7, "bytes=4-6", b"456"),
    ],
)
async def test_corrupt_flips_a_byte_of_the_content(
    registry: FakeRegistry, at: int, span: str | None, body: bytes
) -> None:
    assert (await fetch(registry, Corrupt(at), span=span)).body == body


@pytest.mark.parametrize(
    ("to", "body"), [(3, b"012"), (-1, BODY[:9]), (0, b""), (-99, b""), (12, BODY + b"\0\0")]
)
async def test_resize_is_honest_about_its_length(
    registry: FakeRegistry, to: int, body: bytes
) -> None:
    got = await fetch(registry, Resize(to))
    assert (got.body, got.headers["Content-Length"]) == (body, str(len(body)))


async def test_encoding(registry: FakeRegistry) -> None:
    got = await fetch(registry, Encoding("gzip"))
    assert (got.headers["Content-Encoding"], gzip.decompress(got.body)) == ("gzip", BODY)
    got = await fetch(registry, Encoding("deflate"))
    assert (got.headers["Content-Encoding"], zlib.decompress(got.body)) == ("deflate", BODY)
    got = await fetch(registry, Encoding("zstd"))
    assert (got.headers["Content-Encoding"], got.body) == ("zstd", BODY)


async def test_ignore_range(registry: FakeRegistry) -> None:
    got = await fetch(registry, IgnoreRange(), span="bytes=4-6")
    assert (got.status, got.body) == (200, BODY)
    assert "Content-Range" not in got.headers
    assert (await fetch(registry, IgnoreRange())).body == BODY


@pytest.mark.parametrize(
    ("shift", "lie", "content_range", "body"),
    [
        (1, False, "bytes 5-6/10", b"56"),
        (-1, False, "bytes 3-6/10", b"3456"),
        (-9, False, "bytes 0-6/10", b"0123456"),
        (4, False, "bytes 8-8/10", b"8"),
        (1, True, "bytes 4-6/10", b"56"),
    ],
)
async def test_wrong_range(
    registry: FakeRegistry, *, shift: int, lie: bool, content_range: str, body: bytes
) -> None:
    got = await fetch(registry, WrongRange(shift, lie=lie), span="bytes=4-6")
    assert (got.status, got.headers["Content-Range"], got.body) == (206, content_range, body)


async def test_wrong_range_leaves_a_whole_answer_alone(registry: FakeRegistry) -> None:
    assert (await fetch(registry, WrongRange(1))).body == BODY


async def test_unauthorized_without_any_access(registry: FakeRegistry) -> None:
    got = await fetch(registry, Unauthorized())
    assert (got.status, got.headers["WWW-Authenticate"]) == (401, 'Basic realm="fake"')
    got = await fetch(registry, Unauthorized(challenge="Negotiate"))
    assert got.headers["WWW-Authenticate"] == "Negotiate"


def test_faults_are_values() -> None:
    assert Corrupt(3) == Corrupt(3)
    assert Corrupt(3) != Corrupt(4)
    assert repr(Resize(3)) == "Resize(to=3)"
    with pytest.raises(AttributeError):
        Corrupt(3).at = 4  # type: ignore[misc]  # frozen is what is tested
