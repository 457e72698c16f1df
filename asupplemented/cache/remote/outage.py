"""Helpers that do not answer: told about once, left alone for a while, and then asked again.

A cache may be slow or down without harm only if nobody waits for it again and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.events import Warned

if TYPE_CHECKING:
    from collections.abc import Callable

    from asupplemented.abc import Context
    from asupplemented.events import Event

__all__ = ("PAUSE", "Outage", "Surroundings")

PAUSE: Final = 10.0
"""Seconds for which something that did not answer is not asked."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The clock and the hooks of a session, for work that may outlast it."""

    clock: Clock
    emit: Callable[[Event], None]

    @classmethod
    def of(cls, context: Context) -> Self:
        """Those of an open session."""
        return cls(context.resource(CLOCK, Clock), context.emit)


class Outage:
    """Whether something is to be left alone, because it did not answer.

    Args:
        what: What it is, for the warning.
        pause: Seconds for which it is left alone.
    """

    __slots__ = ("_pause", "_told", "_until", "_what")

    def __init__(self, what: str, pause: float = PAUSE) -> None:
        self._what = what
        self._pause = pause
        self._told = False
        self._until = float("-inf")

    def lasts(self, around: Surroundings) -> bool:
        """Whether it is too early to ask again."""
        return around.clock.now() < self._until

    def begin(self, around: Surroundings, reason: str, *, known: bool = False) -> None:
        """It did not answer. The hooks are told once, until it has answered again.

        Args:
            around: Whose hooks.
            reason: What it did instead.
            known: Whether they were told already, by somebody else.
        """
        self._until = around.clock.now() + self._pause
        if not self._told and not known:
            self._told = True
            message = f"{reason}; it is passed by, and asked again after {self._pause:g} s"
            around.emit(Warned(self._what, message))

    def end(self) -> None:
        """It has answered."""
        self._told = False
        self._until = float("-inf")
