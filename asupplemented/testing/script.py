"""Which requests a script is about, and what it makes of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from asupplemented.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asupplemented.testing.exchange import Answer, Request

__all__ = ("Fault", "Match", "Script", "Turn", "fits")

Match: TypeAlias = "str | Callable[[Request], bool]"
"""A path in which ``*`` stands for any text, the last part of a path, or a function."""

Fault: TypeAlias = "Callable[[Answer, Request], Answer]"
"""Makes one answer of another; those of `asupplemented.testing.faults` are such functions."""

Turn: TypeAlias = "Fault | Sequence[Fault] | None"
"""What happens to one request: faults, applied in order, or nothing."""


def fits(match: Match, method: str | None, request: Request) -> bool:
    """Whether a request is one of those meant."""
    if method is not None and request.method != method:
        return False
    if callable(match):
        return match(request)
    pattern = match if match.startswith(("/", "*")) else f"*/{match}"
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(expression, request.path, re.DOTALL) is not None


class Script:
    """Turns for the requests that match, used in order.

    Attributes:
        hits: Matching requests that it was used for.
    """

    def __init__(
        self, match: Match, turns: Sequence[Turn], *, method: str | None, forever: bool
    ) -> None:
        if not turns:
            raise UsageError("a script needs at least one turn: a fault, or None to do it right")
        self._match = match
        self._turns = tuple(turns)
        self._method = method
        self._forever = forever
        self.hits = 0

    @property
    def remaining(self) -> int:
        """Turns that were not used yet."""
        return max(0, len(self._turns) - self.hits)

    def takes(self, request: Request) -> bool:
        """Whether the request matches and there is a turn for it."""
        return bool(self.remaining or self._forever) and fits(self._match, self._method, request)

    def apply(self, answer: Answer, request: Request) -> Answer:
        """Use the next turn on the right answer to a request."""
        turn = self._turns[min(self.hits, len(self._turns) - 1)]
        self.hits += 1
        for fault in _as_sequence(turn):
            answer = fault(answer, request)
        return answer

    def __repr__(self) -> str:
        return f"<Script for {self._match}, {self.hits} hits, {self.remaining} turns left>"


def _as_sequence(turn: Turn) -> Sequence[Fault]:
    if turn is None:
        return ()
    return (turn,) if callable(turn) else turn
