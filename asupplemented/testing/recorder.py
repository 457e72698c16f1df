"""What everything that can be scripted has in common: scripts, a log, and counters.

Which requests a script is about, and what it makes of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, TypeAlias

from asupplemented.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from asupplemented.testing.exchange import Answer, Request

__all__ = ("Fault", "Match", "Recorder", "Script", "Turn", "fits")

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


class Recorder:
    """Keeps a log of requests, counts them, and applies scripts to the answers.

    Attributes:
        requests: Every request, in order of arrival.
        in_flight: Requests that are being answered now.
        max_in_flight: The most that ever were at once.
        abandoned: Answers that ended early because whoever asked left.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.abandoned = 0
        self._scripts: list[Script] = []
        self._changed = asyncio.Event()

    def script(
        self, match: Match, *turns: Turn, method: str | None = None, forever: bool = False
    ) -> Script:
        """Say what happens to the next requests that match.

        Args:
            match: A path, in which ``*`` stands for any text (``/v2/team/*/blobs/*``); or the
                last part of one, a digest or a tag, without a slash; or a function of the
                request.
            turns: One for each matching request, in order: a fault of
                `asupplemented.testing.faults` or `asupplemented.testing.delivery`, several of
                them, or None for the right answer.
            method: Match only this method.
            forever: Whether the last turn is used for all requests that follow; if not, they
                are answered right.

        Returns:
            The script, which tells how often it matched. Of several scripts that match, the
            first one with a turn left is used.
        """
        script = Script(match, turns, method=method, forever=forever)
        self._scripts.append(script)
        return script

    def clear_scripts(self) -> None:
        """Forget every script: all is right again."""
        self._scripts.clear()

    def select_requests(self, match: Match = "*", *, method: str | None = None) -> list[Request]:
        """The logged requests that match, as for `script`, in order of arrival."""
        return [request for request in self.requests if fits(match, method, request)]

    def count(self, match: Match = "*", *, method: str | None = None) -> int:
        """How many logged requests match, as for `script`."""
        return len(self.select_requests(match, method=method))

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds that depends on the counters, the log or the scripts.

        It is asked again whenever one of them changes; bound it with `asyncio.timeout`.
        """
        while not condition():
            await self._changed.wait()

    def _pulse(self) -> None:
        """Tell those who wait that something changed."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _revise(self, answer: Answer, request: Request) -> Answer:
        """Apply the next turn of the first script that has one."""
        for script in self._scripts:
            if script.takes(request):
                answer = script.apply(answer, request)
                self._pulse()
                break
        return answer

    @contextlib.contextmanager
    def _counted(self, request: Request) -> Generator[None]:
        """Log a request and count it while it is answered."""
        self.requests.append(request)
        self.in_flight += 1
        self.max_in_flight = max(self.in_flight, self.max_in_flight)
        self._pulse()
        try:
            yield
        except asyncio.CancelledError:
            self.abandoned += 1
            raise
        finally:
            self.in_flight -= 1
            self._pulse()
