"""The quota of a cache: the sum of all sizes, the lock under which it changes, and what to evict.

The sum is written before a blob comes and after one has gone. A process that dies in between leaves
a sum that is too large, never one that is too small; the next count corrects it, and the limit is
kept meanwhile.

Eviction removes the least recently used blob first. `EvictionQueue` decides that without touching
files. It is made from one scan of the whole directory and lasts for many evictions: blobs that came
or were used after the scan were used later than all others, so they are not in the queue, or leave
it when their turn comes. When the queue is empty, the directory is scanned again.
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

    from asupplemented.cache.layout.paths import BlobUsage
    from asupplemented.model.digest import Digest

__all__ = ("EvictionQueue", "Quota", "QuotaLock")

BATCH: Final = 64
"""Blobs that are chosen at once; each is locked until it is removed."""

_DIGITS: Final = 20


class EvictionQueue:
    """Blobs in order of last use, the least recently used first.

    Args:
        usages: The blobs that there are.
    """

    __slots__ = ("_heap",)

    def __init__(self, usages: Iterable[BlobUsage]) -> None:
        self._heap = list(usages)
        heapq.heapify(self._heap)

    def choose(
        self,
        excess: int,
        *,
        look_up: Callable[[Digest], BlobUsage | None],
        may_evict: Callable[[BlobUsage], bool],
    ) -> list[BlobUsage]:
        """Take blobs from the front until enough bytes are free, or there are `BATCH` of them.

        Args:
            excess: Bytes to free, more than 0.
            look_up: Gives the usage of a blob now; None if it is gone.
            may_evict: Decides whether a blob may be evicted; if not, it stays in the queue.

        Returns:
            The chosen blobs, in the order in which to evict them; none if none may be evicted.
        """
        chosen: list[BlobUsage] = []
        spared: list[BlobUsage] = []
        while self._heap and excess > 0 and len(chosen) < BATCH:
            usage = heapq.heappop(self._heap)
            current = look_up(usage.digest)
            if current is None or current.used > usage.used:
                continue  # Gone, or used since the scan, and so newer than all others here.
            if may_evict(current):
                chosen.append(current)
                excess -= current.size
            else:
                spared.append(current)
        self.put_back(spared)
        return chosen

    def put_back(self, usages: Iterable[BlobUsage]) -> None:
        """Put blobs into the queue again that were not evicted."""
        for usage in usages:
            heapq.heappush(self._heap, usage)


class QuotaLock:
    """The sum of all sizes, while its lock is held. Blocking.

    Attributes:
        total: Bytes of all blobs; None if that is not known, and they have to be counted.
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
        """Add to the sum; a negative size takes from it.

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


class Quota:
    """The file that holds the sum of all sizes.

    Args:
        path: The file.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def try_lock(self) -> Generator[QuotaLock | None]:
        """Hold the lock, between processes and threads. Blocking, but never waits.

        Yields:
            The sum; None if the lock is held elsewhere.

        Raises:
            SourceError: The file cannot be made or locked.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with map_write_errors(self._path):
            fd = os.open(self._path, flags, 0o600)
        try:
            with map_write_errors(self._path):
                held = lock_file(fd)
            yield QuotaLock(fd, self._path) if held else None
        finally:
            os.close(fd)
