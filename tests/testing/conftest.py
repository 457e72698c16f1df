from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from asupplemented.testing import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        yield opened


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A plain client that shows what came: no decompression, no redirects unless asked."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session
