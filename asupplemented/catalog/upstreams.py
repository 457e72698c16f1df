"""Which upstreams failed lately, so that a broken one is not asked by every request.

A failed request opens a breaker (`asupplemented.aio.breaker`) for its reference. If the registry
could not be reached at all, it opens one for the registry, too, so that a dead registry costs one
timeout and not one for each tag. While a breaker is open its last error is the answer, without a
request.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.aio.breaker import BREAKERS, Breaker, BreakerPolicy, BreakerState
from asupplemented.aio.lru import LRU
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.errors import (
    ForbiddenError,
    NetworkError,
    SlotTimeoutError,
    SourceError,
    SourceTimeoutError,
    SupplementedError,
    TooManyRequestsError,
    UnauthorizedError,
    UnexpectedStatusError,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable

    from asupplemented.abc import Context, Reference

__all__ = ("FailingUpstream", "Upstreams", "is_outage")

MAX_REMEMBERED: Final = 1024
"""References and registries whose failures are remembered."""

LONGEST: Final = 60.0
"""The longest pause in seconds: an upstream that recovered is noticed within a minute."""

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/]+/")
_REFUSALS: Final = (UnauthorizedError, ForbiddenError, UnexpectedStatusError)


def is_outage(error: SupplementedError) -> bool:
    """Whether an error says that the upstream failed, and nothing of the image (rule SRV-33)."""
    if isinstance(error, _REFUSALS):
        return False
    return isinstance(error, (SourceError, VerificationError))


class FailingUpstream(NamedTuple):
    """A reference or a registry that failed lately."""

    source: str
    """The reference, or ``TRANSPORT://HOST/`` for a registry."""
    state: BreakerState
    """What its breaker says."""
    remaining: float
    """Seconds until it is asked again."""
    error: SupplementedError
    """What failed last."""


class Upstreams:
    """The breakers of references and registries that failed.

    Args:
        context: The session, for its clock and its `BreakerPolicy`.

    Attributes:
        clock: Where time comes from.
    """

    __slots__ = ("_open", "_policy", "clock")

    def __init__(self, context: Context) -> None:
        policy = context.resource(BREAKERS, BreakerPolicy)
        self._policy = replace(policy, longest=min(policy.longest, LONGEST))
        self.clock = context.resource(CLOCK, Clock)
        self._open = LRU[tuple["Hashable", str], tuple[Breaker, SupplementedError]](MAX_REMEMBERED)

    def check(self, identity: Hashable, reference: Reference) -> None:
        """Refuse a request to an upstream that failed lately.

        Raises:
            SupplementedError: What the upstream failed with.
        """
        now = self.clock.now()
        for name in _names(reference):
            found = self._open.get((identity, name))
            if found is not None and found[0].state(now) is BreakerState.OPEN:
                raise found[1].twin()

    def remaining(self, identity: Hashable, reference: Reference) -> float:
        """Seconds until the upstream is asked again, 0 if it is asked now."""
        now = self.clock.now()
        found = (self._open.get((identity, name)) for name in _names(reference))
        return max((each[0].remaining(now) for each in found if each is not None), default=0.0)

    @contextmanager
    def recording(self, identity: Hashable, reference: Reference) -> Generator[None]:
        """Record the outcome of a request, which is the body of the ``with``."""
        names = [(identity, name) for name in _names(reference)]
        known = [found[0] for name in names if (found := self._open.get(name)) is not None]
        for breaker in known:
            breaker.probe(self.clock.now())
        try:
            yield
        except BaseException as error:
            if not isinstance(error, SupplementedError) or isinstance(error, SlotTimeoutError):
                for breaker in known:
                    breaker.release()  # it says nothing of the upstream
            elif is_outage(error):
                self.fail(identity, reference, error)
            else:
                self._close(names)
            raise
        self._close(names)

    def fail(self, identity: Hashable, reference: Reference, error: SupplementedError) -> None:
        """Record that a request failed."""
        names = _names(reference)
        reached = not isinstance(error, (NetworkError, SourceTimeoutError))
        pause = error.retry_after if isinstance(error, TooManyRequestsError) else None
        for name in names[:1] if reached else names:
            found = self._open.get((identity, name))
            breaker = Breaker(self._policy) if found is None else found[0]
            breaker.record_failure(self.clock.now(), pause=pause)
            self._open.put((identity, name), (breaker, error.twin()))
        if reached:
            self._close([(identity, name) for name in names[1:]])

    def _close(self, names: list[tuple[Hashable, str]]) -> None:
        for name in names:
            self._open.pop(name)

    def list_failing(self) -> tuple[FailingUpstream, ...]:
        """The breakers that are not closed; several identities may have one for the same name."""
        now = self.clock.now()
        return tuple(
            FailingUpstream(name, breaker.state(now), breaker.remaining(now), error)
            for (_, name), (breaker, error) in self._open.items()
        )

    def __len__(self) -> int:
        """References and registries that are remembered."""
        return len(self._open)


def _names(reference: Reference) -> tuple[str, ...]:
    """The names under which there are breakers: the reference, and its registry if it has one."""
    text = str(reference)
    origin = _ORIGIN.match(text)
    return (text,) if origin is None else (text, origin.group())
