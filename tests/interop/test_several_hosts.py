"""Several hosts, a real Redis, and a server that speaks S3: what all need is fetched once."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

import asupplemented as asup
from asupplemented.cache.remote.leases import RedisLease, UnheldLease
from asupplemented.cache.remote.object_store import ANONYMOUS, ObjectStore
from asupplemented.cache.remote.uploads import PART
from asupplemented.cache.remote.values import RedisValues
from asupplemented.errors import BlobNotFoundError, NetworkError, RangeError
from asupplemented.events import Warned
from asupplemented.limits import MIB
from asupplemented.model.digest import Digest
from asupplemented.testing import FakeRegistry, build_image
from tests.candidates import LARGE, describe
from tests.interop.programs import SECONDS
from tests.interop.storage import Bucket, run_redis, run_s3
from tests.modules import ROOT
from tests.suspending import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from asupplemented.events import Event

PASSWORD = "correct:horse"  # noqa: S105 - of a server that is gone in a minute
HUGE = random.Random(3).randbytes(3 * PART + 5)
DIGEST = Digest.of(HUGE)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with run_s3() as served:
        yield served


@pytest.fixture
def bucket(endpoint: str) -> Bucket:
    """A bucket of the test's own."""
    made = Bucket(endpoint, f"bucket-{secrets.token_hex(8)}")
    made.ask(method="PUT")
    return made


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    with run_redis(tmp_path / "redis.sock", PASSWORD) as url:
        yield url


async def read(start: int, size: int) -> bytes:
    return HUGE[start : start + size]


async def drain(storage: ObjectStore, *bounds: int | None) -> bytes:
    async with storage.blob(DIGEST).open(*bounds) as body:
        return b"".join([chunk async for chunk in body])


# Redis


async def test_a_real_redis_keeps_leases(redis: str, session: asup.Session) -> None:
    async with RedisLease.from_url(redis) as one, RedisLease.from_url(redis) as other:
        held = await one.acquire(session, "key")
        assert held is not None
        assert not isinstance(held, UnheldLease)
        assert await other.acquire(session, "key") is None
        assert await held.renew() is True
        await held.aclose()
        again = await other.acquire(session, "key")
        assert again is not None
        assert await one.acquire(session, "key") is None
        await again.aclose()


async def test_a_real_redis_lets_a_lease_lapse(redis: str, session: asup.Session) -> None:
    async with RedisLease.from_url(redis, ttl=0.05) as lease:
        lost = await lease.acquire(session, "key")
        assert lost is not None
        taken = None
        while taken is None:
            taken = await lease.acquire(session, "key")
        assert await lost.renew() is False
        await lost.aclose()
        await taken.aclose()


async def test_a_real_redis_keeps_values(redis: str, session: asup.Session) -> None:
    async with RedisValues.from_url(redis) as one, RedisValues.from_url(redis) as other:
        assert await one.get(session, "key") is None
        await one.put(session, "key", "100 7", 60)
        assert await other.get(session, "key") == "100 7"
        await other.put(session, "key", "100 6", 0.001)
        while await one.get(session, "key") is not None:
            pass


async def test_a_wrong_password_stops_nobody_and_is_not_told(redis: str) -> None:
    events: list[Event] = []
    async with (
        RedisLease.from_url(redis.replace(PASSWORD, "hunter2")) as lease,
        asup.Session(hooks=[events.append]) as session,
    ):
        assert isinstance(await lease.acquire(session, "key"), UnheldLease)
    [event] = events
    assert isinstance(event, Warned)
    assert "hunter2" not in event.message


async def test_a_redis_that_dies_stops_nobody(tmp_path: Path) -> None:
    events: list[Event] = []
    async with asup.Session(hooks=[events.append]) as session:
        with run_redis(tmp_path / "redis.sock", PASSWORD) as url:
            lease = RedisLease.from_url(url)
            held = await lease.acquire(session, "key")
        assert held is not None
        async with lease:
            assert await held.renew() is True
            assert isinstance(await lease.acquire(session, "other"), UnheldLease)
            await held.aclose()
    assert len(events) == 1


# S3


async def test_a_blob_comes_back_from_s3_as_it_went(bucket: Bucket) -> None:
    storage = bucket.open()
    assert not await storage.has(ANONYMOUS, DIGEST)
    await storage.put_blob(ANONYMOUS, DIGEST, len(HUGE), read)
    assert await storage.has(ANONYMOUS, DIGEST)
    assert await drain(storage) == HUGE
    assert await drain(storage, PART, PART + 10) == HUGE[PART : PART + 10]
    assert await drain(storage, len(HUGE)) == b""
    with pytest.raises(RangeError):
        await drain(storage, len(HUGE) + 1)
    assert sorted(bucket.keys()) == [
        f"blobs/sha256/{DIGEST.encoded}",
        f"grants/{ANONYMOUS}/sha256/{DIGEST.encoded}",
        "index.json",
        "oci-layout",
    ]
    assert bucket.uploads() == []


