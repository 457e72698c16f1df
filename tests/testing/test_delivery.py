"""Each fault of sending, seen on the wire by a client that knows no HTTP."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest

from asupplemented.testing import (
    Authority,
    Chunked,
    CloseDelimited,
    ContentLength,
    Cut,
    Delay,
    Endless,
    FakeRegistry,
    Hold,
    Raw,
    Slow,
    Stall,
)
from tests.suspending import settle
from tests.testing.raw_client import RawClient, connect

if TYPE_CHECKING:
    from asupplemented.testing import Fault

BODY = b"0123456789"


async def fetch(
    registry: FakeRegistry, *faults: Fault, method: str = "GET"
) -> tuple[bytes, bytes, str]:
    """Head and body as they came, and how it ended."""
    registry.put_file("/x", BODY)
    registry.script("/x", faults)
    async with connect(registry) as client:
        client.get("/x", "Connection: close", method=method)
        data, end = await client.read_to_end()
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body, end


async def test_a_right_answer_for_comparison(registry: FakeRegistry) -> None:
    head, body, end = await fetch(registry)
    assert (body, end) == (BODY, "fin")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: application/octet-stream",
        b"Accept-Ranges: bytes",
        b"Content-Length: 10",
        b"Connection: close",
    ]


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("after", [0, 1, 9, 10, 99])
async def test_cut_in_the_body(registry: FakeRegistry, after: int, how: str) -> None:
    head, body, end = await fetch(registry, Cut(after, "rst" if how == "rst" else "fin"))
    assert b"Content-Length: 10" in head
    assert (body, end) == (BODY[:after], how)


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_cut_before_the_head(registry: FakeRegistry, how: str) -> None:
    cut = Cut(None, "rst" if how == "rst" else "fin")
    assert await fetch(registry, cut) == (b"", b"", how)


@pytest.mark.parametrize("after", [0, 5])
async def test_cut_of_a_head_request_comes_after_the_head(
    registry: FakeRegistry, after: int
) -> None:
    head, body, end = await fetch(registry, Cut(after, "rst"), method="HEAD")
    assert (head[:15], body, end) == (b"HTTP/1.1 200 OK", b"", "rst")


async def test_reset_of_a_body_larger_than_any_buffer(registry: FakeRegistry) -> None:
    data = bytes(range(256)) * 50_000
    registry.put_file("/big", data)
    registry.script("/big", Cut(len(data) - 1, "rst"))
    async with connect(registry) as client:
        client.get("/big")
        await client.read_head()
        body, end = await client.read_to_end()
    assert end == "rst"
    assert body == data[:-1]


async def test_a_cut_connection_is_not_used_again(registry: FakeRegistry) -> None:
    registry.put_file("/x", BODY)
    registry.script("/x", Cut(3))
    async with connect(registry) as client:
        client.get("/x")
        client.get("/x")
        data, end = await client.read_to_end()
    assert data.endswith(b"\r\n\r\n012")
    assert end in {"fin", "rst"}  # the second request lies unread
    assert registry.count() == 1


async def test_a_length_too_large_and_then_the_end(registry: FakeRegistry) -> None:
    head, body, end = await fetch(registry, ContentLength(12))
    assert b"Content-Length: 12" in head
    assert (body, end) == (BODY, "fin")


async def test_a_length_too_small(registry: FakeRegistry) -> None:
    head, body, end = await fetch(registry, ContentLength(8))
    assert b"Content-Length: 8" in head
    assert (body, end) == (BODY, "fin")


async def test_chunked(registry: FakeRegistry) -> None:
    head, body, _ = await fetch(registry, Chunked(4))
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert body == b"4\r\n0123\r\n4\r\n4567\r\n2\r\n89\r\n0\r\n\r\n"
    _, body, _ = await fetch(registry, Chunked())
    assert body == b"a\r\n0123456789\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("after", "body"),
    [
        (0, b""),
        (2, b"4\r\n01"),
        (4, b"4\r\n0123"),
        (10, b"4\r\n0123\r\n4\r\n4567\r\n2\r\n89"),
    ],
)
async def test_a_cut_in_a_chunk(registry: FakeRegistry, after: int, body: bytes) -> None:
    assert (await fetch(registry, Chunked(4), Cut(after)))[1:] == (body, "fin")


async def test_no_length_at_all(registry: FakeRegistry) -> None:
    head, body, end = await fetch(registry, CloseDelimited(), Cut(4))
    assert b"Content-Length" not in head
    assert b"Transfer-Encoding" not in head
    assert (body, end) == (b"0123", "fin")


async def test_raw_bytes(registry: FakeRegistry) -> None:
    registry.script("*", Raw(b"SSH-2.0-OpenSSH\r\n"))
    async with connect(registry) as client:
        client.get("/v2/")
        assert await client.read_to_end() == (b"SSH-2.0-OpenSSH\r\n", "fin")


async def test_an_endless_body(registry: FakeRegistry) -> None:
    registry.script("*", Endless(b"abcd" * 4096))
    async with connect(registry) as client:
        client.get("/v2/")
        _, headers = await client.read_head()
        assert ("Transfer-Encoding", "chunked") in headers
        chunk = b"4000\r\n" + b"abcd" * 4096 + b"\r\n"
        assert await client.read_exactly(3 * len(chunk)) == chunk * 3
    await registry.wait_until(lambda: registry.in_flight == 0)
    assert registry.abandoned == 1


async def test_an_endless_body_of_the_answer_itself_that_is_cut(registry: FakeRegistry) -> None:
    _, body, end = await fetch(registry, Endless(None), Cut(15))
    assert (body, end) == (b"a\r\n0123456789\r\na\r\n01234", "fin")


async def begin(client: RawClient) -> None:
    client.get("/x")
    await client.read_head()


async def test_stall_until_an_event(registry: FakeRegistry) -> None:
    registry.put_file("/x", BODY)
    go_on = asyncio.Event()
    registry.script("/x", Stall(3, until=go_on))
    async with connect(registry) as client:
        await begin(client)
        assert await client.read_exactly(3) == BODY[:3]
        assert registry.in_flight == 1
        go_on.set()
        assert await client.read_exactly(7) == BODY[3:]
        await registry.wait_until(lambda: registry.in_flight == 0)
        await begin(client)  # and the connection is good for more


@pytest.mark.parametrize("fault", ["hold", "stall"])
async def test_nothing_comes_before_the_event(registry: FakeRegistry, fault: str) -> None:
    registry.put_file("/x", BODY)
    go_on = asyncio.Event()
    registry.script("/x", Hold(go_on) if fault == "hold" else Stall(None, until=go_on))
    async with connect(registry) as client:
        client.get("/x")
        await registry.wait_until(lambda: registry.in_flight == 1)
        probe = asyncio.ensure_future(client.reader.read(1))
        await settle()
        assert not probe.done()
        go_on.set()
        assert await probe == b"H"


async def test_slow_lets_pieces_through_one_by_one(registry: FakeRegistry) -> None:
    registry.put_file("/x", BODY)
    permits = asyncio.Semaphore(0)
    registry.script("/x", Slow(4, permits=permits))
    async with connect(registry) as client:
        await begin(client)
        for piece in (b"0123", b"4567", b"89"):
            probe = asyncio.ensure_future(client.reader.read(100))
            await settle()
            assert not probe.done()
            permits.release()
            assert await probe == piece


async def test_slow_sleeps_between_pieces() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with FakeRegistry(sleep=sleep) as registry:
        assert (await fetch(registry, Slow(3, seconds=2.0), Delay(5.0)))[1] == BODY
    assert slept == [5.0, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_cut_over_tls(how: str) -> None:
    authority = Authority()
    async with FakeRegistry(tls=authority.server_context()) as registry:
        registry.put_file("/x", BODY)
        registry.script("/x", Cut(4, "rst" if how == "rst" else "fin"))
        async with connect(registry, tls=authority.client_context()) as client:
            await begin(client)
            try:
                assert await client.read_to_end() == (b"0123", how)
            except ssl.SSLError:
                assert how == "rst"
