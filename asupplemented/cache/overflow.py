"""The newest bytes of a blob in memory, where there is no room for them on disk."""

from __future__ import annotations

from collections import deque

__all__ = ("Overflow",)


class Overflow:
    """The newest bytes of a blob, in memory.

    Args:
        start: Offset of the first byte that is not in the spool.
    """

    __slots__ = ("_chunks", "_first", "_start", "size")

    def __init__(self, start: int) -> None:
        self._start = start
        self._first = start
        """Offset of the first byte that is still here."""
        self._chunks: deque[bytes] = deque()
        self.size = 0

    @property
    def reaches_back(self) -> bool:
        """Whether nothing is lost between the spool and here."""
        return self._first == self._start

    @property
    def second(self) -> int:
        """Offset behind the first chunk."""
        return self._first + (len(self._chunks[0]) if self._chunks else 0)

    def append(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self.size += len(chunk)

    def drop(self) -> None:
        """Let go of the first chunk."""
        self._first = self.second
        self.size -= len(self._chunks.popleft())

    def read(self, position: int) -> bytes | None:
        """What is there from an offset on, None if it is not there any more."""
        start = self._first
        if position < start:
            return None
        for chunk in self._chunks:
            if position < start + len(chunk):
                return chunk[position - start :]
            start += len(chunk)
        return None
