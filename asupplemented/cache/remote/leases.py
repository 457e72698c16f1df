"""Leases: who of several hosts fetches, while the others wait for what it brings.

What all kinds of them share is here, and the kind that needs no server.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from asupplemented.abc import Tenure
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.errors import ConfigurationError
from asupplemented.events import Warned

if TYPE_CHECKING:
    from collections.abc import Callable

    from asupplemented.abc import Context
    from asupplemented.events import Event

__all__ = ("PAUSE", "TTL", "FreeTenure", "LocalLease", "Observer", "TimedTenure", "check_seconds")

PAUSE: Final = 10.0
"""Seconds for which a server that failed is not asked."""

TTL: Final = 30.0
"""Seconds after which the lease of somebody who died is free again."""

_RENEWALS: Final = 3
"""Renewals within one time to live: two of them may fail without harm."""


def check_seconds(name: str, value: object, *, zero: bool = False) -> float:
    """Make sure that an argument is a time; arguments come from untyped code, too.

    Args:
        name: Of the argument.
        value: What was given for it.
        zero: Whether it may be 0.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
        if math.isfinite(seconds) and (seconds > 0 or (zero and seconds == 0)):
            return seconds
    least = "0 or more" if zero else "more than 0"
    message = f"{name} is a number of seconds, {least}, not {value!r}"
    raise ConfigurationError(message)


@dataclass(frozen=True, slots=True)
class Observer:
    """The clock and the hooks of a session, for work that may outlast it."""

    clock: Clock
    emit: Callable[[Event], None]

    @classmethod
    def of(cls, context: Context) -> Self:
        """The observer of an open session."""
        return cls(context.resource(CLOCK, Clock), context.emit)

    def warn(self, name: str, message: str) -> None:
        """Tell the hooks what the operator should know of a server."""
        self.emit(Warned(name, message))


class FreeTenure(Tenure):
    """What who leads holds where nobody can be asked: nothing."""

    __slots__ = ()

    async def renew(self) -> bool:
        """Say yes: nobody else is known to lead."""
        return True

    async def aclose(self) -> None:
        """Do nothing."""


class TimedTenure(Tenure):
    """A tenure that is renewed when a third of its time is over, and lapses with it.

    Args:
        clock: Where time comes from.
        ttl: Seconds for which the lease is held without being renewed.
    """

    __slots__ = ("_clock", "_closed", "_due", "_ends", "_lost", "_ttl")

    def __init__(self, clock: Clock, ttl: float) -> None:
        self._clock = clock
        self._ttl = ttl
        self._due = clock.now() + ttl / _RENEWALS
        self._ends = clock.now() + ttl
        self._lost = False
        self._closed = False

    async def renew(self) -> bool:
        now = self._clock.now()
        if self._lost or self._closed or now < self._due:
            return not self._lost
        self._due = now + self._ttl / _RENEWALS
        extended = await self._extend()
        if extended:
            self._ends = now + self._ttl
        self._lost = extended is False or self._clock.now() >= self._ends
        return not self._lost

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._lost:
            await self._give_back()

    @abc.abstractmethod
    async def _extend(self) -> bool | None:
        """Hold the lease for the whole time again: whether it was ours, None if nobody says."""

    @abc.abstractmethod
    async def _give_back(self) -> None:
        """Let go of the lease, if it is still ours. Never raises what the other side says."""


class LocalLease:
    """Leases in memory: for several caches in one process, and for tests.

    Args:
        ttl: Seconds after which a lease that is not renewed is free again.

    Raises:
        ConfigurationError: `ttl` is no time.
    """

    def __init__(self, *, ttl: float = TTL) -> None:
        self._ttl = check_seconds("ttl", ttl)
        self._holders: dict[str, tuple[_LocalTenure, float]] = {}

    async def take(self, context: Context, key: str) -> Tenure | None:
        clock = context.resource(CLOCK, Clock)
        _, ends = self._holders.get(key, (None, -math.inf))
        if clock.now() < ends:
            return None
        tenure = _LocalTenure(clock, self._ttl, self._holders, key)
        self._holders[key] = tenure, clock.now() + self._ttl
        return tenure

    def __repr__(self) -> str:
        return f"<LocalLease ttl={self._ttl:g}, {len(self._holders)} held>"


class _LocalTenure(TimedTenure):
    __slots__ = ("_holders", "_key")

    def __init__(
        self,
        clock: Clock,
        ttl: float,
        holders: dict[str, tuple[_LocalTenure, float]],
        key: str,
    ) -> None:
        super().__init__(clock, ttl)
        self._holders = holders
        self._key = key

    async def _extend(self) -> bool | None:
        if not self._is_ours():
            return False
        self._holders[self._key] = self, self._clock.now() + self._ttl
        return True

    async def _give_back(self) -> None:
        if self._is_ours():
            del self._holders[self._key]

    def _is_ours(self) -> bool:
        holder, _ = self._holders.get(self._key, (None, 0.0))
        return holder is self
