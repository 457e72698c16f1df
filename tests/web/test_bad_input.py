"""Bad input on the wire, before both applications: what each is answered with.

A row of a table is a request and its answer. What no server can read is refused by the server, in
its own words; everything else gets an error in the form of the specification.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import msgspec
import pytest

from asupplemented import Catalog, LayoutCache, Session, web
from asupplemented.cache.sharing import settle
from asupplemented.model.digest import Digest
from tests.web.clients import Exchange
from tests.web.conftest import LARGE, SMALL
from tests.web.servers import aiohttp_port, connect, uvicorn_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from asupplemented.testing import BuiltImage, SourceControl
    from tests.testing.raw_client import RawClient
    from tests.web.catalogs import FakeCatalog
    from tests.web.servers import Run

ROOT = "/v2/team/app"
MANIFEST = f"{ROOT}/manifests/latest"
BLOBS = f"{ROOT}/blobs"
SMALL_BLOB = f"{BLOBS}/{Digest.of(SMALL)}"
LARGE_BLOB = f"{BLOBS}/{Digest.of(LARGE)}"
HEX = "a" * 64
RANGES = ",".join(f"{2 * n}-{2 * n}" for n in range(1025))


class Row(NamedTuple):
    """A request, and how it is answered."""

    request: bytes
    status: int
    code: str | None = None
    """Of an error in the form of the specification; None: the content, or the server's words."""
    uvicorn: int | None = None
    """The status under uvicorn, where that reads what aiohttp refuses."""


