"""Chromium without a window, driven by the DevTools protocol, for screenshots and tests."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import signal
from contextlib import asynccontextmanager, suppress
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ("Page", "open_page")

SECONDS: Final = 60.0
"""An answer that takes longer does not come."""

OPTIONS: Final = (
    "--headless=new",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--no-sandbox",  # root has none
    "--remote-debugging-port=0",
)
_ADDRESS: Final = re.compile(rb"DevTools listening on (ws://\S+)")


class Page:
    """A page of a browser. Made by `open_page`.

    Attributes:
        problems: What the console of the page said: errors, and what its policy refused.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.problems: list[str] = []
        self._socket = socket
        self._session: str | None = None
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()

    async def attach(self) -> None:
        """Open a page, and listen to what it says."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        """Call a method of the protocol."""
        number = len(self._calls)
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        message: dict[str, object] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        await self._socket.send_json(message)
        async with asyncio.timeout(SECONDS):
            result: dict[str, Any] = await answer
        return result

    async def listen(self) -> None:
        """Take what the browser says, until it ends."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                answer = self._calls[said["id"]]
                if "error" in said:
                    answer.set_exception(RuntimeError(said["error"]["message"]))
                else:
                    answer.set_result(said["result"])
                continue
            params = said["params"]
            method: str = said["method"]
            match method:
                case "Page.loadEventFired":
                    self._loaded.set()
                case "Runtime.exceptionThrown":
                    self.problems.append(str(params["exceptionDetails"]))
                case "Log.entryAdded":
                    self.problems.append(params["entry"]["text"])
                case _:
                    pass

    async def load(self, url: str) -> None:
        """Load a page and all that belongs to it."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(SECONDS):
            await self._loaded.wait()

    async def run(self, script: str) -> Any:  # noqa: ANN401 - whatever JSON can say
        """The value of an expression of JavaScript, awaited if it is a promise."""
        result = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    async def wait_for(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true, as the document changes."""
        await self.run(
            f"""new Promise(done => {{
                const look = () => ({condition}) && (watch.disconnect(), done());
                const watch = new MutationObserver(look);
                const what = {{attributes: true, childList: true, characterData: true}};
                watch.observe(document, {{subtree: true, ...what}});
                look();
            }})"""
        )

    async def resize(self, width: int, *, dark: bool = False, scripts: bool = True) -> None:
        """Set the width in pixels, the colour scheme, and whether scripts run."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call("Emulation.setScriptExecutionDisabled", value=not scripts)

    async def take_screenshot(self, width: int, height: int | None = None) -> bytes:
        """The top of the page as PNG, all of it without a height."""
        height = height or await self.run("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def open_page(program: str | None = None) -> AsyncGenerator[Page]:
    """Start the browser and open a page; it is closed afterwards.

    Args:
        program: Its path; None looks for ``chromium``.

    Raises:
        FileNotFoundError: There is no browser.
    """
    found = program or shutil.which("chromium")
    if found is None:
        raise FileNotFoundError("there is no chromium; run: apt-get install chromium")
    with TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        browser = await asyncio.create_subprocess_exec(
            *(found, *OPTIONS, f"--user-data-dir={directory}", "about:blank"),
            env=os.environ | {"HOME": directory},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # its helpers are killed with it
        )
        assert browser.stderr is not None  # noqa: S101 - it is piped
        drain: asyncio.Task[object] | None = None
        try:
            address = await _read_address(browser.stderr)
            drain = asyncio.create_task(browser.stderr.read())
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(address, max_msg_size=0) as socket,
            ):
                page = Page(socket)
                listener = asyncio.create_task(page.listen())
                try:
                    await page.attach()
                    yield page
                finally:
                    listener.cancel()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(browser.pid, signal.SIGKILL)
            await browser.wait()
            if drain is not None:
                await drain


async def _read_address(stderr: asyncio.StreamReader) -> str:
    said = b""
    async with asyncio.timeout(SECONDS):
        async for line in stderr:
            said += line
            found = _ADDRESS.search(line)
            if found is not None:
                return found[1].decode()
    raise RuntimeError(said.decode(errors="replace"))
