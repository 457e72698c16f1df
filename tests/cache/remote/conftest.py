"""What the tests of caches over several hosts share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.retry import CLOCK
from asupplemented.cache.remote import remote as remote_tier
from asupplemented.session import Session
from tests.clocks import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asupplemented.events import Event


@pytest.fixture(autouse=True)
def no_interpreter_ends_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to wait for threads that would be in the way of that."""
    monkeypatch.setattr(remote_tier, "GRACE", 0.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
async def session(clock: FakeClock, events: list[Event]) -> AsyncIterator[Session]:
    async with Session(hooks=[events.append]) as opened:
        opened.resource(CLOCK, lambda: clock.clock)
        yield opened
