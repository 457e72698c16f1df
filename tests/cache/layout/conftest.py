"""What the tests of the cache on disk share: a session whose clock and events are ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.retry import CLOCK
from asupplemented.session import Session
from tests.cache.driving import Events
from tests.clocks import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def session(events: Events, clock: FakeClock) -> AsyncIterator[Session]:
    async with Session(hooks=[events]) as session:
        session.resource(CLOCK, lambda: clock.clock)
        yield session


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache"
