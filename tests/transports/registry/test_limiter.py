"""Pauses, and how much may be in flight."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import (
    BlobNotFoundError,
    NetworkError,
    ServerError,
    SourceTimeoutError,
    SupplementedError,
    TooManyRequestsError,
)
from asupplemented.testing import FakeRegistry, Status
from asupplemented.transports.registry.client import Limiter
from asupplemented.transports.registry.options import RegistryLimits
from tests.clocks import FakeClock
from tests.suspending import settle
from tests.transports.registry.sessions import IMAGE, Watched, fill

if TYPE_CHECKING:
    from asupplemented.aio.slots import Slot

PATIENCE = 120.0


def limiter(clock: FakeClock) -> Limiter:
    return Limiter(RegistryLimits(), clock=clock.clock)


async def test_nobody_waits_without_a_pause() -> None:
    clock = FakeClock()
    limits = limiter(clock)
    assert not limits.paused
    await limits.wait(PATIENCE)
    assert clock.slept == []


async def test_RET07_requests_wait_until_the_pause_ends() -> None:
    clock = FakeClock()
    limits = limiter(clock)
    limits.pause(5)
    clock.time = 2
    assert limits.paused
    await limits.wait(PATIENCE)
    assert clock.slept == [3]
    assert not limits.paused


async def test_RET07_a_shorter_pause_does_not_shorten_a_longer_one() -> None:
    clock = FakeClock()
    limits = limiter(clock)
    limits.pause(10)
    limits.pause(1)
    await limits.wait(PATIENCE)
    assert clock.slept == [10]


async def test_RET07_a_pause_may_be_extended_while_somebody_waits() -> None:
    clock = FakeClock()
    limits = limiter(clock)
    limits.pause(5)
    waiting = asyncio.create_task(limits.wait(PATIENCE))
    await asyncio.sleep(0)
    limits.pause(5)
    await waiting
    assert clock.slept == [5, 5]


async def test_RET08_pause_after_pause_ends_in_an_error() -> None:
    clock = FakeClock()
    limits = limiter(clock)
    limits.pause(60)
    waiting = asyncio.create_task(limits.wait(100.0))
    await asyncio.sleep(0)
    limits.pause(60)
    with pytest.raises(TooManyRequestsError) as caught:
        await waiting
    assert caught.value.retry_after == 60
    assert clock.slept == [60]


async def count_room(limits: Limiter) -> int:
    """How many small bodies may be in flight now."""
    held: list[Slot] = []
    while True:
        waiting = asyncio.create_task(limits.bodies.acquire(limits.bodies.weigh(0)))
        await settle()
        if not waiting.done():
            waiting.cancel()
            for slot in held:
                slot.release()
            return len(held)
        held.append(waiting.result())


@pytest.mark.parametrize(
    ("error", "room"),
    [
        (TooManyRequestsError("busy", status=429), 32),
        (ServerError("overloaded", status=503), 32),
        (SourceTimeoutError("no first byte"), 32),
        (ServerError("broken", status=500), 64),
        (BlobNotFoundError("not there"), 64),
        (NetworkError("gone"), 64),
    ],
)
async def test_RET11_what_tells_that_a_registry_is_overloaded(
    error: SupplementedError, room: int
) -> None:
    clock = FakeClock()
    limits = limiter(clock)
    for _ in range(3):  # of one round trip
        limits.record_failure(error, 0.0)
    assert await count_room(limits) == room


async def test_RET11_a_registry_that_refuses_is_asked_for_less_and_then_for_more(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    async with await watched.open(reference) as source:
        [client] = watched.pool._clients.values()
        assert await count_room(client.limiter) == 64
        registry.script("*/manifests/*", Status(503))
        await source.get_manifest(IMAGE.digest)
        assert 32 <= await count_room(client.limiter) < 64
        watched.clock.time += 30
        assert await count_room(client.limiter) == 64
