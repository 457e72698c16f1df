"""Scripts of faults, a log of requests, and counters, for all fakes that answer requests."""

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
"""A function from an answer to another one, like those of `asupplemented.testing.faults`."""

Turn: TypeAlias = "Fault | Sequence[Fault] | None"
"""The faults of one request, applied in order; None for none."""


def fits(match: Match, method: str | None, request: Request) -> bool:
    """Whether a request matches."""
    if method is not None and request.method != method:
        return False
    if callable(match):
        return match(request)
    pattern = match if match.startswith(("/", "*")) else f"*/{match}"
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(expression, request.path, re.DOTALL) is not None


class Script:
    """Turns for the requests that match, used in order. Made by `FakeRegistry.script`.

    Attributes:
        hits: Requests that used a turn.
    """

    def __init__(
        self, match: Match, turns: Sequence[Turn], *, method: str | None, forever: bool
    ) -> None:
        if not turns:
            raise UsageError("a script needs at least one turn: a fault, or None for no fault")
        self._match = match
        self._turns = tuple(turns)
        self._method = method
        self._forever = forever
        self.hits = 0

    @property
    def remaining(self) -> int:
        """Turns that are not used yet."""
        return max(0, len(self._turns) - self.hits)

    def takes(self, request: Request) -> bool:
        """Whether the request matches and a turn is left."""
        return bool(self.remaining or self._forever) and fits(self._match, self._method, request)

    def apply(self, answer: Answer, request: Request) -> Answer:
        """What the next turn makes of the correct answer to a request."""
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
        max_in_flight: The most requests that were in flight at once.
        abandoned: Answers that ended early because the client left.
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
        """Script the next requests that match.

        Args:
            match: A path, in which ``*`` stands for any text (``/v2/team/*/blobs/*``); or the
                last part of one, a digest or a tag, without a slash; or a function of the
                request.
            turns: One for each matching request, in order: a fault of
                `asupplemented.testing.faults` or `asupplemented.testing.delivery`, a sequence
                of faults, or None for the correct answer.
            method: Match only this method.
            forever: Whether the last turn applies to all requests that follow; else they get
                the correct answer.

        Returns:
            The script, which counts its hits. If several scripts match a request, the first
            one with a turn left is used.
        """
        script = Script(match, turns, method=method, forever=forever)
        self._scripts.append(script)
        return script

    def clear_scripts(self) -> None:
        """Remove all scripts."""
        self._scripts.clear()

    def select_requests(self, match: Match = "*", *, method: str | None = None) -> list[Request]:
        """The logged requests that match, in order of arrival; for `method`, see `script`."""
        return [request for request in self.requests if fits(match, method, request)]

    def count(self, match: Match = "*", *, method: str | None = None) -> int:
        """How many logged requests match; for `method`, see `script`."""
        return len(self.select_requests(match, method=method))

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the counters, the log or the scripts is true.

        It is checked whenever one of them changes; limit the wait with `asyncio.timeout`.
        """
        while not condition():
            await self._changed.wait()

    def _pulse(self) -> None:
        """Wake the tasks in `wait_until`."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _revise(self, answer: Answer, request: Request) -> Answer:
        """Apply the next turn of the first script that takes the request."""
        for script in self._scripts:
            if script.takes(request):
                answer = script.apply(answer, request)
                self._pulse()
                break
        return answer

    @contextlib.contextmanager
    def _counted(self, request: Request) -> Generator[None]:
        """Log a request, and count it while it is in flight."""
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
