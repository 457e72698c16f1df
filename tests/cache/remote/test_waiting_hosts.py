"""Hosts that wait for the holder of a lease, in virtual time: it works, dies, or loses it."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from asupplemented.cache.remote.leases import PREFIX, TTL, RedisLease
from asupplemented.cache.remote.object_store import ANONYMOUS, ObjectStore
from asupplemented.cache.remote.tiered import PATIENCE, TieredCache
from asupplemented.cache.sharing import open_stream
from asupplemented.events import Warned
from asupplemented.session import Session
from asupplemented.testing import build_image, hold_in_memory
from benchmarks.fleet import clock
from benchmarks.fleet.network import Machine
from benchmarks.fleet.proxies import NAME, Proxy, Services
from benchmarks.fleet.servers import Bucket, BucketClient, Redis, RedisConnection, Registry
from tests.cache.fleet import Shelf, pull
from tests.candidates import DATA, Ledger, Wire, describe

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

RATE: Final = 1e9
BLOB: Final = describe(DATA)
KEY: Final = f"{PREFIX}{ANONYMOUS}/{BLOB.digest}"


class World:
    """What hosts share, in virtual time.

    Attributes:
        redis: Where leases are.
        bucket: Where blobs are.
        ledger: What upstream was asked.
        warnings: Those of all hosts.
    """

    def __init__(self, bucket_rate: float = RATE) -> None:
        self.redis = Redis()
        self.bucket = Bucket(Machine.of("bucket", bucket_rate))
        self.ledger = Ledger()
        self.warnings: list[str] = []

    @asynccontextmanager
    async def open(self, machine: Machine) -> AsyncGenerator[tuple[Session, TieredCache]]:
        """A host with the default settings."""
        store: Any = BucketClient(self.bucket, machine)
        async with (
            TieredCache(
                Shelf(),
                ObjectStore(store, timeout=60),
                lease=RedisLease(RedisConnection(self.redis, machine)),
            ) as cache,
            Session(
                cache=cache,
                hooks=[self.note],
                settings=[clock.virtual_clock(random.Random(1))],
            ) as session,
        ):
            yield session, cache

    def note(self, event: object) -> None:
        if isinstance(event, Warned):
            self.warnings.append(event.message)

    async def follow(self, name: str, delay: float) -> float:
        """Pull the blob after some seconds; gives the time at which it is there."""
        await asyncio.sleep(delay)
        async with self.open(Machine.of(name, RATE)) as (session, cache):
            assert await pull(session, cache, BLOB, Wire(DATA, self.ledger, name=name)) == DATA
            return asyncio.get_running_loop().time()


def test_when_a_holder_dies_one_of_the_waiting_hosts_takes_over() -> None:
    async def main() -> None:
        world, machine = World(), Machine.of("holder", RATE)
        async with world.open(machine) as (session, cache):
            spool = await cache.claim(session, BLOB)
            assert spool is not None
            waiting = [
                asyncio.create_task(world.follow(f"host {number}", number)) for number in range(8)
            ]
            await asyncio.sleep(2 * TTL)  # It is renewed meanwhile, although no byte comes.
            machine.alive = False
            ends = await asyncio.gather(*waiting)
            await spool.aclose()
        assert len(world.ledger.names) == 1
        assert min(ends) > 2 * TTL
        assert max(ends) <= 3 * TTL + 2, "a wait ends soon after the lease"

    clock.run(main())


def test_a_lease_outlasts_a_silent_upstream_and_a_slow_upload() -> None:
    async def main() -> None:
        world = World(bucket_rate=len(DATA) / 25)
        async with world.open(Machine.of("holder", RATE)) as (session, cache):
            spool = await cache.claim(session, BLOB)
            assert spool is not None
            waiting = asyncio.create_task(world.follow("host", 1))
            await asyncio.sleep(20)
            async with spool:
                await spool.append(DATA)
                await spool.commit()
            # 25 s for the upload, then as long for the host that reads it
            assert 20 + 2 * 25 <= await waiting < 20 + 2 * 25 + 3
        assert world.ledger.names == []
        assert world.warnings == []
        assert world.redis.execute("GET", KEY) is None

    clock.run(main())


@pytest.mark.parametrize("taken", [False, True])
def test_a_lost_lease_is_told_once_and_the_fetch_goes_on(taken: bool) -> None:  # noqa: FBT001
    async def main() -> None:
        world = World()
        async with world.open(Machine.of("holder", RATE)) as (session, cache):
            spool = await cache.claim(session, BLOB)
            assert spool is not None
            owner = str(world.redis.execute("GET", KEY))
            assert world.redis.execute("EVAL", "", 1, KEY, owner) == 1
            if taken:
                world.redis.execute("SET", KEY, "another host", "NX", "PX", 10**6)
            await asyncio.sleep(5 * TTL)
            [warning] = world.warnings
            assert f"the lease of {BLOB.digest} was lost" in warning
            async with spool:
                await spool.append(DATA)
                await spool.commit()
        assert list(world.bucket.objects.values()).count(DATA) == 1
        assert (world.redis.execute("GET", KEY) == "another host") is taken

    clock.run(main())


def test_a_stream_opens_before_another_host_is_done() -> None:
    async def main() -> None:
        world, loop = World(), asyncio.get_running_loop()
        world.redis.execute("SET", KEY, "another host", "NX", "PX", 30_000)
        async with world.open(Machine.of("host", RATE)) as (session, _):
            stream = open_stream(BLOB, [Wire(DATA, world.ledger, name="upstream")], session)
            async with stream:
                assert loop.time() < 3
                assert stream.size == len(DATA)
                assert b"".join([chunk async for chunk in stream]) == DATA
                assert 30 <= loop.time() < 32
            # A reader that leaves ends a wait, and nothing is left of it.
            other = describe(DATA * 2)
            key = KEY.replace(BLOB.digest, other.digest)
            world.redis.execute("SET", key, "another host", "NX", "PX", 30_000)
            async with open_stream(other, [Wire(DATA * 2, world.ledger)], session):
                pass
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
        assert world.ledger.names == ["upstream"]
        assert (world.ledger.holds, world.ledger.left_open) == (0, 0)

    clock.run(main())


class Taker:
    """The body of an answer, and when its head came."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.status = 0
        self.began = 0.0

    def begin(self, status: int) -> None:
        self.status = status
        self.began = asyncio.get_running_loop().time()

    def take(self, part: memoryview) -> None:
        self.data += part


