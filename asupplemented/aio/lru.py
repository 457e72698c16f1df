"""A bounded memory that forgets what was not used for longest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("LRU",)

K = TypeVar("K")
V = TypeVar("V")


class LRU(Generic[K, V]):
    """A mapping that evicts the least recently used entries. May be used from any thread.

    Args:
        limit: The most that all entries may weigh together.
        weigh: Gives the weight of a value; None makes each weigh 1, so that `limit` is a count.
    """

    __slots__ = ("_entries", "_limit", "_lock", "_weigh", "_weight")

    def __init__(self, limit: int, weigh: Callable[[V], int] | None = None) -> None:
        self._limit = limit
        self._weigh = weigh
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._weight = 0

    def get(self, key: K) -> V | None:
        """The value of a key, which counts as used now; None if there is none."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: K, value: V) -> list[K]:
        """Set the value of a key, and evict until all entries are within the limit.

        A value that is heavier than the limit is evicted at once.

        Returns:
            The keys that were evicted.
        """
        weight = 1 if self._weigh is None else self._weigh(value)
        with self._lock:
            self._remove(key)
            self._entries[key] = value, weight
            self._weight += weight
            evicted: list[K] = []
            while self._weight > self._limit:
                oldest, (_, lost) = self._entries.popitem(last=False)
                self._weight -= lost
                evicted.append(oldest)
            return evicted

    def pop(self, key: K) -> V | None:
        """Remove a key; gives its value, None if there is none."""
        with self._lock:
            return self._remove(key)

    def clear(self) -> None:
        """Remove all keys."""
        with self._lock:
            self._entries.clear()
            self._weight = 0

    def values(self) -> list[V]:
        """All values, the least recently used first; none of them counts as used by that."""
        with self._lock:
            return [value for value, _ in self._entries.values()]

    def items(self) -> list[tuple[K, V]]:
        """All keys and values, in the same order."""
        with self._lock:
            return [(key, value) for key, (value, _) in self._entries.items()]

    def _remove(self, key: K) -> V | None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self._weight -= entry[1]
        return entry[0]

    def __contains__(self, key: K) -> bool:
        """Whether there is a value, which does not count as used by that."""
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<LRU of {len(self._entries)} entries, {self._weight} of {self._limit}>"
