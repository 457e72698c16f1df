"""The application for aiohttp, on the wire: cuts, files, mounts and bad input."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web as aiohttp_web
from aiohttp.test_utils import TestServer

from asupplemented import LayoutCache, Session, web
from asupplemented.cache.sharing import settle
from asupplemented.model.digest import Digest
from asupplemented.supplemented import supplement
from asupplemented.testing import (
    Corrupt,
    Cut,
    FaultyReference,
    Hold,
    Slow,
    SourceControl,
    Stall,
    build_image,
    hold_in_memory,
)
from asupplemented.web import Limits
from asupplemented.web.sendfile import SLICE
from tests.clocks import let_pass
from tests.suspending import count_open_files
from tests.testing.raw_client import RawClient
from tests.web.catalogs import FakeCatalog
from tests.web.clients import until
from tests.web.conftest import LARGE, SMALL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from asupplemented.testing import Authority, BuiltImage

ROOT = "/v2/team/app"
BLOB = f"{ROOT}/blobs/{Digest.of(LARGE)}"
SMALL_BLOB = f"{ROOT}/blobs/{Digest.of(SMALL)}"


@asynccontextmanager
async def run(app: aiohttp_web.Application, **options: Any) -> AsyncIterator[TestServer]:
    async with TestServer(app) as server:
        yield server


@asynccontextmanager
async def raw(
    server: TestServer, tls: ssl.SSLContext | None = None, *, buffer: int | None = None
) -> AsyncIterator[RawClient]:
    assert server.port is not None
    connection = socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.setblocking(False)  # noqa: FBT003
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", server.port))
    name = None if tls is None else ""
    reader, writer = await asyncio.open_connection(
        sock=connection, ssl=tls, server_hostname=name, limit=1 << 16
    )
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


@pytest.fixture
async def server(catalog: FakeCatalog, session: Session) -> AsyncIterator[TestServer]:
    async with TestServer(web.registry_app(catalog, session)) as server:
        yield server


async def read_answer(client: RawClient) -> tuple[int, dict[str, str], bytes]:
    status, pairs = await client.read_head()
    headers = dict(pairs)
    body = await client.read_exactly(int(headers.get("Content-Length", "0")))
    return int(status.split()[1]), headers, body


# Cuts


@pytest.mark.parametrize(
    "fault",
    [Cut(3 << 20), Cut(3 << 20, "rst"), Corrupt(at=1 << 20), Corrupt(at=len(LARGE) - 1)],
    ids=["fin", "rst", "corrupt", "corrupt at the end"],
)
async def test_SRV36_SRV24_a_blob_that_breaks_is_cut_and_nothing_follows(
    server: TestServer, control: SourceControl, fault: Any, catalog: FakeCatalog
) -> None:
    control.script("/blobs/*", fault, forever=True)
    async with raw(server) as client:
        client.get(BLOB)
        client.get(SMALL_BLOB, method="HEAD")
        status, headers = await client.read_head()
        assert (status.split()[1], dict(headers)["Content-Length"]) == ("200", str(len(LARGE)))
        body, _ = await client.read_to_end()
        assert len(body) < len(LARGE)
        assert LARGE.startswith(body) or isinstance(fault, Corrupt)
        assert b"HTTP/1.1" not in body
    await until(lambda: (catalog.open_images, control.left_open) == (0, 0))


async def test_a_small_blob_that_is_wrong_is_an_error(
    server: TestServer, control: SourceControl
) -> None:
    control.script("/blobs/*", Corrupt(), forever=True)
    async with raw(server) as client:
        client.get(SMALL_BLOB)
        status, _, body = await read_answer(client)
        assert status == 502
        assert b"UNAVAILABLE" in body


async def test_SRV36_a_part_that_breaks_is_cut(server: TestServer, control: SourceControl) -> None:
    control.script("/blobs/*", None, Cut(5, "rst"), forever=True)
    async with raw(server) as client:
        client.get(BLOB, "Range: bytes=0-9,20-39")
        client.get("/v2/")
        status, _ = await client.read_head()
        assert status.split()[1] == "206"
        body, _ = await client.read_to_end()
        assert b"HTTP/1.1" not in body


async def test_SRV36_a_fault_of_ours_is_cut_and_reported(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    fault = RuntimeError("a bug")

    async def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr("asupplemented.web.exchange.RangeReader.__anext__", fail)
    async with raw(server) as client:
        client.get(BLOB)
        client.get("/v2/")
        await client.read_head()
        assert (await client.read_to_end())[0] == b""
    assert told == [fault]


# Time


class Reached(asyncio.Event):
    """An event that is never set, and says when it is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def wait(self) -> bool:  # type: ignore[override]
        self.reached.set()
        return await super().wait()


