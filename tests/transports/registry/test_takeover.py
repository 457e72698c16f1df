"""Bodies received past aiohttp: what goes wrong on the way ends as it does through aiohttp."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asupplemented.errors import SourceError, TruncatedError
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.name import ImageName
from asupplemented.testing import (
    Authority,
    Chunked,
    CloseDelimited,
    ContentLength,
    Cut,
    Encoding,
    FakeRegistry,
    Headers,
    Stall,
)
from asupplemented.transports.registry import blobs
from asupplemented.transports.registry.reference import open_adapter
from asupplemented.transports.registry.takeover import WAITING, BodyReceiver, take_over
from tests.suspending import settle
from tests.transports.registry.sessions import LIMITS, OPTIONS_HERE, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from asupplemented.testing.recorder import Turn
    from asupplemented.transports.registry.adapter import RegistryAdapter
    from tests.transports.registry.sessions import Watched

DATA = bytes(range(251)) * 12_000
"""Twelve chunks, and more than aiohttp and the kernel buffer."""
SIZE = len(DATA)
BLOB = Descriptor(digest=Digest.of(DATA), size=SIZE)
UNSIZED = Descriptor(digest=BLOB.digest)
CHUNK = 256 * 1024
OPTIONS = replace(OPTIONS_HERE, take_over=1 << 20, limits=replace(LIMITS, chunk=CHUNK))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[BodyReceiver | None]:
    """What each call of `take_over` returned."""
    results: list[BodyReceiver | None] = []

    def note(response: aiohttp.ClientResponse, chunk: int) -> BodyReceiver | None:
        results.append(take_over(response, chunk))
        return results[-1]

    monkeypatch.setattr(blobs, "take_over", note)
    return results


async def connect(registry: FakeRegistry, watched: Watched) -> RegistryAdapter:
    registry.put_blob("team/app", DATA)
    return await open_adapter(ImageName.parse(f"{registry.host}/team/app"), "x", watched.session)


async def read(
    adapter: RegistryAdapter, blob: Descriptor = BLOB, start: int = 0, end: int | None = None
) -> tuple[bytes, SourceError | None]:
    """All bytes that come, and the error that ended them."""
    data = bytearray()
    async with adapter.open_blob(blob, start, end) as body:
        try:
            async for chunk in body:
                assert 0 < len(chunk) <= CHUNK
                data += chunk
        except SourceError as error:
            return bytes(data), error
    return bytes(data), None


async def check_whole(registry: FakeRegistry, watched: Watched) -> None:
    adapter = await connect(registry, watched)
    assert await read(adapter) == (DATA, None)
    assert await read(adapter, BLOB, 5, SIZE - 5) == (DATA[5 : SIZE - 5], None)
    await adapter.aclose()


async def check_early_end(registry: FakeRegistry, watched: Watched) -> None:
    adapter = await connect(registry, watched)
    for cut in (Cut(after=SIZE // 2), Cut(after=SIZE // 2, how="rst"), Cut(after=SIZE - 1)):
        registry.script("*/blobs/*", cut)
        data, error = await read(adapter)
        assert isinstance(error, TruncatedError)
        assert isinstance(error.__cause__, aiohttp.ClientPayloadError)
        assert data == DATA[: cut.after]
        assert error.received == cut.after
    await adapter.aclose()


async def check_surplus(registry: FakeRegistry, watched: Watched) -> None:
    adapter = await connect(registry, watched)
    claim = SIZE - CHUNK // 2
    registry.script("*/blobs/*", ContentLength(claim))
    assert await read(adapter, UNSIZED) == (DATA[:claim], None)
    await adapter.aclose()


async def check_leaving(registry: FakeRegistry, watched: Watched) -> None:
    adapter = await connect(registry, watched)
    registry.script("*/blobs/*", Stall(after=SIZE // 2), Stall(after=SIZE // 2))
    async with adapter.open_blob(BLOB) as body:
        await anext(body)
    async with adapter.open_blob(BLOB) as body:
        async with asyncio.timeout(30):
            await anext(body)
            await watched.connections.aclose()  # which waits for the end of each connection
        with pytest.raises(SourceError):
            async for _ in body:
                pass
    async with asyncio.timeout(30):
        await registry.wait_until(lambda: registry.abandoned == 2)
    await adapter.aclose()


CHECKS: dict[str, Callable[[FakeRegistry, Watched], Coroutine[Any, Any, None]]] = {
    "whole": check_whole,
    "early end": check_early_end,
    "surplus": check_surplus,
    "leaving": check_leaving,
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("least", [None, 1 << 20], ids=["aiohttp", "taken over"])
def test_a_body_is_the_same_however_it_is_received(
    loop: str,
    taken: list[BodyReceiver | None],
    check: Callable[[FakeRegistry, Watched], Coroutine[Any, Any, None]],
    least: int | None,
    *,
    tls: bool,
) -> None:
    factory = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else None

    async def run() -> None:
        context = Authority().server_context() if tls else None
        async with (
            FakeRegistry(tls=context) as registry,
            watch(options=replace(OPTIONS, take_over=least)) as watched,
        ):
            await check(registry, watched)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run())
    assert bool(taken) is (least is not None)
    assert None not in taken


async def test_the_connection_is_closed_after_the_body(registry: FakeRegistry) -> None:
    async with watch(options=OPTIONS) as watched:
        adapter = await connect(registry, watched)
        async with adapter.open_blob(BLOB) as body:
            async for _ in body:
                pass
            async with asyncio.timeout(30):
                await registry.wait_until(lambda: registry.in_flight == 0)
        await read(adapter)
        assert len({each.connection for each in registry.requests[-2:]}) == 2
        await adapter.aclose()


@pytest.mark.parametrize(
    "fault",
    [Chunked(100_000), CloseDelimited(), Encoding("gzip"), Headers({"Content-Encoding": "x"})],
    ids=["chunked", "no length", "gzip", "another encoding"],
)
async def test_an_unusual_body_is_left_to_aiohttp(
    registry: FakeRegistry, taken: list[BodyReceiver | None], fault: Turn
) -> None:
    async with watch(options=OPTIONS) as watched:
        adapter = await connect(registry, watched)
        registry.script("*/blobs/*", fault)
        async with adapter.open_blob(UNSIZED) as body:
            async for _ in body:
                pass
        await adapter.aclose()
    assert not [receiver for receiver in taken if receiver is not None]


async def test_a_borrowed_client_receives_in_its_own_way(
    registry: FakeRegistry, taken: list[BodyReceiver | None]
) -> None:
    async with aiohttp.ClientSession() as lent, watch(options=OPTIONS, http=lent) as watched:
        adapter = await connect(registry, watched)
        assert await read(adapter) == (DATA, None)
        await adapter.aclose()
    assert taken == []


async def test_a_body_that_is_complete_keeps_its_connection(
    registry: FakeRegistry, taken: list[BodyReceiver | None]
) -> None:
    small = registry.put_blob("team/app", b"x" * 1000)
    async with watch(options=replace(OPTIONS, take_over=1)) as watched:
        adapter = await connect(registry, watched)
        for _ in range(3):
            async with adapter.open_blob(Descriptor(digest=small)) as body:
                await settle(50)  # until all of it has come
                assert b"".join([chunk async for chunk in body]) == b"x" * 1000
        await adapter.aclose()
    assert taken == [None] * 3
    assert len({each.connection for each in registry.requests}) == 1


async def test_a_paused_transport_loses_nothing_and_a_slow_reader_holds_it_back(
    registry: FakeRegistry, taken: list[BodyReceiver | None]
) -> None:
    async with watch(options=OPTIONS) as watched:
        adapter = await connect(registry, watched)
        async with adapter.open_blob(BLOB) as body:
            await settle(200)  # aiohttp has read what it holds at most, and pauses
            data = await anext(body)
            (receiver,) = taken
            assert receiver is not None
            while not receiver._paused:  # noqa: ASYNC110 - it is no event
                await asyncio.sleep(0)
            await settle(200)
            held = sum(map(len, receiver._chunks)) + receiver._filled
            assert held < SIZE - len(data) - CHUNK
            assert len(receiver._chunks) <= WAITING + 1
            async for chunk in body:
                data += chunk
            assert data == DATA
        await adapter.aclose()


async def test_a_connection_that_is_closing_is_left_to_aiohttp(registry: FakeRegistry) -> None:
    registry.put_blob("team/app", DATA)
    url = f"{registry.url}/v2/team/app/blobs/{BLOB.digest}"
    async with aiohttp.ClientSession() as client, client.get(url) as response:
        assert response.connection is not None
        assert response.connection.transport is not None
        response.connection.transport.close()
        assert take_over(response, CHUNK) is None
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_read_timer_of_aiohttp_has_no_effect_any_more(registry: FakeRegistry) -> None:
    registry.put_blob("team/app", DATA)
    go_on = asyncio.Event()
    registry.script("*/blobs/*", Stall(after=SIZE // 2, until=go_on))
    loop = asyncio.get_running_loop()
    url = f"{registry.url}/v2/team/app/blobs/{BLOB.digest}"
    async with aiohttp.ClientSession() as client, client.get(url) as response:
        protocol = response.connection and response.connection.protocol
        assert protocol is not None
        protocol.read_timeout = 0.001
        protocol.start_timeout()
        loop.call_later(0.002, go_on.set)  # timers fire in the order in which they are due
        receiver = take_over(response, CHUNK)
        assert receiver is not None
        data, fired = bytearray(), False
        while chunk := await receiver.read():
            data += chunk
            fired = fired or protocol.exception() is not None
        receiver.close()
    assert fired
    assert data == DATA


class Wire:
    """A transport that gives pieces of `DATA`, its connection, and the protocol before.

    Attributes:
        sent: Bytes that were sent, those before the receiver was set included.
        got: What was read.
    """

    def __init__(self, size: int, chunk: int, before: int) -> None:
        self.paused = self.aborted = self.closed = self.told = False
        self.size = size
        self.chunk = chunk
        self.sent = min(before, size)
        self.got = bytearray()
        wire: Any = self
        self.receiver = BodyReceiver(wire, wire, wire, size, chunk)
        self.receiver.put(DATA[: self.sent])

    def send(self, most: int) -> None:
        if self.paused:
            return
        room = self.receiver.get_buffer(-1)
        count = min(most, len(room), self.size - self.sent)
        room[:count] = DATA[self.sent : self.sent + count]
        self.sent += count
        self.receiver.buffer_updated(count)

    async def read(self) -> None:
        data = await self.receiver.read()
        assert 0 < len(data) <= self.chunk
        self.got.extend(data)
        assert self.got == DATA[: len(self.got)]
        assert self.closed is (len(self.got) == self.size)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.told = True


@given(
    size=st.integers(1, 100),
    chunk=st.integers(1, 40),
    before=st.integers(0, 50),
    steps=st.lists(st.one_of(st.integers(1, 60), st.none()), max_size=40),
    error=st.sampled_from([None, OSError("reset")]),
)
@example(size=7, chunk=1, before=3, steps=[1, None, 1, None, 1, None, 1], error=None)
def test_whatever_the_order_of_pieces_and_reads_the_bytes_are_the_same(
    size: int, chunk: int, before: int, steps: list[int | None], error: Exception | None
) -> None:
    """Each step is a piece of some bytes, or a read if there is something to be read."""

    async def run() -> None:
        wire = Wire(size, chunk, before)
        for step in steps:
            if step is not None:
                wire.send(step)
                assert wire.sent - max(len(wire.got), before) <= (WAITING + 1) * chunk
            elif wire.sent > len(wire.got):
                await wire.read()
        if error is None:
            wire.receiver.eof_received()
        wire.receiver.connection_lost(error)
        while len(wire.got) < wire.sent:
            await wire.read()
        if wire.sent == size:
            assert await wire.receiver.read() == b""
        else:
            with pytest.raises(aiohttp.ClientPayloadError):
                await wire.receiver.read()
        wire.receiver.close()
        assert (wire.told, wire.closed, wire.aborted) == (True, True, wire.sent < size)

    asyncio.run(run())
