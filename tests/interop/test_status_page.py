"""The status page in Chromium: live, inert, readable on every screen, and back after a restart."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiohttp import web

from asupplemented.web import admin, admin_app
from asupplemented.web import status as statuses
from docs.browser import open_page
from docs.status_page import build_status
from tests.interop.programs import find
from tests.web.test_admin import HOSTILE, make_hostile

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from docs.browser import Page

pytestmark = pytest.mark.interop

LONG = "a-name-without-any-place-to-break-it/" * 12

CONTRAST = """
(() => {
  const read = text => text.match(/[\\d.]+/g).map(Number);
  const light = color => {
    const [r, g, b] = color.slice(0, 3).map(v => v / 255).map(
      v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = element => {
    for (; element; element = element.parentElement) {
      const color = read(getComputedStyle(element).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim()) continue;
    const [a, b] = [read(getComputedStyle(element).color), back(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${walker.currentNode.data}`);
  }
  return found;
})()
"""
"""Texts with a contrast below 4.5 (WCAG 2.2, 1.4.3)."""


class Server:
    """Serves a status that a test may change, at one port."""

    def __init__(self, port: int = 0) -> None:
        self.status = build_status()
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        app = admin_app(status=lambda: self.status, ready=lambda: True)
        runner = web.AppRunner(app, shutdown_timeout=5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()

    def change(self, **changes: object) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(admin, "EVERY", 0.05)
    served = Server()
    async with served.run():
        yield served


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with open_page(find("chromium")) as opened:
        yield opened


async def test_the_page_is_live(server: Server, page: Page) -> None:
    await page.load(server.url)
    await page.wait_for("live.className === 'live'")
    await page.run("document.querySelectorAll('details')[1].open = true")
    first, second, third = server.status.plans
    running = server.status.running[0]
    server.change(
        running=(msgspec.structs.replace(running, sent=running.size),),
        running_count=1,
        # What was second is first now, and another plan is gone.
        plans=(msgspec.structs.replace(second, age=99.0), first),
    )
    await page.wait_for("document.querySelectorAll('section.running tbody tr').length === 1")
    bar = "document.querySelector('section.running progress')"
    assert await page.run(f"{bar}.position") == 1
    assert await page.run("[...document.querySelectorAll('details')].map(e => e.open)") == [
        True,
        False,
    ]
    summaries = await page.run("[...document.querySelectorAll('summary')].map(e => e.textContent)")
    assert "python" in summaries[0]
    assert "confirmed 1 min 39 s ago" in summaries[0]
    server.change(running=(), running_count=0, plans=(third,))
    await page.wait_for("!document.querySelector('section.running table')")
    assert "No request is being answered" in await page.run(
        "document.querySelector('section.running').textContent"
    )
    assert page.problems == []


async def test_text_of_clients_stays_text(server: Server, page: Page) -> None:
    await page.load(server.url)
    await page.wait_for("live.className === 'live'")
    server.status = make_hostile()
    await page.wait_for("document.querySelector('summary').textContent.includes('<script>')")
    assert await page.run("document.scripts.length") == 1
    assert await page.run("document.images.length") == 0
    assert HOSTILE in await page.run("document.querySelector('section.names').textContent")
    # The same from the server.
    await page.load(server.url)
    assert await page.run("document.images.length") == 0
    assert page.problems == []
    # A script that gets into the page all the same does not run.
    await page.run(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'x = 1'}))"
    )
    assert await page.run("typeof x") == "undefined"
    (problem,) = page.problems
    assert "Content Security Policy" in problem


def lengthen(status: statuses.Status) -> statuses.Status:
    """The same with texts that cannot be broken at a space."""

    def change(entries: Sequence[Any], **changes: object) -> tuple[Any, ...]:
        return tuple(msgspec.structs.replace(each, **changes) for each in entries)

    return msgspec.structs.replace(
        status,
        requested=change(status.requested, name=LONG),
        members=change(status.members, source=LONG, error=LONG),
        plans=change(status.plans, name=LONG, members=(LONG,)),
        running=change(status.running, name=LONG, source=LONG),
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_it_is_readable(server: Server, page: Page, *, dark: bool) -> None:
    normal = server.status
    for width in (320, 400, 960, 961, 1100, 1280):
        await page.resize(width, dark=dark)
        for status in (normal, lengthen(normal)):
            server.status = status
            await page.load(server.url)
            await page.wait_for("live.className === 'live'")
            await page.run("document.querySelectorAll('details').forEach(e => e.open = true)")
            assert await page.run("document.documentElement.scrollWidth") <= width
            cut = await page.run(
                "[...document.querySelectorAll('section, .tile, td')]"
                ".filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"
            )
            assert cut == [], width
        assert await page.run(CONTRAST) == []
    assert page.problems == []


async def test_without_scripts_it_is_a_snapshot(server: Server, page: Page) -> None:
    await page.resize(400, scripts=False)
    await page.load(server.url)
    assert (await page.run("live.textContent")).startswith("Snapshot of 20")
    assert await page.run("document.querySelectorAll('section').length") == 6
    assert await page.run("document.querySelectorAll('section.members tbody tr').length") == 4


async def test_it_comes_back_after_a_restart(page: Page) -> None:
    server = Server()
    async with server.run():
        await page.load(server.url)
        await page.wait_for("live.className === 'live'")
    await page.wait_for("live.className === 'old'")
    assert "Connection lost" in await page.run("live.textContent")
    server.change(version="9.9.9")
    async with server.run():
        await page.wait_for("root.textContent.includes('asupplemented 9.9.9')")
        assert await page.run("live.className") == "live"
