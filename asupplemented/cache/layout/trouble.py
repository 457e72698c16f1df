"""Trouble with the disk of a cache: told now and then, and never in the way of a pull."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, TypeVar

from asupplemented.aio.files import run_blocking
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.cache.layout.index_json import Busy
from asupplemented.errors import SourceTimeoutError
from asupplemented.events import Warned

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asupplemented.abc import Context
    from asupplemented.errors import SupplementedError

__all__ = ("Warnings", "when_free")

T = TypeVar("T")

LOCK_PAUSE: Final = 0.005
"""Seconds between two tries to take a lock; what is done under it takes about as long."""

LOCK_PATIENCE: Final = 10.0
"""Seconds to try for; then the cache does without."""

WARN_AGAIN: Final = 60.0
"""Seconds in which one kind of trouble is told once."""


class Warnings:
    """Tells hooks of trouble, once a minute for each kind. For any thread and event loop.

    Args:
        path: The directory of the cache.
    """

    __slots__ = ("_lock", "_path", "_told")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}

    def tell(self, context: Context, trouble: str, error: SupplementedError) -> None:
        """Tell of an error, unless its kind was told just now.

        Args:
            context: The session, whose hooks are told.
            trouble: The kind, as the end of a sentence about the cache.
            error: What happened.
        """
        if self._is_due(trouble, context.resource(CLOCK, Clock).now()) and context.observed:
            message = f"the cache {self._path} {trouble}, and is passed by: {error}"
            context.emit(Warned(f"oci:{self._path}", message))

    def _is_due(self, trouble: str, now: float) -> bool:
        with self._lock:
            last = self._told.get(trouble)
            if last is not None and 0 <= now - last < WARN_AGAIN:
                return False
            self._told[trouble] = now
            return True


async def when_free(context: Context, path: Path, func: Callable[[], T]) -> T:
    """Call something in a thread, again and again while somebody else holds a lock.

    Args:
        context: The session, whose threads and clock are used.
        path: What is locked, for the message.
        func: What to call; it raises `Busy` having done nothing that cannot be done again.

    Raises:
        SourceTimeoutError: The lock was not given back for `LOCK_PATIENCE` seconds.
    """
    clock = context.resource(CLOCK, Clock)
    deadline = clock.now() + LOCK_PATIENCE
    while True:
        try:
            return await run_blocking(context, func)
        except Busy as error:
            if clock.now() >= deadline:
                message = f"{path} has been locked by another process for {LOCK_PATIENCE:g} s"
                raise SourceTimeoutError(message) from error
        await clock.sleep(LOCK_PAUSE * (1 + clock.random()))
