"""The log, the counters, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings

import aiohttp
import pytest

from asupplemented.errors import UsageError
from asupplemented.testing import Answer, Delay, FakeRegistry, Hold, Request, Stall, build_image
from tests.testing.raw_client import connect

IMAGE = build_image()


async def test_the_log_shows_the_raw_target_and_the_order_of_headers(
    registry: FakeRegistry,
) -> None:
    async with connect(registry) as client:
        client.get("/v2/../%2e%2e/x?a=b%20c&a=d", "x-b: 1", "X-A:2", "x-b:  3 ")
        await client.read_head()
        (request,) = registry.requests
        assert request.method == "GET"
        assert request.target == "/v2/../%2e%2e/x?a=b%20c&a=d"
        assert request.headers == (
            ("Host", "registry"),
            ("x-b", "1"),
            ("X-A", "2"),
            ("x-b", "3"),
        )
        assert request.peer == client.writer.get_extra_info("sockname")
        assert request.path == "/v2/../../x"
        assert request.query == (("a", "b c"), ("a", "d"))
        assert (request.argument("a"), request.argument("z")) == ("b c", None)
        assert (request.header("X-B"), request.header("z")) == ("1", None)
        assert request.time <= asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://registry.example/v2/a%20b?q=/x", "/v2/a b"),
        ("http://registry.example", "/"),
        ("*", "/"),
    ],
)
def test_a_proxy_sees_the_path_of_a_whole_url(target: str, path: str) -> None:
    assert Request("GET", target, ()).path == path


async def test_connections_are_numbered_and_kept_alive(registry: FakeRegistry) -> None:
    async with connect(registry) as first, connect(registry) as second:
        for client in (first, second, first):
            client.get("/v2/")
            await client.read_head()
            assert await client.read_exactly(2) == b"{}"
        assert registry.open_connections == registry.connections == 2
        one, two, three = (request.connection for request in registry.requests)
        assert one == three != two
    await registry.wait_until(lambda: registry.open_connections == 0)
    assert registry.connections == 2


async def test_requests_in_one_go_are_answered_in_order(registry: FakeRegistry) -> None:
    registry.put_file("/a", b"first")
    registry.put_file("/b", b"second")
    async with connect(registry) as client:
        client.send(b"GET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyz")
        client.send(b"GET /b HTTP/1.1\r\nConnection: close\r\n\r\n")
        data, end = await client.read_to_end()
    assert data.index(b"first") < data.index(b"second")
    assert end == "fin"
    assert [request.body for request in registry.requests] == [b"", b"xyz", b""]


@pytest.mark.parametrize(
    "request_line", ["GET /v2/ HTTP/1.0", "GET /v2/ HTTP/1.1\r\nConnection: Close"]
)
async def test_a_client_that_wants_no_more_gets_no_more(
    registry: FakeRegistry, request_line: str
) -> None:
    async with connect(registry) as client:
        client.send(request_line.encode() + b"\r\n\r\n")
        _, headers = await client.read_head()
        assert ("Connection", "close") in headers
        assert await client.read_to_end() == (b"{}", "fin")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n: nameless\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"x" * 300_000,
    ],
)
async def test_what_is_no_request_is_refused(registry: FakeRegistry, data: bytes) -> None:
    async with connect(registry) as client:
        client.send(data)
        answer, _ = await client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert registry.requests == []


async def test_requests_in_flight_are_counted(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    release = asyncio.Event()
    registry.script("*", Hold(release), forever=True)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(ask(http, registry.url + "/v2/"))
        await registry.wait_until(lambda: registry.in_flight == 5)
        assert registry.max_in_flight == 5
        release.set()
    assert registry.in_flight == 0
    assert registry.max_in_flight == 5
    assert registry.count("/v2/") == 5


async def ask(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url) as answer:
        await answer.read()
        return answer.status


async def test_latency_is_slept_through(http: aiohttp.ClientSession) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with FakeRegistry(latency=0.5, sleep=sleep) as registry:
        await ask(http, registry.url + "/v2/")
        registry.latency = lambda request: 0.25 if request.path == "/slow" else 0.0
        await ask(http, registry.url + "/v2/")
        await ask(http, registry.url + "/slow")
        registry.script("/v2/", Delay(7))
        await ask(http, registry.url + "/v2/")
    assert slept == [0.5, 0.25, 7]


async def test_a_client_that_leaves_is_noticed(registry: FakeRegistry) -> None:
    registry.script("*", Stall(after=1))
    async with connect(registry) as client:
        client.get("/v2/")
        await client.read_head()
        assert await client.read_exactly(1) == b"{"
        assert (registry.in_flight, registry.abandoned) == (1, 0)
        client.writer.write_eof()
        await registry.wait_until(lambda: registry.in_flight == 0)
    assert registry.abandoned == 1


async def test_a_client_that_leaves_a_long_body_is_noticed(registry: FakeRegistry) -> None:
    registry.put_file("/big", bytes(64 * 1024 * 1024))
    async with connect(registry) as client:
        client.get("/big")
        await client.read_head()
        await client.read_exactly(1000)
    await registry.wait_until(lambda: registry.in_flight == 0)
    assert registry.abandoned == 1


async def test_a_long_body_arrives_whole(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    data = bytes(range(256)) * 40_000
    async with http.get(registry.put_file("/big", data)) as answer:
        assert await answer.read() == data


async def test_the_end_leaves_no_task_and_no_socket(http: aiohttp.ClientSession) -> None:
    before = asyncio.all_tasks()
    async with FakeRegistry() as registry:
        registry.script("/stall", Stall(), forever=True)
        registry.script("/v2/", Hold(asyncio.Event()), forever=True)
        async with connect(registry) as idle, connect(registry) as held, connect(registry) as cut:
            held.get("/v2/")
            cut.get("/stall")
            await registry.wait_until(lambda: registry.in_flight == 2)
            await registry.aclose()
            assert asyncio.all_tasks() == before
            assert (registry.open_connections, registry.in_flight) == (0, 0)
            for client in (idle, held):
                assert (await client.read_to_end())[0] == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(registry.host.partition(":")[2])))
        await registry.aclose()


async def test_nothing_is_left_to_the_garbage_collector() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with FakeRegistry() as registry, connect(registry) as client:
            client.get("/v2/")
            await client.read_head()
        del registry, client
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


async def test_a_registry_can_be_used_again(http: aiohttp.ClientSession) -> None:
    registry = FakeRegistry()
    with pytest.raises(UsageError, match="no port yet"):
        _ = registry.host
    for _ in range(2):
        async with registry:
            assert await ask(http, registry.url + "/v2/") == 200
            with pytest.raises(UsageError, match="already listening"):
                await registry.start()
    assert registry.host.startswith("127.0.0.1:")


async def test_a_script_that_raises_fails_the_test(http: aiohttp.ClientSession) -> None:
    def broken(answer: Answer, request: Request) -> Answer:
        raise KeyError(request.path)

    registry = await FakeRegistry().__aenter__()
    registry.script("/v2/", broken)
    assert await ask(http, registry.url + "/v2/") == 500
    with pytest.raises(ExceptionGroup) as caught:
        await registry.aclose()
    assert caught.group_contains(KeyError, match="/v2/")
    assert registry.open_connections == 0
    await registry.aclose()


async def test_cancelling_the_owner_closes_the_registry() -> None:
    entered = asyncio.Event()
    opened: list[FakeRegistry] = []

    async def own() -> None:
        async with FakeRegistry() as registry:
            opened.append(registry)
            entered.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(own())
    await entered.wait()
    async with connect(opened[0]) as client:
        client.get("/v2/")
        await client.read_head()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert opened[0].open_connections == 0


async def test_a_client_that_speaks_tls_to_a_plain_server_is_told_at_once(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(http, f"https://{registry.host}/v2/")
    await registry.wait_until(lambda: registry.open_connections == 0)
