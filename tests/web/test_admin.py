"""The application of the administrator: its page, probes and metrics, and the states it sends."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from asupplemented.web import Status, StatusBoard, admin, admin_app
from asupplemented.web.page import build_tree, render_page
from docs.status_page import build_status
from tests.modules import ROOT, code_blocks, read_page
from tests.web.clients import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;</td></table>"


@asynccontextmanager
async def serve(app: web.Application) -> AsyncIterator[aiohttp.ClientSession]:
    server = TestServer(app)
    async with server, aiohttp.ClientSession(server.make_url("/")) as http:
        yield http


def make_app(status: Callable[[], Status] = build_status, **options: Any) -> web.Application:
    return admin_app(status=status, ready=options.pop("ready", lambda: True), **options)


def make_hostile() -> Status:
    """A status in which every text is hostile."""

    def fill(value: Any, *, key: str = "") -> Any:
        match value:
            case str():
                return value if key in {"health", "cache", "version"} else HOSTILE
            case dict():
                return {name: fill(each, key=str(name)) for name, each in value.items()}
            case list() | tuple():
                return [fill(each) for each in value]
            case _:
                return value

    return msgspec.convert(
        fill(msgspec.to_builtins(build_status(), str_keys=True)), Status, strict=False
    )


class Outline(HTMLParser):
    """The elements of a document, its text, and whether all of them are closed."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_SRV53_what_it_answers() -> None:
    alive = [True]
    rows = [
        ("GET", "/", 200, "text/html; charset=utf-8"),
        ("HEAD", "/", 200, "text/html; charset=utf-8"),
        ("GET", "/status.json", 200, "application/json; charset=utf-8"),
        ("GET", "/status.css", 200, "text/css; charset=utf-8"),
        ("GET", "/status.js", 200, "text/javascript; charset=utf-8"),
        ("GET", "/status.svg", 200, "image/svg+xml; charset=utf-8"),
        ("GET", "/healthz", 200, "text/plain; charset=utf-8"),
        ("GET", "/readyz", 200, "text/plain; charset=utf-8"),
        ("GET", "/metrics", 404, "text/plain; charset=utf-8"),
        ("POST", "/", 405, "text/plain; charset=utf-8"),
        ("GET", "/static/status.js", 404, "text/plain; charset=utf-8"),
        ("GET", "/%2e%2e/page.py", 404, "text/plain; charset=utf-8"),
    ]
    async with serve(make_app(ready=lambda: alive[0])) as http:
        for method, path, status, kind in rows:
            async with http.request(method, path) as reply:
                found = (reply.status, reply.headers["Content-Type"])
                assert found == (status, kind), path
                if status == 200:
                    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
                    assert "unsafe" not in reply.headers["Content-Security-Policy"]
                    assert reply.headers["X-Content-Type-Options"] == "nosniff"
        async with http.get("/status.json") as reply:
            assert msgspec.json.decode(await reply.read(), type=Status) == build_status()
        alive[0] = False
        async with http.get("/readyz") as ready, http.get("/healthz") as health:
            assert (ready.status, health.status) == (503, 200)


async def test_metrics_are_given_as_they_are() -> None:
    kind = "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"
    async with (
        serve(make_app(metrics=lambda: (b"a_total 1\n", kind))) as http,
        http.get("/metrics") as reply,
    ):
        assert (await reply.read(), reply.headers["Content-Type"]) == (b"a_total 1\n", kind)


async def test_it_is_mounted_at_any_path() -> None:
    app = web.Application()
    app.add_subapp("/admin/", make_app())
    async with serve(app) as http:
        async with http.get("/admin/") as reply:
            links = re.findall(r'(?:href|src)="([^"]+)"', await reply.text())
        assert len(links) == 3
        for link in links:
            async with http.get(f"/admin/{link}") as reply:
                assert reply.status == 200


