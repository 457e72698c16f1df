"""Leases: one holder at a time, for a while, and nobody is hurt by losing one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.cache.remote.leases import LocalLease, UnheldLease, check_seconds
from asupplemented.errors import ConfigurationError
from asupplemented.session import Session
from tests.clocks import FakeClock

if TYPE_CHECKING:
    from asupplemented.session import Session
    from tests.clocks import FakeClock


async def test_one_holds_a_lease_until_it_gives_it_back(session: Session) -> None:
    lease = LocalLease()
    first = await lease.acquire(session, "key")
    assert first is not None
    assert await lease.acquire(session, "key") is None
    assert await lease.acquire(session, "other") is not None
    await first.aclose()
    await first.aclose()
    assert await lease.acquire(session, "key") is not None


async def test_a_lease_that_is_not_renewed_lapses_and_is_lost(
    session: Session, clock: FakeClock
) -> None:
    lease = LocalLease(ttl=30)
    first = await lease.acquire(session, "key")
    assert first is not None
    clock.time = 29.9
    assert await lease.acquire(session, "key") is None
    clock.time = 30
    second = await lease.acquire(session, "key")
    assert second is not None
    assert await first.renew() is False
    await first.aclose()
    assert await lease.acquire(session, "key") is None, "who lost it gave it back all the same"
    assert await second.renew() is True


async def test_a_lease_that_is_renewed_is_held_for_as_long_as_it_takes(
    session: Session, clock: FakeClock
) -> None:
    lease = LocalLease(ttl=30)
    held = await lease.acquire(session, "key")
    assert held is not None
    for _ in range(20):
        clock.time += 11
        assert await held.renew() is True
        assert await lease.acquire(session, "key") is None


async def test_a_lease_that_its_server_forgot_is_lost_for_good(session: Session) -> None:
    lease = LocalLease(ttl=30)
    held = await lease.acquire(session, "key")
    assert held is not None
    lease._holders.clear()
    assert await held.renew() is False
    assert await lease.acquire(session, "key") is not None
    assert await held.renew() is False


async def test_who_holds_nothing_goes_on() -> None:
    async with UnheldLease() as held:
        assert await held.renew() is True


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, True, "3", None])
def test_a_time_that_is_none_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="ttl is a number of seconds, more than 0, not"):
        LocalLease(ttl=value)


def test_a_time_may_be_nothing_where_that_means_something() -> None:
    assert check_seconds("patience", 0, zero=True) == 0.0
    with pytest.raises(ConfigurationError, match="0 or more, not -1"):
        check_seconds("patience", -1, zero=True)
