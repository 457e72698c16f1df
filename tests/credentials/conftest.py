from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.credentials.keepers import Shelf
from tests.suspending import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    """A shelf for programs; when a test ends, none may be running or uncollected."""
    shelf = Shelf(tmp_path / "shelf")
    yield shelf
    await wait_until(shelf.is_quiet, every=0.005)
