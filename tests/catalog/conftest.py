"""A registry, a clock that stands still, and a session that never waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented import RegistryOptions, RetryPolicy, Session
from asupplemented.testing import FakeRegistry
from asupplemented.transports.registry import RegistryLimits
from tests.clocks import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asupplemented import Event
    from asupplemented.abc import Setting

OPTIONS = RegistryOptions(limits=RegistryLimits(head_start=0.01), retry=RetryPolicy(attempts=1))


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        yield opened


@pytest.fixture
async def other() -> AsyncIterator[FakeRegistry]:
    """A second registry."""
    async with FakeRegistry() as opened:
        yield opened


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> list[Event]:
    """What the hooks of the session are told."""
    return []


@pytest.fixture
async def session(clock: FakeClock, events: list[Event]) -> AsyncIterator[Session]:
    settings: list[Setting] = [clock.clock, OPTIONS]
    async with Session(settings=settings, tls_verify=False, hooks=[events.append]) as opened:
        yield opened