def test_the_page_without_scripts_is_whole() -> None:
    outline = Outline(render_page(build_status()))
    assert outline.open == []
    for text in (
        "Snapshot of 2026-11-29 14:02:11 UTC", "quay.io/team/app:1.4", "mirror.lan:5000",
        "7 of 100 until 15:00 UTC", "312.0 MiB of 448.0 MiB", "41.0 GiB of 50.0 GiB",
        "its default manifest; the last member to have it as default serves it",
        "12 blobs, 468.0 MiB: member 1, else 0", "docker://docker.io/{name}", "left out",
    ):  # fmt: skip
        assert text in outline.text
    # A table names its columns, and what it is about; a bar says what it measures.
    ids = {attributes.get("id") for _, attributes in outline.elements}
    for tag, attributes in outline.elements:
        if tag in {"table", "section"}:
            assert attributes["aria-labelledby"] in ids
        if tag == "th":
            assert attributes["scope"] == "col"
        if tag in {"progress", "meter"}:
            assert attributes["aria-label"]
        assert "style" not in attributes


def test_text_of_clients_and_registries_stays_text() -> None:
    hostile, harmless = (Outline(render_page(each)) for each in (make_hostile(), build_status()))
    assert hostile.open == []
    tags = {tag for tag, _ in harmless.elements}
    assert {tag for tag, _ in hostile.elements} <= tags
    assert sum(tag == "script" for tag, _ in hostile.elements) == 1
    names = {name for _, attributes in harmless.elements for name in attributes}
    assert {name for _, attributes in hostile.elements for name in attributes} <= names
    assert HOSTILE in hostile.text


def test_an_idle_registry_has_a_page() -> None:
    outline = Outline(render_page(StatusBoard().snapshot()))
    assert "No request is being answered." in outline.text
    assert not any(tag == "table" for tag, _ in outline.elements)


def test_the_largest_page_is_small() -> None:
    status = build_status()
    many = msgspec.structs.replace(
        status, plans=status.plans[:1] * 16, requested=status.requested * 16
    )
    assert len(msgspec.json.encode(build_tree(many))) < 256 * 1024


def test_the_wheel_has_the_files_of_the_page() -> None:
    from hatchling.builders.wheel import WheelBuilder

    included = {each.distribution_path for each in WheelBuilder(str(ROOT)).recurse_project_files()}
    directory = files("asupplemented.web") / "static"
    names = {each.name for each in directory.iterdir()}
    assert names == {"status.css", "status.js", "status.svg"}
    assert {f"asupplemented/web/static/{name}" for name in names} <= included


async def test_the_example_of_the_guide_serves_both(tmp_path: Path) -> None:
    (example,) = code_blocks(read_page("howto/status-page.md"), "python")
    ports = unused_port(), unused_port()
    for old, new in zip(("5000", "5001"), ports, strict=True):
        example = example.replace(old, str(new))
    example = example.replace("/srv", str(tmp_path))
    example = example.replace("await asyncio.Event().wait()", "await check()")

    async def check() -> None:
        paths = f"{ports[0]}/v2/", f"{ports[1]}/", f"{ports[1]}/readyz"
        async with aiohttp.ClientSession() as http:
            for path in paths:
                async with http.get(f"http://127.0.0.1:{path}") as reply:
                    assert reply.status == 200
            async with http.get(f"http://127.0.0.1:{ports[1]}/status.json") as reply:
                status = msgspec.json.decode(await reply.read(), type=Status)
        assert status.totals.requests == 1
        assert status.names[0].name == "quay.io/*"

    names: dict[str, Any] = {"__name__": "guide", "check": check}
    exec(compile(example, "status-page.md", "exec"), names)  # noqa: S102 - an example of the guide
    await names["main"]()


# Server-sent events


class Numbered:
    """Gives a status that says how often it was asked for, and is as large as wanted."""

    def __init__(self, padding: int = 0) -> None:
        self.taken = 0
        self.fails = False
        self._padding = "x" * padding

    def __call__(self) -> Status:
        self.taken += 1
        if self.fails:
            raise RuntimeError("there is no status")
        status = StatusBoard().snapshot()
        return msgspec.structs.replace(status, version=f"{self.taken} {self._padding}")