async def test_SRV25_a_stalled_source_is_left_within_5_seconds(image: BuiltImage) -> None:
    stalled, other = SourceControl(), SourceControl()
    members = [FaultyReference(hold_in_memory("app", image), each) for each in (other, stalled)]
    stalls = Reached(), Reached()
    stalled.script("/blobs/*", Stall(1 << 20, stalls[0]), Stall(0, stalls[1]))
    catalog = FakeCatalog({"team/app": supplement(*members)})
    async with Session() as session:
        assert session.timeouts.stall == 60
        async with run(web.registry_app(catalog, session)) as server, raw(server) as client:
            client.get(BLOB)
            await client.read_head()
            reading = asyncio.ensure_future(client.reader.readexactly(len(LARGE)))
            for stall in stalls:  # it is asked once more, and left for good
                await stall.reached.wait()
                await let_pass(2.5)
            assert await reading == LARGE
    assert other.count("/blobs/*") == 1


@pytest.mark.parametrize("content", [LARGE, SMALL], ids=["large", "verified first"])
async def test_SRV25_the_head_of_a_blob_that_begins_late_comes_in_time(
    catalog: FakeCatalog, session: Session, control: SourceControl, content: bytes
) -> None:
    begins = Reached()
    control.script("/blobs/*", Stall(0, begins), forever=True)
    app = web.registry_app(catalog, session, limits=Limits(head=10, stall=60))
    async with run(app) as server, raw(server) as client:
        client.get(f"{ROOT}/blobs/{Digest.of(content)}")
        await begins.reached.wait()
        await let_pass(9)
        told, headers = await client.read_head()
        assert (told.split()[1], dict(headers)["Content-Length"]) == ("200", str(len(content)))
    await asyncio.sleep(0.01)
    await let_pass(1)
    await until(lambda: (catalog.open_images, control.left_open) == (0, 0))


async def test_SRV54_a_long_body_has_no_total_timeout(
    server: TestServer, control: SourceControl
) -> None:
    permits = asyncio.Semaphore(0)
    control.script("/blobs/*", Slow(256 * 1024, permits=permits))
    async with raw(server) as client:
        client.get(BLOB)
        permits.release()
        await client.read_head()
        reading = asyncio.ensure_future(client.reader.readexactly(len(LARGE)))
        while not reading.done():
            await until(lambda: permits.locked() or reading.done())
            await let_pass(4)
            permits.release()
        assert await reading == LARGE


async def test_SRV38_a_client_that_has_gone_frees_what_it_waited_for(
    server: TestServer, catalog: FakeCatalog, control: SourceControl
) -> None:
    catalog.gate = asyncio.Event()
    async with raw(server) as client:
        client.get(BLOB)
        await until(lambda: catalog.asked)
    gone = asyncio.ensure_future(until(lambda: not handlers()))
    await asyncio.sleep(0.01)
    await let_pass(1)
    await gone
    assert control.sources_opened == 0


async def test_SRV38_SRV54_a_client_that_goes_in_the_middle_frees_the_blob(
    server: TestServer, catalog: FakeCatalog, control: SourceControl
) -> None:
    control.script("/blobs/*", Stall(1 << 20), forever=True)
    async with raw(server) as client:
        client.get(BLOB)
        await client.read_head()
        assert control.bodies_opened == 1
    await asyncio.sleep(0.01)
    await let_pass(1)
    await until(lambda: control.left_open == 0 and catalog.open_images == 0)


def handlers() -> list[asyncio.Task[Any]]:
    names = (task.get_coro().__qualname__ for task in asyncio.all_tasks())  # type: ignore[union-attr]
    return [name for name in names if "_handle_request" in name]