@pytest.mark.parametrize("held", [5, 30, 10 * PATIENCE])
def test_a_request_that_waits_for_another_host_is_answered(held: float, tmp_path: Path) -> None:
    image = build_image(layers=[DATA])
    [digest] = [digest for digest, data in image.blobs.items() if data == DATA]

    async def main() -> None:
        registry = Registry(Machine.of("origin", RATE), hold_in_memory(NAME, image), 0.05)
        services = Services(
            [registry],
            Bucket(Machine.of("bucket", RATE)),
            Redis(),
            clock.virtual_clock(random.Random(1)),
        )
        proxy, node = Proxy(Machine.of("proxy", RATE), services, tmp_path), Machine.of("n", RATE)
        await proxy.start()
        await proxy.ask(node, "GET", f"/v2/{NAME}/manifests/latest", {}, Taker())
        key = f"{PREFIX}{ANONYMOUS}/{digest}"
        services.redis.execute("SET", key, "another host", "NX", "PX", int(1000 * held))
        takers = [Taker() for _ in range(3)]
        path = f"/v2/{NAME}/blobs/{digest}"
        await asyncio.gather(*(proxy.ask(node, "GET", path, {}, taker) for taker in takers))
        for taker in takers:
            assert (taker.status, taker.data) == (200, DATA)
            assert taker.began < 10, "the head comes in time, also if the body does not"
        now = asyncio.get_running_loop().time()
        assert min(held, PATIENCE) <= now < min(held, PATIENCE) + 2
        assert registry.asked["GET", digest] == 1
        await proxy.aclose()

    clock.run(main())
