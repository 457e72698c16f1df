"""What the tests of streams share: a session whose clock is ours, and notes on who was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.retry import CLOCK
from asupplemented.session import Session
from tests.candidates import Ledger
from tests.clocks import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def session(clock: FakeClock) -> AsyncIterator[Session]:
    async with Session() as session:
        session.resource(CLOCK, lambda: clock.clock)
        yield session


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()