async def read_event(reply: aiohttp.ClientResponse) -> dict[str, str]:
    """The fields of the next event; a comment has the name ""."""
    fields: dict[str, str] = {}
    while line := (await reply.content.readline()).decode().rstrip("\n"):
        name, _, value = line.partition(": ")
        fields[name] = value
    return fields


@pytest.fixture
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "EVERY", 0.001)


@pytest.mark.usefixtures("_quickly")
async def test_SRV52_states_are_sent_to_all_pages() -> None:
    numbered = Numbered()
    async with serve(make_app(numbered)) as http:
        async with http.get("/events") as reply, http.get("/events") as other:
            assert reply.headers["Content-Type"].startswith("text/event-stream")
            assert reply.headers["X-Accel-Buffering"] == "no"
            assert await read_event(reply) == {"retry": "2000"}
            first, second = await read_event(reply), await read_event(reply)
            assert first.keys() == {"id", "event", "data"}
            assert first["event"] == "status"
            assert int(second["id"]) > int(first["id"])
            state = msgspec.json.decode(first["data"])
            assert re.fullmatch(r"\d\d:\d\d:\d\d UTC", state["taken"])
            assert state["tree"][0][0] == "p"
            await read_event(other)
            assert _count_takers() == 1
            assert (await read_event(other))["event"] == "status"
        # No state is taken without a page, and a new page gets none that is old.
        await until(lambda: not _count_takers())
        before = numbered.taken
        async with http.get("/events") as reply:
            await read_event(reply)
            data = msgspec.json.decode((await read_event(reply))["data"])
        assert int(data["tree"][0][2][0].split()[1]) > before


def _count_takers() -> int:
    """Tasks that take states."""
    return sum("_take_states" in repr(task.get_coro()) for task in asyncio.all_tasks())


@pytest.mark.usefixtures("_quickly")
async def test_SRV52_a_comment_shows_that_the_connection_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin, "COMMENT_AFTER", 0.001)
    numbered = Numbered()
    numbered.fails = True
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with serve(make_app(numbered)) as http, http.get("/events") as reply:
        await read_event(reply)
        assert await read_event(reply) == {"": "still here"}
        numbered.fails = False
        while (await read_event(reply)).get("event") != "status":
            pass
    assert reported
    assert "there is no status" in str(reported[0]["exception"])


@pytest.mark.usefixtures("_quickly")
async def test_SRV52_a_slow_page_skips_states() -> None:
    numbered = Numbered(padding=2 * 1024 * 1024)
    async with serve(make_app(numbered)) as http, http.get("/events") as reply:
        await read_event(reply)
        # It reads nothing until the server has taken more states than all buffers hold.
        await until(lambda: numbered.taken >= 20)
        read, tail = set[int](), b""
        while max(read, default=0) < 20:
            tail = tail[-32:] + await reply.content.readany()
            read.update(map(int, re.findall(rb"\nid: (\d+)\nevent", tail)))
    assert len(read) < 15


@pytest.mark.usefixtures("_quickly")
async def test_SRV52_a_page_that_reads_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "WRITE", 0.05)
    app = make_app(Numbered(padding=16 * 1024 * 1024))
    async with TestServer(app) as server:
        with socket.create_connection((server.host, server.port)) as page:
            page.settimeout(0)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(page, b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            assert server.runner is not None
            listener = server.runner.server
            assert listener is not None
            await until(lambda: listener.connections)
            await until(lambda: not listener.connections)


@pytest.mark.usefixtures("_quickly")
async def test_SRV52_pages_are_few_and_end_with_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin, "MAX_PAGES", 1)
    async with aiohttp.ClientSession() as http:
        async with TestServer(make_app(Numbered())) as server:
            reply = await http.get(server.make_url("/events"))
            async with http.get(server.make_url("/events")) as refused:
                assert refused.status == 503
            await read_event(reply)
            await read_event(reply)
        # The server has stopped without cutting the page off.
        while await reply.content.readline():
            pass
        reply.close()
