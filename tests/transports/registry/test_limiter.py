"""Pauses."""

from __future__ import annotations

import asyncio

import pytest

from asupplemented.errors import TooManyRequestsError
from asupplemented.transports.registry.client import Limiter
from asupplemented.transports.registry.options import RegistryLimits
from tests.clocks import FakeClock

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