def get(target: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: registry", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


NAME, DIGEST, ENDPOINT = (400, "NAME_INVALID"), (400, "DIGEST_INVALID"), (404, "UNSUPPORTED")
READ_ONLY, QUERY, RANGE = (405, "UNSUPPORTED"), (400, "UNSUPPORTED"), (400, "RANGE_INVALID")

UNASKED = {
    "path traversal": Row(get("/v2/../../etc/passwd"), *NAME),
    "path traversal in a name": Row(get("/v2/team/../app/manifests/latest"), *NAME),
    "encoded dots": Row(get("/v2/team/%2e%2e/app/manifests/latest"), *NAME),
    "encoded slash": Row(get("/v2/team%2Fapp/manifests/latest"), *NAME),
    "encoded slash and dots": Row(get("/v2/a/b%2F..%2Fb/manifests/latest"), *NAME),
    "encoded NUL": Row(get("/v2/team%00/app/manifests/latest"), *NAME),
    "encoded line break": Row(get("/v2/team%0A/app/manifests/latest"), *NAME),
    "empty part": Row(get("/v2//team/app/manifests/latest"), *NAME),
    "backslash": Row(get("/v2/team\\app/manifests/latest"), *NAME),
    "capitals": Row(get("/v2/Team/app/manifests/latest"), *NAME),
    "long name": Row(get(f"/v2/{'a' * 300}/manifests/latest"), *NAME),
    "long tag": Row(get(f"{ROOT}/manifests/{'a' * 129}"), 404, "MANIFEST_UNKNOWN"),
    "short digest": Row(get(f"{BLOBS}/sha256:{HEX[1:]}"), *DIGEST),
    "digest in capitals": Row(get(f"{BLOBS}/sha256:{HEX.upper()}"), *DIGEST),
    "digest of an unknown algorithm": Row(get(f"{BLOBS}/md5:{HEX[:32]}"), *DIGEST),
    "digest that is a path": Row(get(f"{BLOBS}/sha256:..%2F..%2Fetc%2Fpasswd"), *DIGEST),
    "digest with a line break": Row(get(f"{BLOBS}/sha256:{HEX}%0A"), *DIGEST),
    "manifest by a wrong digest": Row(get(f"{ROOT}/manifests/sha256:bad"), *DIGEST),
    "referrers of a wrong digest": Row(get(f"{ROOT}/referrers/sha256:bad"), *DIGEST),
    "other endpoint": Row(get("/v2/_catalog"), *ENDPOINT),
    "outside": Row(get("/other"), *ENDPOINT),
    "negative number": Row(get(f"{ROOT}/tags/list?n=-1"), 400, "PAGINATION_NUMBER_INVALID"),
    "many fields": Row(get(f"{ROOT}/tags/list?{'a=1&' * 40}"), *QUERY),
    "registry that is a URL": Row(get(f"{MANIFEST}?ns=http://evil.example/"), *NAME),
    "two registries": Row(get(f"{MANIFEST}?ns=a.test&ns=b.test"), *NAME),
    "write": Row(get(f"{BLOBS}/uploads/", "Content-Length: 0", method="POST"), *READ_ONLY),
    "write, said to be a read": Row(
        get(MANIFEST, "X-HTTP-Method-Override: GET", method="DELETE"), *READ_ONLY
    ),
    "OPTIONS": Row(get(MANIFEST, method="OPTIONS"), *READ_ONLY),
    "TRACE": Row(get(MANIFEST, method="TRACE"), *READ_ONLY),
    "unknown method": Row(get(MANIFEST, method="BREW"), 400, uvicorn=405),
    "method in small letters": Row(get(MANIFEST, method="get"), 400, uvicorn=405),
    "long path": Row(get(f"/v2/{'x' * 100_000}"), 400, uvicorn=404),
    "long query": Row(get(f"{ROOT}/tags/list?last={'a' * 9000}"), 400),
    "bytes beyond ASCII in the path": Row(get("/v2/team/\xe4pp/manifests/latest"), 400),
    "NUL in the path": Row(get("/v2/team/a\x00pp/manifests/latest"), 400),
    "NUL in a header": Row(get(MANIFEST, "X: a\x00b"), 400),
    "two hosts": Row(get(MANIFEST, "Host: other"), 400),
    "no host": Row(f"GET {MANIFEST} HTTP/1.1\r\n\r\n".encode(), 400),
    "length and chunks": Row(
        get(MANIFEST, "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400
    ),
    "two lengths": Row(get(MANIFEST, "Content-Length: 1", "Content-Length: 2"), 400),
    "negative length": Row(get(MANIFEST, "Content-Length: -1"), 400),
    "space in a header": Row(get(MANIFEST, "X : y"), 400),
    "another protocol": Row(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
}
"""What reaches no catalog."""

ASKED = {
    "1025 ranges": Row(get(LARGE_BLOB, f"Range: bytes={RANGES}"), *RANGE),
    "ranges that overlap": Row(get(LARGE_BLOB, "Range: bytes=0-5,3-9"), *RANGE),
    "offset of 23 digits": Row(get(SMALL_BLOB, f"Range: bytes={'9' * 23}-"), 200),
    "read, said to be a write": Row(get(MANIFEST, "X-HTTP-Method-Override: DELETE"), 200),
    "target in absolute form": Row(get(f"http://evil.example{MANIFEST}"), 200),
    "absolute form, unknown": Row(
        get("http://evil.example/v2/none/tags/list"), 404, "NAME_UNKNOWN"
    ),
    "bytes beyond ASCII in a header": Row(get(MANIFEST, "If-None-Match: \xff\xfe"), 200),
    "body of a GET": Row(get(MANIFEST, "Content-Length: 5", body=b"abcde"), 200),
    "body of a HEAD": Row(get(MANIFEST, "Content-Length: 5", method="HEAD", body=b"abcde"), 200),
    "password that is no text": Row(get(MANIFEST, "Authorization: Basic \xff"), 200),
    "1 MiB of headers": Row(get(MANIFEST, *[f"X-{n}: {'x' * 1000}" for n in range(1000)]), 400),
}
"""What may reach the catalog."""


@pytest.fixture(params=[aiohttp_port, uvicorn_port], ids=["aiohttp", "uvicorn"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param


async def read_answer(client: RawClient, *, head: bool = False) -> tuple[int, bytes]:
    status, pairs = await client.read_head()
    headers = {name.lower(): value for name, value in pairs}
    body = b""
    if not head and "content-length" in headers:
        body = await client.read_exactly(int(headers["content-length"]))
    elif not head:
        body, _ = await client.read_to_end()
    if int(status.split()[1]) == 405:
        assert headers["allow"] == "GET, HEAD"
    return int(status.split()[1]), body


@pytest.mark.parametrize("name", [*UNASKED, *ASKED])
async def test_SRV17_SRV43_SRV09_each_row_of_the_table(
    run: Run, catalog: FakeCatalog, session: Session, name: str
) -> None:
    row = UNASKED.get(name) or ASKED[name]
    async with run(catalog, session) as port:
        async with connect(port) as client:
            client.send(row.request)
            status, body = await read_answer(client, head=row.request.startswith(b"HEAD"))
        wanted = row.status if run is aiohttp_port or row.uvicorn is None else row.uvicorn
        assert status == wanted
        if row.code is not None:
            [error] = msgspec.json.decode(body)["errors"]
            assert error["code"] == row.code
        assert b"Traceback" not in body
        assert name in ASKED or catalog.asked == []
        async with connect(port) as client:
            client.get(SMALL_BLOB)
            assert await read_answer(client) == (200, SMALL), "it serves on"
    assert catalog.open_images == 0


async def test_SRV36_pipelined_requests_are_answered_in_order(
    run: Run, catalog: FakeCatalog, session: Session, image: BuiltImage
) -> None:
    async with run(catalog, session) as port, connect(port) as client:
        client.get(SMALL_BLOB)
        client.get(SMALL_BLOB, "Content-Length: 30", method="HEAD")
        client.send(b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"[:30])
        client.get(MANIFEST)
        client.get("/v2/none/tags/list")
        assert await read_answer(client) == (200, SMALL)
        assert await read_answer(client, head=True) == (200, b"")
        assert await read_answer(client) == (200, image.raw)
        assert (await read_answer(client))[0] == 404


# Memory


def count_objects() -> int:
    gc.collect()
    return len(gc.get_objects())


async def ask_pipelined(port: int, targets: Iterator[str], count: int) -> None:
    """Ask for many targets that do not exist, some at a time, on one connection each."""
    for _ in range(0, count, 100):
        async with connect(port) as client:
            for _ in range(100):
                client.get(next(targets))
            for _ in range(100):
                assert (await read_answer(client))[0] == 404
    await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_10000_unknown_names_leave_nothing(run: Run, session: Session) -> None:
    names = (f"/v2/name{number}/manifests/tag{number}" for number in range(20_000))
    async with Catalog({"team/*": "oci:/nowhere"}) as catalog, run(catalog, session) as port:
        await ask_pipelined(port, names, 500)  # what is kept of the last paths is full then
        before = count_objects()
        await ask_pipelined(port, names, 10_000)
        assert count_objects() - before < 500
        assert catalog.stats() == (0, 0, 0, 0)


async def test_1000_unknown_names_leave_nothing_in_the_application(
    catalog: FakeCatalog, session: Session
) -> None:
    app = web.asgi_app(catalog, session)

    async def ask(start: int, end: int) -> int:
        for number in range(start, end):
            exchange = Exchange("GET", f"/v2/name{number}/manifests/latest")
            await app(exchange.scope, exchange.receive, exchange.send)
            assert exchange.reply().code == "NAME_UNKNOWN"
            catalog.asked.clear()
            catalog.principals.clear()
            await asyncio.sleep(0)  # lets the event loop drop timers that were cancelled
        return count_objects()

    before = await ask(0, 300)
    assert await ask(300, 1300) - before < 500


# Caches that cannot be written


def break_disk(monkeypatch: pytest.MonkeyPatch, directory: Path, code: int) -> None:
    """Let every call fail that would write to a directory, or any that writes bytes."""

    def fail(*_: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    def refuse(name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def call(path: Any, *arguments: Any, **keywords: Any) -> Any:
            writes = name == "mkdir" or (arguments and arguments[0] & os.O_CREAT)
            if writes and str(path).startswith(str(directory)):
                fail()
            return real(path, *arguments, **keywords)

        monkeypatch.setattr(os, name, call)

    if code == errno.ENOSPC:
        monkeypatch.setattr(os, "pwrite", fail)
    else:
        refuse("open")
        refuse("mkdir")


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC], ids=["read-only", "full"])
async def test_without_a_cache_that_can_be_written_it_serves_on(
    run: Run,
    catalog: FakeCatalog,
    control: SourceControl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    directory = tmp_path / "cache"
    async with (
        LayoutCache(directory, 1 << 30) as cache,
        Session(cache=cache) as session,
        run(catalog, session) as port,
    ):
        break_disk(monkeypatch, directory, code)
        for _ in range(2):
            for target, content in ((SMALL_BLOB, SMALL), (LARGE_BLOB, LARGE)):
                async with connect(port) as client:
                    client.get(target)
                    assert await read_answer(client) == (200, content)
            await settle(session)
        monkeypatch.undo()
    assert control.left_open == 0
    assert control.count("/blobs/*") == 4, "nothing was kept"
