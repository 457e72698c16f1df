"""The application of the administrator: status page, probes and metrics, at an address of its own.

It asks no upstream and needs no authentication (rule SRV-53), so bind it to an address that clients
of the registry do not reach.

Live pages hold a connection each, on which states are sent as server-sent events (rule SRV-52).
One task takes a state each second, for all pages, as long as there are any. A page gets the newest
state when it has read the one before, so a slow page skips states, and none is queued for it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from asupplemented.web.exchange import report
from asupplemented.web.page import build_tree, render_page, show_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asupplemented.web.status import Status

__all__ = ("admin_app",)

EVERY: Final = 1.0
"""Seconds between two states."""

COMMENT_AFTER: Final = 15.0
"""Seconds without a state after which a comment shows that the connection lives."""

WRITE: Final = 60.0
"""Seconds in which a page has to read a state; its connection is cut after that."""

RETRY: Final = 2000
"""Milliseconds after which a page connects again."""

MAX_PAGES: Final = 32
"""Live pages at the same time."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_STATIC: Final = {
    "status.css": "text/css",
    "status.js": "text/javascript",
    "status.svg": "image/svg+xml",
}
"""File of the page -> its media type."""


def admin_app(
    *,
    status: Callable[[], Status],
    ready: Callable[[], bool],
    metrics: Callable[[], tuple[bytes, str]] | None = None,
) -> web.Application:
    """Make the application of the administrator.

    ``/`` is the status page, ``/status.json`` the same as JSON, ``/events`` what keeps the page up
    to date, ``/healthz`` answers 200 as long as the process does, ``/readyz`` 200 or 503, and
    ``/metrics`` is for Prometheus. Links are relative, so it may be mounted at any path that ends
    with a slash.

    Args:
        status: Gives the present status, such as `StatusBoard.snapshot`, quickly.
        ready: Whether requests of clients are accepted.
        metrics: Gives the body and the content type of ``/metrics``. It is called in a thread.
            None answers 404.
    """
    feed = _Feed(status)

    async def page(_: web.Request) -> web.Response:
        return _respond(render_page(status()).encode(), "text/html")

    async def as_json(_: web.Request) -> web.Response:
        return _respond(msgspec.json.encode(status()), "application/json")

    async def healthz(_: web.Request) -> web.Response:
        return _respond(b"ok\n", "text/plain")

    async def readyz(_: web.Request) -> web.Response:
        if ready():
            return _respond(b"ready\n", "text/plain")
        return _respond(b"not ready\n", "text/plain", status=503)

    async def expose(_: web.Request) -> web.Response:
        if metrics is None:
            text = b"no metrics: install asupplemented[prometheus]\n"
            return _respond(text, "text/plain", status=404)
        body, content_type = await asyncio.to_thread(metrics)
        return web.Response(body=body, headers={**_HEADERS, "Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/status.json", as_json)
    app.router.add_get("/events", feed.handle, allow_head=False)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", expose)
    for name, media_type in _STATIC.items():
        app.router.add_get(f"/{name}", _serve_file(name, media_type))
    app.on_shutdown.append(feed.close)
    return app


def _serve_file(
    name: str, media_type: str
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    body = (files("asupplemented.web") / "static" / name).read_bytes()

    async def handle(_: web.Request) -> web.StreamResponse:
        return _respond(body, media_type)

    return handle


def _respond(body: bytes, media_type: str, *, status: int = 200) -> web.Response:
    return web.Response(
        body=body, status=status, content_type=media_type, charset="utf-8", headers=_HEADERS
    )


class _Feed:
    """The states that live pages are sent.

    Args:
        status: Gives the present status.
    """

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status
        self._number = 0
        """Of the newest state."""
        self._state = b""
        self._changed = asyncio.Event()
        """Set when there is a newer state, and replaced by a new one."""
        self._pages = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Send states to a page until it leaves, or until the server stops."""
        if self._closed or self._pages >= MAX_PAGES:
            why = b"the server stops\n" if self._closed else b"too many live pages\n"
            return _respond(why, "text/plain", status=503)
        response = web.StreamResponse(headers={**_HEADERS, "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        self._pages += 1
        if self._task is None:
            self._state = b""  # It may be old.
            self._task = asyncio.get_running_loop().create_task(self._take_states())
        try:
            async with asyncio.timeout(WRITE):
                await response.prepare(request)
            await self._send_states(response)
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._pages -= 1
            if not self._pages:
                self._task.cancel()
                self._task = None
        return response

    async def _send_states(self, response: web.StreamResponse) -> None:
        seen = 0
        message = f"retry: {RETRY}\n\n".encode()
        while not self._closed:
            async with asyncio.timeout(WRITE):
                await response.write(message)
            changed = self._changed
            if seen == self._number or not self._state:
                with suppress(TimeoutError):
                    async with asyncio.timeout(COMMENT_AFTER):
                        await changed.wait()
            message = b": still here\n\n"
            if seen != self._number and self._state:
                seen = self._number
                message = b"id: %d\nevent: status\ndata: %b\n\n" % (seen, self._state)
        await response.write_eof()

    async def _take_states(self) -> None:
        while True:
            try:
                status = self._status()
                state = {"taken": show_time(status.taken), "tree": build_tree(status)}
                self._state = msgspec.json.encode(state)  # It has no line breaks.
            except Exception as error:  # noqa: BLE001 - pages see that there is no newer state
                report("the status could not be taken", error)
            else:
                self._number += 1
                self._notify()
            await asyncio.sleep(EVERY)

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def close(self, _: web.Application) -> None:
        """End all pages."""
        self._closed = True
        self._notify()
