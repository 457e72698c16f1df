"""Side by side: begun in order, and over together."""

from __future__ import annotations

import pytest

from asupplemented.aio.concurrency import for_each
from asupplemented.errors import LimitExceededError


async def test_side_by_side_begins_in_order_and_stops_at_the_first_failure() -> None:
    begun: list[int] = []

    async def act(item: int) -> None:
        begun.append(item)
        if item == 2:
            raise LimitExceededError("enough")

    with pytest.raises(LimitExceededError, match="enough"):
        await for_each([1, 2, 3, 4], act, limit=1)
    assert begun == [1, 2]
