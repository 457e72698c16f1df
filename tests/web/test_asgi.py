"""The ASGI application: messages, cuts, files, mounts, and a real server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount

from asupplemented import LayoutCache, Session, web
from asupplemented.cache.sharing import settle
from asupplemented.errors import SourceTimeoutError, SupplementedError, UnsupportedOperationError
from asupplemented.model.digest import Digest
from asupplemented.testing import Cut, SourceControl, Stall
from asupplemented.web import Limits
from asupplemented.web.asgi import SLICE
from tests.clocks import let_pass
from tests.testing.raw_client import RawClient
from tests.web.clients import Exchange, until
from tests.web.conftest import LARGE, SMALL
from tests.web.servers import run_uvicorn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented.testing import BuiltImage
    from tests.web.catalogs import FakeCatalog

ROOT = "/v2/team/app"
BLOB = f"{ROOT}/blobs/{Digest.of(LARGE)}"
SMALL_BLOB = f"{ROOT}/blobs/{Digest.of(SMALL)}"
PATHSEND = {"http.response.pathsend": {}}


async def call(app: Any, exchange: Exchange) -> Exchange:
    await app(exchange.scope, exchange.receive, exchange.send)
    return exchange


async def test_SRV37_a_blob_that_breaks_off_raises_so_that_the_server_cuts(
    catalog: FakeCatalog, session: Session, control: SourceControl
) -> None:
    control.script("/blobs/*", Cut(3 << 20, "rst"), forever=True)
    exchange = Exchange("GET", BLOB)
    with pytest.raises(SupplementedError):
        await call(web.asgi_app(catalog, session), exchange)
    assert exchange.messages[0]["status"] == 200
    assert len(exchange.body) < len(LARGE)
    assert exchange.messages[-1]["more_body"], "the body is not ended"
    assert (catalog.open_images, control.left_open) == (0, 0)


async def test_SRV38_a_client_that_has_gone_frees_what_it_waited_for(
    catalog: FakeCatalog, session: Session, control: SourceControl
) -> None:
    catalog.gate = asyncio.Event()
    exchange = Exchange("GET", BLOB)
    calling = asyncio.ensure_future(call(web.asgi_app(catalog, session), exchange))
    await until(lambda: catalog.asked)
    exchange.gone.set()
    await let_pass(1)
    await calling
    assert exchange.messages == []


async def test_SRV38_SRV37_a_client_that_goes_in_the_middle_frees_the_blob(
    catalog: FakeCatalog, session: Session, control: SourceControl
) -> None:
    control.script("/blobs/*", Stall(1 << 20), forever=True)
    exchange = Exchange("GET", BLOB)
    calling = asyncio.ensure_future(call(web.asgi_app(catalog, session), exchange))
    await until(lambda: len(exchange.messages) > 1)
    exchange.gone.set()
    await let_pass(1)
    await calling
    assert not exchange.is_complete
    assert (catalog.open_images, control.left_open) == (0, 0)


async def test_a_cancelled_request_stays_cancelled(catalog: FakeCatalog, session: Session) -> None:
    catalog.gate = asyncio.Event()
    calling = asyncio.ensure_future(call(web.asgi_app(catalog, session), Exchange("GET", BLOB)))
    await until(lambda: catalog.asked)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_SRV43_a_client_that_takes_nothing_is_cut(
    catalog: FakeCatalog, session: Session, control: SourceControl
) -> None:
    app = web.asgi_app(catalog, session, limits=Limits(write=30))
    exchange = Exchange("GET", BLOB)
    exchange.gate = asyncio.Event()
    calling = asyncio.ensure_future(call(app, exchange))
    await until(lambda: exchange.messages)
    await let_pass(30)
    with pytest.raises(SourceTimeoutError):
        await calling
    assert (catalog.open_images, control.left_open) == (0, 0)


async def test_messages_are_slices(catalog: FakeCatalog, session: Session) -> None:
    exchange = await call(web.asgi_app(catalog, session), Exchange("GET", BLOB))
    assert exchange.reply().body == LARGE
    assert max(len(message["body"]) for message in exchange.messages[1:]) <= SLICE


@asynccontextmanager
async def cached(tmp_path: Path, catalog: FakeCatalog) -> AsyncIterator[Any]:
    """An application whose blobs are files of a cache."""
    async with AsyncExitStack() as scope:
        cache = await scope.enter_async_context(LayoutCache(tmp_path / "cache", 1 << 30))
        session = await scope.enter_async_context(Session(cache=cache))
        app = web.asgi_app(catalog, session)
        assert (await call(app, Exchange("GET", BLOB))).reply().body == LARGE
        await settle(session)
        yield app


async def test_SRV41_a_whole_file_is_handed_over_where_that_is_offered(
    tmp_path: Path, catalog: FakeCatalog, control: SourceControl
) -> None:
    async with cached(tmp_path, catalog) as app:
        exchange = await call(app, Exchange("GET", BLOB, extensions=PATHSEND))
        start, sent = exchange.messages
        assert (start["status"], sent["type"]) == (200, "http.response.pathsend")
        with open(sent["path"], "rb") as file:  # noqa: PTH123, ASYNC230 - as the server does
            assert file.read() == LARGE
        part = await call(app, Exchange("GET", BLOB, (("Range", "bytes=0-"),), extensions=PATHSEND))
        assert (part.reply().status, part.body) == (206, LARGE)
        plain = await call(app, Exchange("GET", BLOB))
        assert plain.reply().body == LARGE
        assert plain.reply().headers["Cache-Status"] == "asupplemented; hit"
        manifest = await call(app, Exchange("GET", f"{ROOT}/manifests/latest", extensions=PATHSEND))
        assert manifest.messages[-1]["type"] == "http.response.body"
    assert control.count("/blobs/*") == 1
    assert control.left_open == 0


async def test_SRV39_a_file_that_shrinks_is_cut(
    tmp_path: Path, catalog: FakeCatalog, control: SourceControl
) -> None:
    async with cached(tmp_path, catalog) as app:
        found = (tmp_path / "cache").rglob(BLOB[-64:])
        (blob,) = (path for path in found if path.stat().st_size == len(LARGE))
        exchange = Exchange("GET", BLOB)
        send = exchange.send

        async def shrink(message: Any) -> None:
            await send(message)
            blob.chmod(0o600)
            with blob.open("r+b") as file:
                file.truncate(SLICE)

        with pytest.raises(SupplementedError):
            await app(exchange.scope, exchange.receive, shrink)
        assert exchange.body == LARGE[:SLICE]
        assert not exchange.is_complete


async def test_SRV12_SRV54_a_blob_that_is_evicted_is_sent_to_its_end(
    tmp_path: Path, catalog: FakeCatalog
) -> None:
    async with cached(tmp_path, catalog) as app:
        found = (tmp_path / "cache").rglob(BLOB[-64:])
        (blob,) = (path for path in found if path.stat().st_size == len(LARGE))
        exchange = Exchange("GET", BLOB)
        send = exchange.send

        async def evict(message: Any) -> None:
            await send(message)
            blob.unlink(missing_ok=True)

        await app(exchange.scope, exchange.receive, evict)
        assert exchange.reply().body == LARGE
        assert exchange.reply().headers["Cache-Status"] == "asupplemented; hit"
        again = await call(app, Exchange("GET", BLOB))
        assert again.reply().body == LARGE


async def test_SRV31_compression_is_stopped(catalog: FakeCatalog, session: Session) -> None:
    app = web.asgi_app(catalog, session)
    for target in (BLOB, f"{ROOT}/manifests/latest"):
        exchange = await call(app, Exchange("GET", target, (("Accept-Encoding", "br, gzip"),)))
        assert exchange.reply().headers["Content-Encoding"] == "identity"
        plain = await call(app, Exchange("GET", target))
        assert "Content-Encoding" not in plain.reply().headers
        assert plain.body == exchange.body


@pytest.mark.parametrize(
    ("target", "scope", "base"),
    [
        ("/v2/team/app/tags/list?n=1", {"root_path": "/v2"}, "/v2"),
        ("/v2/team/app/tags/list?n=1", {"root_path": ""}, "/v2"),
        ("/v2/team/app/tags/list?n=1", {"raw_path": None}, "/v2"),
        ("/api/v2/team/app/tags/list?n=1", {"root_path": "/api"}, "/api/v2"),
        ("/api/v2/team/app/tags/list?n=1", {"root_path": "/api/v2"}, "/api/v2"),
    ],
)
async def test_SRV42_it_is_mounted_or_run_as_it_is(
    catalog: FakeCatalog, session: Session, target: str, scope: dict[str, Any], base: str
) -> None:
    catalog.tags = ("a", "b")
    exchange = await call(web.asgi_app(catalog, session), Exchange("GET", target, **scope))
    link = f'<{base}/team/app/tags/list?last=a&n=1>; rel="next"'
    assert exchange.reply().headers["Link"] == link


async def test_lifespan_and_websockets(catalog: FakeCatalog, session: Session) -> None:
    app = web.asgi_app(catalog, session)
    sent: list[str] = []
    messages = iter(["lifespan.startup", "lifespan.shutdown", "websocket.connect"])

    async def receive() -> dict[str, str]:
        return {"type": next(messages)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    await app({"type": "websocket"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
    with pytest.raises(UnsupportedOperationError, match="other"):
        await app({"type": "other"}, receive, send)


@pytest.mark.parametrize("mount", ["/v2", "/"])
async def test_SRV42_SRV31_SRV37_under_starlette_and_uvicorn(
    catalog: FakeCatalog, session: Session, image: BuiltImage, control: SourceControl, mount: str
) -> None:
    app = Starlette(
        routes=[Mount(mount, app=web.asgi_app(catalog, session))],
        middleware=[Middleware(GZipMiddleware, minimum_size=1)],
    )
    async with run_uvicorn(app) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/v2/")).json() == {}
            manifest = await http.get(f"{ROOT}/manifests/latest")
            assert manifest.content == image.raw
            assert manifest.headers["content-length"] == str(len(image.raw))
            assert (await http.get(BLOB)).content == LARGE
            head = await http.head(BLOB)
            assert head.headers["content-length"] == str(len(LARGE))
            part = await http.get(BLOB, headers={"Range": "bytes=5-9"})
            assert (part.status_code, part.content) == (206, LARGE[5:10])
            assert (await http.put(f"{ROOT}/manifests/latest")).status_code == 405
        control.script("/blobs/*", Cut(3 << 20, "rst"), forever=True)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        client = RawClient(reader, writer)
        client.get(BLOB)
        client.get("/v2/")
        await client.read_head()
        body, _ = await client.read_to_end()
        assert len(body) < len(LARGE)
        assert b"HTTP/1.1" not in body
        writer.close()
