"""Eviction: which blobs go when there is no more room. Decisions only, no files.

The queue is made of one look at the whole directory and lasts for many evictions. What has come
or been used since that look was used later than all the rest; it is not in the queue, or leaves it
when its turn comes. So each choice is the least recently used blob, until the queue is empty and
it takes another look.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asupplemented.cache.layout.records import Item
    from asupplemented.model.digest import Digest

__all__ = ("EvictionQueue",)

BATCH: Final = 64
"""Blobs that are chosen at once: each is locked until it is gone."""


class EvictionQueue:
    """Blobs, those first that were not used for longest.

    Args:
        items: What there is.
    """

    __slots__ = ("_heap",)

    def __init__(self, items: Iterable[Item]) -> None:
        self._heap = list(items)
        heapq.heapify(self._heap)

    def choose(
        self,
        excess: int,
        *,
        look: Callable[[Digest], Item | None],
        take: Callable[[Item], bool],
    ) -> list[Item]:
        """Take blobs from the front until enough bytes are free, or there are `BATCH` of them.

        Args:
            excess: Bytes to free, more than 0.
            look: What a blob is now; None if it is gone.
            take: Decides whether a blob may go; False leaves it where it is.

        Returns:
            What was taken, in the order in which it is to go; nothing if nothing may.
        """
        chosen: list[Item] = []
        spared: list[Item] = []
        while self._heap and excess > 0 and len(chosen) < BATCH:
            item = heapq.heappop(self._heap)
            current = look(item.digest)
            if current is None or current.used > item.used:
                continue
            if take(current):
                chosen.append(current)
                excess -= current.size
            else:
                spared.append(current)
        self.put_back(spared)
        return chosen

    def put_back(self, items: Iterable[Item]) -> None:
        """Have blobs in the queue again that did not go."""
        for item in items:
            heapq.heappush(self._heap, item)
