"""The ledger: the sum of all blobs of a cache, and the lock under which that sum changes.

It is written before a blob comes and after one has gone, so that a process that dies in between
leaves a sum that is too large: the next count puts it right, and no limit was broken meanwhile.

Eviction: which blobs go when there is no more room. Decisions only, no files.

The queue is made of one look at the whole directory and lasts for many evictions. What has come
or been used since that look was used later than all the rest; it is not in the queue, or leaves it
when its turn comes. So each choice is the least recently used blob, until the queue is empty and
it takes another look.
"""

from __future__ import annotations

import heapq
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from asupplemented.aio.files import map_write_errors
from asupplemented.aio.locks import lock_file

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

    from asupplemented.cache.layout.paths import Item
    from asupplemented.model.digest import Digest

__all__ = ("Account", "EvictionQueue", "Ledger")

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


_DIGITS: Final = 20


class Account:
    """The sum, as long as the lock is held. Blocking.

    Attributes:
        total: Bytes of all blobs; None if nobody knows, and they have to be counted.
    """

    __slots__ = ("_fd", "_path", "total")

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self.total = self._read()

    def set(self, total: int) -> None:
        """Write a new sum.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        self.total = max(0, total)
        with map_write_errors(self._path):
            line = f"{self.total:0{_DIGITS}}\n".encode()
            os.pwrite(self._fd, line, 0)
            os.ftruncate(self._fd, len(line))

    def add(self, size: int) -> None:
        """Write the sum that `size` bytes more make, or less if it is negative.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        self.set((self.total or 0) + size)

    def _read(self) -> int | None:
        text = b""
        with suppress(OSError):
            text = os.pread(self._fd, _DIGITS + 2, 0)
        digits = text.removesuffix(b"\n")
        return int(digits) if len(digits) == _DIGITS and digits.isdigit() else None


class Ledger:
    """The file that holds the sum.

    Args:
        path: Where it is.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def try_hold(self) -> Generator[Account | None]:
        """Hold the lock, between processes and threads. Blocking, but never waits.

        Yields:
            The account; None if somebody else holds it.

        Raises:
            SourceError: The file cannot be made or locked.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with map_write_errors(self._path):
            fd = os.open(self._path, flags, 0o644)
        try:
            with map_write_errors(self._path):
                held = lock_file(fd)
            yield Account(fd, self._path) if held else None
        finally:
            os.close(fd)
