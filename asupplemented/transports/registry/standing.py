"""Standing: which mirrors could not be reached lately, so that nobody waits for them again."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from asupplemented.abc import ResourceKey
from asupplemented.aio.breaker import Breaker, BreakerPolicy, Fitness
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.errors import NetworkError, SourceTimeoutError, SupplementedError

if TYPE_CHECKING:
    from collections.abc import Generator

    from asupplemented.abc import Context

__all__ = ("Standing",)

REMEMBERED: Final = 1024
"""Mirrors of which is remembered that they were away."""

_AWAY: Final = (NetworkError, SourceTimeoutError)
_POLICY: Final = BreakerPolicy()


class Standing:
    """The mirrors of a session that were away, whatever image they were asked for.

    An answer is an answer: who refuses, or lacks an image, is there.

    Args:
        clock: Where time comes from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._breakers: OrderedDict[str, Breaker] = OrderedDict()

    @classmethod
    def of(cls, context: Context) -> Standing:
        """That of a session."""
        return context.resource(STANDING, lambda: cls(context.resource(CLOCK, Clock)))

    def is_away(self, registry: str) -> bool:
        """Whether a mirror was away just now, or somebody is finding out whether it still is.

        Args:
            registry: ``host[:port]``.
        """
        breaker = self._breakers.get(registry)
        return breaker is not None and breaker.judge(self._clock.now()) is Fitness.ASIDE

    @contextmanager
    def watching(self, registry: str) -> Generator[None]:
        """Take note of what becomes of a request to a mirror."""
        breaker = self._breakers.get(registry)
        if breaker is not None:
            breaker.probe(self._clock.now())
        try:
            yield
        except _AWAY:
            self._note_away(registry)
            raise
        except SupplementedError:
            self._breakers.pop(registry, None)
            raise
        except BaseException:
            if breaker is not None:
                breaker.abandon()
            raise
        self._breakers.pop(registry, None)

    def _note_away(self, registry: str) -> None:
        breaker = self._breakers.setdefault(registry, Breaker(_POLICY))
        breaker.fail(self._clock.now())
        self._breakers.move_to_end(registry)
        while len(self._breakers) > REMEMBERED:
            self._breakers.popitem(last=False)


STANDING: Final = ResourceKey["Standing"]("standing of mirrors")
"""What is known of the mirrors of a session."""
