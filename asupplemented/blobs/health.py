"""Who is fit to be asked: the circuit breakers of a session, one for each source.

Who failed is put aside for a while, behind those who did not. Nobody is ever left out: where no
one else serves, the unfit are asked all the same.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from asupplemented.abc import ResourceKey
from asupplemented.aio.breaker import Breaker, BreakerPolicy, Fitness
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.errors import (
    DeniedError,
    RegistryError,
    SourceError,
    TooManyRequestsError,
    UnauthorizedError,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asupplemented.abc import BlobCandidate, Context
    from asupplemented.errors import SupplementedError

__all__ = ("HEALTH", "Health", "health_of")

MAX_REMEMBERED: Final = 1024
"""Sources of which is remembered that they failed; beyond that the oldest is forgotten."""


class Health:
    """What is known of the sources of a session.

    Args:
        clock: Where time comes from.
        policy: For how long who failed is put aside.
    """

    __slots__ = ("_breakers", "_clock", "_policy")

    def __init__(self, clock: Clock, policy: BreakerPolicy | None = None) -> None:
        self._clock = clock
        self._policy = policy or BreakerPolicy()
        self._breakers: OrderedDict[str, Breaker] = OrderedDict()

    def judge(self, reference: str) -> Fitness:
        """Whether a source should be asked."""
        return self._judge(reference, self._clock.now())

    def pause(self, reference: str) -> float:
        """Seconds for which a source is put aside, 0 if it is not."""
        breaker = self._breakers.get(reference)
        return 0.0 if breaker is None else breaker.pause(self._clock.now())

    def _judge(self, reference: str, now: float) -> Fitness:
        breaker = self._breakers.get(reference)
        return Fitness.FIT if breaker is None else breaker.judge(now)

    def choose(self, candidates: Sequence[BlobCandidate]) -> int:
        """The position of the one to ask: the first one that is fit, else the first one.

        One on probation is chosen in its turn, but by one reader at a time.
        """
        now = self._clock.now()
        fitness = [self._judge(candidate.reference, now) for candidate in candidates]
        fit = (position for position, each in enumerate(fitness) if each is not Fitness.ASIDE)
        position = next(fit, 0)
        breaker = self._breakers.get(candidates[position].reference)
        if breaker is not None:
            breaker.probe(now)
        return position

    def finds_fit(self, candidates: Iterable[BlobCandidate]) -> bool:
        """Whether one of them is not put aside."""
        now = self._clock.now()
        return any(self._judge(each.reference, now) is not Fitness.ASIDE for each in candidates)

    def praise(self, candidate: BlobCandidate) -> None:
        """It served what it was asked for."""
        self._breakers.pop(candidate.reference, None)

    def blame(self, candidate: BlobCandidate, failure: SupplementedError) -> None:
        """It failed; what that says of it depends on how.

        A miss and a refusal are answers like others, and say nothing against who gives them.
        """
        if not isinstance(failure, (SourceError, VerificationError)) or _is_answer(failure):
            self.leave(candidate)
            return
        breaker = self._breakers.setdefault(candidate.reference, Breaker(self._policy))
        self._breakers.move_to_end(candidate.reference)
        pause = failure.retry_after if isinstance(failure, TooManyRequestsError) else None
        lied = isinstance(failure, VerificationError)
        breaker.fail(self._clock.now(), pause=pause, lied=lied)
        while len(self._breakers) > MAX_REMEMBERED:
            self._breakers.popitem(last=False)

    def leave(self, candidate: BlobCandidate) -> None:
        """Nobody waits any more for what becomes of it."""
        breaker = self._breakers.get(candidate.reference)
        if breaker is not None:
            breaker.abandon()


HEALTH: Final = ResourceKey["Health"]("health of sources")
"""What is known of the sources of a session. Who makes it first decides on the policy."""


def health_of(context: Context) -> Health:
    """What is known of the sources of a session."""
    return context.resource(HEALTH, lambda: Health(context.resource(CLOCK, Clock)))


def _is_answer(failure: SupplementedError) -> bool:
    """Whether a registry found fault with what was asked, and not with itself."""
    if isinstance(failure, (UnauthorizedError, DeniedError)):
        return True
    status = failure.status if isinstance(failure, RegistryError) else None
    return status is not None and 400 <= status < 500 and status not in {408, 429}  # noqa: PLR2004
