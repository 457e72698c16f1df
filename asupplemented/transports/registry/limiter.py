"""How much at once, and when not at all: the limits of one registry (rule RET-07)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from asupplemented.errors import TooManyRequestsError

if TYPE_CHECKING:
    from asupplemented.aio.retry import Clock

__all__ = ("Limiter",)


class Limiter:
    """Counts bodies, and holds back new requests while a registry asks for a pause.

    Manifests take no place, so they never wait behind big blobs.

    Args:
        bodies: Blobs that may be read at the same time.
        clock: Where time comes from.
    """

    __slots__ = ("_clock", "_paused_until", "bodies")

    def __init__(self, bodies: int, *, clock: Clock) -> None:
        self.bodies = anyio.Semaphore(bodies)
        self._clock = clock
        self._paused_until: float | None = None

    def pause(self, seconds: float) -> None:
        """Hold back requests that begin from now on; bodies that are being read go on."""
        until = self._clock.now() + seconds
        self._paused_until = max(until, self._paused_until or until)

    @property
    def paused(self) -> bool:
        """Whether a pause was asked for, and nobody has seen its end yet."""
        return self._paused_until is not None

    async def wait(self, patience: float) -> None:
        """Wait until requests may begin.

        Args:
            patience: Seconds that this request waits for pauses to end.

        Raises:
            TooManyRequestsError: The registry asks for more than `patience` in all.
        """
        deadline = self._clock.now() + patience
        while self._paused_until is not None:
            now = self._clock.now()
            if self._paused_until <= now:
                self._paused_until = None
            elif self._paused_until > deadline:
                message = "the registry asks for one pause after another"
                raise TooManyRequestsError(
                    message, status=429, retry_after=self._paused_until - now
                )
            else:
                await self._clock.sleep(self._paused_until - now)
