"""Cancelled at every await there is, nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.limits import SMALL_BLOB
from asupplemented.model.credential import Credential
from asupplemented.model.digest import Digest
from asupplemented.session import Session
from asupplemented.testing import Basic, Bearer, FakeRegistry, Redirect, Status, Unauthorized
from tests.suspending import cancel_at_every_await, settle
from tests.transports.registry.sessions import BLOB, IMAGE, fill, limited, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.transports.registry.sessions import Watched

BLOB_DIGEST = Digest.of(BLOB)


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    """One with tokens."""
    async with FakeRegistry(access=Bearer({"bob": "secret"})) as opened:
        fill(opened)
        yield opened


async def use(watched: Watched, registry: FakeRegistry) -> None:
    """Read an image from a registry that is busy, forgetful, and has its blobs elsewhere.

    It denies that there is an image until it is pinged and given a token.
    """
    registry.clear_scripts()
    registry.script("/v2/", Status(503))
    registry.script("/token", Status(503))
    registry.script("latest", Status(404), Status(429, {"Retry-After": "1"}))
    registry.script(IMAGE.digest, Unauthorized(error="invalid_token"))
    registry.script("*/blobs/*", Redirect(registry.put_file("/storage", BLOB)))
    async with (
        await watched.open(registry.reference("team/app")) as source,
        source.open_blob(BLOB_DIGEST) as blob,
    ):
        await source.get_manifest(IMAGE.digest)
        assert await blob.read_all(1 << 20) == BLOB


def settings(registry: FakeRegistry) -> dict[str, Any]:
    return {"credentials": {registry.host: Credential("bob", "secret")}}


async def test_SEC16_with_a_session_of_its_own_each_time(registry: FakeRegistry) -> None:
    before = asyncio.all_tasks()

    async def run() -> None:
        async with watch(**settings(registry)) as watched:
            await use(watched, registry)

    async def check() -> None:
        async with asyncio.timeout(5):
            await registry.wait_until(lambda: registry.open_connections == 0)
        await settle()
        assert not [t for t in asyncio.all_tasks() - before if "Connection._serve" not in repr(t)]

    assert await cancel_at_every_await(run, check) >= 14


async def test_SEC16_with_one_session_throughout(registry: FakeRegistry) -> None:
    async with watch(**settings(registry)) as watched:

        async def check() -> None:
            await settle()
            watched.check_quiet()

        async def run() -> None:
            for client in _clients(watched):
                client._contact = None  # what was learned is forgotten: each run does everything
            await use(watched, registry)

        assert await cancel_at_every_await(run, check) >= 14
        await run()


async def test_SEC16_while_waiting_for_a_place(registry: FakeRegistry) -> None:
    async with (
        watch(**settings(registry)) as watched,
        await watched.open(registry.reference("team/app")) as source,
    ):
        [client] = _clients(watched)
        held = [await client.limiter.bodies.acquire(SMALL_BLOB) for _ in range(6)]

        async def read() -> None:
            async with source.open_blob(BLOB_DIGEST) as blob:
                await blob.read_all(1 << 20)

        tasks = [asyncio.create_task(read()) for _ in range(3)]
        await settle()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for slot in held:
            slot.release()
        await read()


async def test_SEC16_a_race_for_the_first_ping_ends_both() -> None:
    begun: list[asyncio.StreamWriter] = []
    both, left = asyncio.Event(), asyncio.Semaphore(0)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.append(writer)
        if len(begun) == len(("https", "http")):
            both.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        left.release()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, watch(options=limited(head_start=0.01)) as watched:
        task = asyncio.create_task(watched.open(f"docker://127.0.0.1:{port}/a"))
        await both.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in begun:
            await left.acquire()


async def test_closing_the_session_closes_idle_connections() -> None:
    async with FakeRegistry(access=Basic({"bob": "secret"})) as registry:
        fill(registry)
        async with watch(**settings(registry)) as watched:
            await watched.try_open(registry.reference("team/app"))
            assert registry.open_connections == 1
        async with asyncio.timeout(5):
            await registry.wait_until(lambda: registry.open_connections == 0)


async def test_a_session_that_never_asked_closes() -> None:
    async with Session():
        pass


def _clients(watched: Watched) -> list[Any]:
    try:
        return list(watched.pool._clients.values())
    except AssertionError:
        return []