async def test_SRV43_a_client_that_takes_nothing_is_cut(
    catalog: FakeCatalog, session: Session, control: SourceControl
) -> None:
    app = web.registry_app(catalog, session, limits=Limits(write=30))
    async with run(app) as server, raw(server) as client:
        client.writer.transport.pause_reading()
        for _ in range(4):  # more than the buffers of the sockets hold
            client.get(BLOB)
        await until(lambda: control.bodies_opened == control.bodies_closed > 0)
        while handlers():
            await let_pass(1)
            await asyncio.sleep(0.001)
        assert control.left_open == 0
        client.writer.transport.resume_reading()
        body, _ = await client.read_to_end()
        assert len(body) < 4 * len(LARGE)


async def test_SRV43_a_slow_client_that_takes_bytes_is_served(
    catalog: FakeCatalog, session: Session, control: SourceControl
) -> None:
    content = LARGE * 6  # more than the buffers of the sockets hold
    image = hold_in_memory("app", build_image(layers=[content]))
    catalog.names["team/app"] = FaultyReference(image, control)
    app = web.registry_app(catalog, session, limits=Limits(write=60))
    async with run(app) as server, raw(server, buffer=256 * 1024) as client:
        client.get(f"{ROOT}/blobs/{Digest.of(content)}")
        await client.read_head()
        await until(lambda: control.bodies_opened == control.bodies_closed > 0)
        for _ in range(24):  # one write of the server lasts longer than the limit
            await client.reader.readexactly(128 * 1024)
            await let_pass(5)
        await client.reader.readexactly(len(content) - 24 * 128 * 1024)
        await until(lambda: control.left_open == 0)


# Files


class Files:
    """A registry whose blobs are files of a cache."""

    def __init__(self, server: TestServer, session: Session, control: SourceControl) -> None:
        self.server = server
        self.session = session
        self.control = control

    async def fill(self) -> None:
        async with raw(self.server) as client:
            client.get(BLOB)
            assert (await read_answer(client))[2] == LARGE
        await settle(self.session)


@asynccontextmanager
async def serve_files(
    tmp_path: Path, catalog: FakeCatalog, control: SourceControl, **options: Any
) -> AsyncIterator[Files]:
    async with AsyncExitStack() as scope:
        cache = await scope.enter_async_context(
            LayoutCache(tmp_path / "cache", 1 << 30, fills=True)
        )
        session = await scope.enter_async_context(Session(cache=cache))
        server = TestServer(
            web.registry_app(catalog, session), scheme="https" if options else "http"
        )
        await server.start_server(**options)
        await scope.enter_async_context(server)
        yield Files(server, session, control)


