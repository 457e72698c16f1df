from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented.testing import FakeRegistry
from tests.transports.registry.sessions import Watched, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        yield opened


@pytest.fixture
async def other() -> AsyncIterator[FakeRegistry]:
    """A second origin."""
    async with FakeRegistry() as opened:
        yield opened


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    async with watch() as opened:
        yield opened