async def test_an_upload_to_s3_that_is_cancelled_leaves_nothing(bucket: Bucket) -> None:
    reached = asyncio.Event()

    async def stuck(start: int, size: int) -> bytes:
        if start >= 2 * PART:
            reached.set()
            await asyncio.Event().wait()
        return await read(start, size)

    storage = bucket.open()
    upload = asyncio.create_task(storage.put_blob(ANONYMOUS, DIGEST, len(HUGE), stuck))
    await reached.wait()
    await wait_until(lambda: bool(bucket.uploads()))
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert bucket.uploads() == []
    assert sorted(bucket.keys()) == ["index.json", "oci-layout"]


async def test_s3_that_is_not_there_is_told_without_secrets(bucket: Bucket) -> None:
    elsewhere = Bucket("http://127.0.0.1:1", "bucket").open()
    with pytest.raises(NetworkError, match="could not be asked") as caught:
        await elsewhere.has(ANONYMOUS, DIGEST)
    assert "hunter2" not in repr(caught.value)
    missing = Bucket(bucket.endpoint, "missing").open()
    with pytest.raises(BlobNotFoundError, match="no such bucket"):
        await missing.put_blob(ANONYMOUS, DIGEST, len(HUGE), read)


# Hosts


@asynccontextmanager
async def start_host(task: dict[str, Any]) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A process that is ready to pull; it is reaped however the test ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "tests.interop.host"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(task).encode() + b"\n")
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def finish(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Let a host begin, and hear what it has to say."""
    async with asyncio.timeout(SECONDS):
        output, _ = await process.communicate(b"go\n")
    assert process.returncode == 0
    said: dict[str, Any] = json.loads(output)
    return said


async def run_hosts(task: dict[str, Any], *directories: Path) -> list[dict[str, Any]]:
    """Have processes pull at once, each with a cache in its directory."""
    async with AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(start_host(task | {"directory": str(directory)}))
            for directory in directories
        ]
        return await asyncio.gather(*map(finish, started))


async def test_hosts_fetch_what_all_need_once(redis: str, bucket: Bucket, tmp_path: Path) -> None:
    one, other, late = (tmp_path / name for name in ("one", "other", "late"))
    layers = [random.Random(seed).randbytes(2 * MIB) for seed in range(3)]
    built = build_image(layers=[*layers, HUGE])
    async with FakeRegistry() as upstream:
        task = {
            "reference": upstream.add("team/app", built),
            "storage": bucket.url,
            "options": bucket.options,
            "redis": redis,
        }
        told = await run_hosts(task, one, one, other)
        assert [each["failed"] for each in told] == [[], [], []]
        assert upstream.count("/v2/team/app/blobs/*") == len(built.layers)
        [last] = await run_hosts(task, late)
        assert upstream.count("/v2/team/app/blobs/*") == len(built.layers)
    for process in (*told, last):
        assert process["digests"] == list(built.layers)
        assert process["warnings"] == []
    assert last["served"] == [bucket.url]


async def test_hosts_without_redis_and_storage_pull_all_the_same(tmp_path: Path) -> None:
    built = build_image(layers=[LARGE])
    async with FakeRegistry() as upstream:
        task = {
            "reference": upstream.add("team/app", built),
            "storage": "s3://bucket",
            "options": Bucket("http://127.0.0.1:1", "bucket").options,
            "redis": f"unix://{tmp_path}/nothing",
        }
        told = await run_hosts(task, tmp_path / "one", tmp_path / "other")
        assert upstream.count("/v2/team/app/blobs/*") == 2 * len(built.layers)
    for process in told:
        assert process["digests"] == list(built.layers)
        assert len(process["warnings"]) == 1


async def test_wrong_bytes_of_an_object_store_are_replaced(redis: str, bucket: Bucket) -> None:
    assert describe(HUGE).digest == DIGEST
    storage = bucket.open()

    async def wrong(start: int, size: int) -> bytes:
        return bytes(size)

    await storage.put_blob(ANONYMOUS, DIGEST, len(HUGE), wrong)
    await storage.put_blob(ANONYMOUS, DIGEST, len(HUGE), read, replace=True)
    assert await drain(storage) == HUGE
