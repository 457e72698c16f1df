"""Requests that take the short way through aiohttp are those that its client sends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from asupplemented.abc import Timeouts
from asupplemented.aio.threads import Workers
from asupplemented.errors import SupplementedError
from asupplemented.testing import Cut, FakeRegistry
from asupplemented.transports.registry import connections as module
from asupplemented.transports.registry.connections import Connections
from asupplemented.transports.registry.options import RegistryOptions
from asupplemented.transports.registry.plain_requests import is_tested
from tests.transports.registry.raw_servers import free_port
from tests.transports.registry.sessions import IMAGE, fill, watch

if TYPE_CHECKING:
    from collections.abc import Callable

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
ANSWERS = {
    "a body with its length": OK + b"Content-Length: 5\r\n\r\nhello",
    "a body in chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a body that ends with the connection": OK + b"Connection: close\r\n\r\nhello",
    "a body that breaks off": OK + b"Content-Length: 50\r\n\r\nhello",
    "an encoded body": OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    "no body": b"HTTP/1.1 204 No Content\r\n\r\n",
    "an interim response": b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "a redirect": b"HTTP/1.1 307 Go\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n",
    "a refusal": b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
    "a cookie": OK + b"Set-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n",
    "a long header": OK + b"X: " + b"x" * 30_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "a header beyond the limit": OK + b"X: " + b"x" * 40_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "too many headers": OK + b"X: 1\r\n" * 5000 + b"Content-Length: 0\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"",
    "half a head": OK,
}


async def exchange(answer: bytes | None, method: str, *, plain: bool) -> tuple[object, ...]:
    """What two requests to a server send, and what they give; no server at all for None."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answer is not None:
            try:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
            except asyncio.IncompleteReadError:
                break
            writer.write(answer)
            if not answer.endswith((b"Content-Length: 0\r\n\r\n", b"hello", b"0\r\n\r\n")):
                break
            if b"close" in answer or b"50" in answer:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1] if answer is not None else free_port()
    url = URL(f"http://127.0.0.1:{port}/v2/a%2Fb/manifests/x?ns=y%20z", encoded=True)
    workers = Workers()
    connections = Connections(
        None, timeouts=Timeouts(), options=RegistryOptions(), in_thread=workers.run
    )
    connections._plain = plain  # pyright: ignore[reportPrivateUsage]
    outcomes: list[object] = []
    try:
        for accept in ("one", "two"):
            endpoint = await connections.open_endpoint(url, verify=False, max_scope=None)
            headers = CIMultiDict({"Accept": accept, "user-agent": "mine"})
            try:
                response = await connections.send(endpoint, url, method=method, headers=headers)
                outcome: tuple[object, ...] = (
                    response.status,
                    response.url.with_port(1),
                    tuple(response.headers.items()),
                )
                outcomes.append(outcome)
                try:
                    outcomes.append(await response.content.read())
                finally:
                    response.close()
            except (SupplementedError, aiohttp.ClientError) as error:
                outcomes.append((type(error), str(error).replace(str(port), "PORT")))
                outcomes.append(type(error.__cause__))
            assert repr(connections) == "<Connections: 0 requests wait for an answer>"
    finally:
        await connections.aclose()
        await workers.aclose()
        server.close()
        await server.wait_closed()
    return [text.replace(str(port).encode(), b"PORT") for text in asked], outcomes


TESTED_ONLY = pytest.mark.skipif(
    not is_tested(), reason=f"aiohttp {aiohttp.__version__} is newer than the short way knows"
)
"""With a new aiohttp: run the tests without this mark, then add the version to `TESTED`."""


def test_other_versions_of_aiohttp_send_everything_themselves() -> None:
    assert is_tested("3.14.5")
    assert not is_tested("3.140.0")
    assert not is_tested("4.0.0")


@TESTED_ONLY
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("answer", [*ANSWERS.values(), None], ids=[*ANSWERS, "no server"])
async def test_a_plain_request_is_what_the_client_sends(answer: bytes | None, method: str) -> None:
    plain = await exchange(answer, method, plain=True)
    assert plain == await exchange(answer, method, plain=False)
    assert bool(plain[0]) == (answer is not None)


@pytest.mark.parametrize("tested", [pytest.param(True, marks=TESTED_ONLY), False])
async def test_both_ways_open_images_and_replace_dead_connections(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, *, tested: bool
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(module, "is_tested", lambda: tested)
    monkeypatch.setattr(module, "send_plainly", spy(sent, module.send_plainly))
    async with watch() as watched, await watched.open(fill(registry)) as source:
        registry.script(IMAGE.digest, Cut(after=None))
        assert (await source.get_manifest(IMAGE.digest)).digest == IMAGE.digest
        assert watched.clock.slept == []
    assert bool(sent) is tested


async def test_a_borrowed_client_sends_its_requests_itself(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(module, "send_plainly", spy(sent, module.send_plainly))
    async with aiohttp.ClientSession() as lent, watch(http=lent) as watched:
        await watched.try_open(fill(registry))
    assert sent == []


def spy(sent: list[str], original: Callable[..., Any]) -> Callable[..., Any]:
    def send(client: object, url: URL, **options: Any) -> Any:
        sent.append(url.path)
        return original(client, url, **options)

    return send