class Kernel:
    """Stands before ``os.sendfile`` and writes down the slices."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slices: list[int] = []
        self.before: Callable[[], None] = lambda: None
        send = os.sendfile

        def sendfile(out: int, file: int, offset: int, count: int) -> int:
            self.before()
            sent = send(out, file, offset, min(count, 1 << 19))
            self.slices.append(sent)
            return sent

        monkeypatch.setattr(os, "sendfile", sendfile)


async def test_SRV40_SRV33_a_verified_file_goes_out_in_slices(
    tmp_path: Path, catalog: FakeCatalog, control: SourceControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_files(tmp_path, catalog, control) as files:
        await files.fill()
        kernel = Kernel(monkeypatch)
        async with raw(files.server) as client:
            client.get(BLOB)
            client.get(BLOB, "Range: bytes=0-")
            client.get(BLOB, "Range: bytes=7-")
            _, headers, body = await read_answer(client)
            assert (body, headers["Cache-Status"]) == (LARGE, "asupplemented; hit")
            status, headers, body = await read_answer(client)
            assert (status, body) == (206, LARGE)
            status, headers, body = await read_answer(client)
            assert (status, body) == (206, LARGE[7:])
    assert max(kernel.slices) <= SLICE
    assert sum(kernel.slices) == 2 * len(LARGE)
    assert control.count("/blobs/*") == 1


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS, None])
async def test_SRV40_without_sendfile_a_file_goes_out_in_chunks(
    tmp_path: Path,
    catalog: FakeCatalog,
    control: SourceControl,
    monkeypatch: pytest.MonkeyPatch,
    error: int | None,
) -> None:
    async with serve_files(tmp_path, catalog, control) as files:
        await files.fill()
        kernel = Kernel(monkeypatch)

        def refuse() -> None:
            raise OSError(error, "no such call")

        kernel.before = refuse
        if error is None:
            monkeypatch.delattr(os, "sendfile")
        async with raw(files.server) as client:
            client.get(BLOB)
            assert (await read_answer(client))[2] == LARGE
    assert kernel.slices == []


async def test_SRV40_a_client_that_goes_frees_the_file(
    tmp_path: Path, catalog: FakeCatalog, control: SourceControl
) -> None:
    async with serve_files(tmp_path, catalog, control) as files:
        await files.fill()
        before = count_open_files()
        async with raw(files.server, buffer=1024) as client:
            client.get(BLOB)
            await client.read_head()
            await until(lambda: catalog.open_images == 1)
            client.writer.transport.pause_reading()
        await asyncio.sleep(0.01)
        await let_pass(1)
        await until(lambda: catalog.open_images == 0)
        await until(lambda: count_open_files() <= before)


async def test_SRV40_over_TLS_a_file_goes_out_in_chunks(
    tmp_path: Path, catalog: FakeCatalog, control: SourceControl, authority: Authority
) -> None:
    context = authority.server_context()
    tls = ssl.create_default_context(cafile=None)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    async with serve_files(tmp_path, catalog, control, ssl=context) as files:
        for _ in range(2):
            async with raw(files.server, tls) as client:
                client.get(BLOB)
                assert (await read_answer(client))[2] == LARGE
            await settle(files.session)
    assert control.count("/blobs/*") == 1


async def test_SRV39_a_file_that_shrinks_is_cut(
    tmp_path: Path, catalog: FakeCatalog, control: SourceControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_files(tmp_path, catalog, control) as files:
        await files.fill()
        kernel = Kernel(monkeypatch)
        found = (tmp_path / "cache").rglob(BLOB[-64:])
        (blob,) = (path for path in found if path.stat().st_size == len(LARGE))

        def shrink() -> None:
            if len(kernel.slices) == 3:
                blob.chmod(0o600)
                with blob.open("r+b") as file:
                    file.truncate(SLICE)

        kernel.before = shrink
        async with raw(files.server) as client:
            client.get(BLOB)
            client.get("/v2/")
            await client.read_head()
            body, _ = await client.read_to_end()
            # The kernel may clear what was behind the new end and is on its way.
            assert body.startswith(LARGE[:SLICE])
            assert len(body) < len(LARGE)
            assert b"HTTP/1.1" not in body


async def test_SRV26_a_range_of_a_cold_blob_is_served_while_the_whole_is_kept(
    tmp_path: Path, catalog: FakeCatalog, control: SourceControl
) -> None:
    async with serve_files(tmp_path, catalog, control) as files:
        async with raw(files.server) as client:
            client.get(BLOB, "Range: bytes=4000000-4000009")
            status, headers, body = await read_answer(client)
            assert (status, body) == (206, LARGE[4_000_000:4_000_010])
            assert headers["Cache-Status"] == "asupplemented; fwd=uri-miss; stored"
        await until(lambda: control.count("/blobs/*") == 2 and control.in_flight == 0)
        await settle(files.session)
        async with raw(files.server) as client:
            client.get(BLOB)
            assert (await read_answer(client))[2] == LARGE
        assert control.count("/blobs/*") == 2


async def test_SRV26_open_ranges_of_a_cold_blob_are_one_fetch(
    tmp_path: Path, catalog: FakeCatalog, control: SourceControl
) -> None:
    buffer = len(LARGE) // 5
    gate = asyncio.Event()
    control.script("/blobs/*", Hold(gate))
    async with serve_files(tmp_path, catalog, control) as files, AsyncExitStack() as scope:
        clients = [await scope.enter_async_context(raw(files.server)) for _ in range(5)]
        for number, client in enumerate(clients):
            client.get(BLOB, f"Range: bytes={number * buffer}-")
        await until(lambda: catalog.open_images == 5)
        gate.set()
        for number, client in enumerate(clients):
            start = number * buffer
            status, headers = await client.read_head()
            assert status.split()[1] == "206"
            whole = f"bytes {start}-{len(LARGE) - 1}/{len(LARGE)}"
            assert dict(headers)["Content-Range"] == whole
            assert await client.read_exactly(buffer) == LARGE[start : start + buffer]
            client.writer.transport.abort()  # as containerd does, which has what it wants
        await asyncio.sleep(0.01)
        await let_pass(1)
        await until(lambda: catalog.open_images == 0)
        await settle(files.session)
        async with raw(files.server) as client:
            client.get(BLOB)
            _, headers, body = await read_answer(client)
            assert (body, headers["Cache-Status"]) == (LARGE, "asupplemented; hit")
    assert (control.count("/blobs/*"), control.left_open) == (1, 0)


async def test_SRV12_readers_share_one_fetch_and_one_may_leave(
    tmp_path: Path, catalog: FakeCatalog, control: SourceControl
) -> None:
    until_read = asyncio.Event()
    control.script("/blobs/*", Hold(until_read))
    async with serve_files(tmp_path, catalog, control) as files, AsyncExitStack() as scope:
        clients = [await scope.enter_async_context(raw(files.server)) for _ in range(8)]
        for client in clients:
            client.get(BLOB)
        await until(lambda: catalog.open_images == 8)
        clients[0].writer.transport.abort()
        until_read.set()
        for client in clients[1:]:
            assert (await read_answer(client))[2] == LARGE
    assert control.count("/blobs/*") == 1


# Mounts, and what surrounds them


@pytest.mark.parametrize("mount", ["/v2/", "/prefix/v2", "/prefix/", None])
async def test_SRV42_it_is_mounted_or_run_as_it_is(
    catalog: FakeCatalog, session: Session, image: BuiltImage, mount: str | None
) -> None:
    catalog.tags = ("a", "b")
    app = web.registry_app(catalog, session)
    base = "/v2"
    if mount is not None:
        inner, app = app, aiohttp_web.Application()
        app.add_subapp(mount, inner)
        base = {"/v2/": "/v2", "/prefix/v2": "/prefix/v2", "/prefix/": "/prefix/v2"}[mount]
    async with run(app) as server, raw(server) as client:
        client.get(base)
        client.get(f"{base}/")
        client.get(f"{base}/team/app/manifests/latest")
        client.get(f"{base}/team/app/tags/list?n=1")
        assert [(await read_answer(client))[0] for _ in range(2)] == [200, 200]
        assert (await read_answer(client))[2] == image.raw
        _, headers, _ = await read_answer(client)
        assert headers["Link"] == f'<{base}/team/app/tags/list?last=a&n=1>; rel="next"'


async def test_SRV31_no_middleware_compresses_an_answer(
    catalog: FakeCatalog, session: Session, image: BuiltImage
) -> None:
    @aiohttp_web.middleware
    async def compress(request: Any, handler: Any) -> Any:
        response = await handler(request)
        response.enable_compression()
        return response

    app = aiohttp_web.Application(middlewares=[compress])
    app.add_subapp("/v2/", web.registry_app(catalog, session))
    async with run(app) as server, raw(server) as client:
        for target, content in ((f"{ROOT}/manifests/latest", image.raw), (BLOB, LARGE)):
            client.get(target, "Accept-Encoding: gzip")
            _, headers, body = await read_answer(client)
            assert body == content
            assert "Content-Encoding" not in headers


async def test_SRV32_an_old_client_gets_a_length(server: TestServer) -> None:
    for target in (BLOB, f"{ROOT}/manifests/latest", "/v2/none/tags/list"):
        async with raw(server) as client:
            client.send(f"GET {target} HTTP/1.0\r\n\r\n".encode())
            _, pairs = await client.read_head()
            headers = dict(pairs)
            body, _ = await client.read_to_end()
            assert headers["Content-Length"] == str(len(body))
            assert "Transfer-Encoding" not in headers


# Bad input


async def test_SRV43_a_head_that_never_ends_is_closed(
    catalog: FakeCatalog, session: Session
) -> None:
    server = TestServer(web.registry_app(catalog, session))
    await server.start_server(keepalive_timeout=10)
    async with server, raw(server) as client:
        client.get("/v2/")
        await read_answer(client)
        client.send(b"GET /v2/ HTTP/1.1\r\nX: ")
        await asyncio.sleep(0.01)
        await let_pass(11)
        assert (await client.read_to_end())[0] == b""
