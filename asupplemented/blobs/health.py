"""Health: which sources failed lately, by reference and by host.

Each source that failed has a `Breaker` under its reference. If the source did not answer at all,
the host in the reference has one, too: a mirror that dies while one blob is read is then known for
every image and every manifest on it. A source is as healthy as the worse of the two.

What a failure says depends on its kind:

==========================================  ==============  ================
failure                                     the reference   the host
==========================================  ==============  ================
no connection, no answer in time            opens           opens
wrong content                               opens, longer   closes
429, 5xx and other faults of the server     opens           closes
missing content, a refusal, other 4xx       says nothing    closes
a body that ended early, a local failure    opens           says nothing
the caller left, a mistake of the caller    says nothing    says nothing
the session has too much open               says nothing    says nothing
==========================================  ==============  ================

An open breaker excludes no source. It is asked after the others, and where no other source serves,
it is asked all the same.

Health belongs to the principal (`Session.scoped`): what one principal provokes, with credentials
that are refused or requests that are limited, never delays another (rule SEC-13).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from asupplemented.abc import ResourceKey
from asupplemented.aio.breaker import BREAKERS, Breaker, BreakerPolicy, BreakerState
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.errors import (
    ForbiddenError,
    NetworkError,
    NotFoundError,
    RegistryError,
    SlotTimeoutError,
    SourceError,
    SourceTimeoutError,
    SupplementedError,
    UnauthorizedError,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from asupplemented.abc import BlobCandidate, Context

__all__ = (
    "MAX_PRINCIPALS",
    "MAX_REMEMBERED",
    "SessionHealth",
    "SourceHealth",
    "breakers_of",
    "health_of",
    "host_of",
)

K = TypeVar("K")
V = TypeVar("V")

MAX_REMEMBERED: Final = 1024
"""References and hosts whose failures are remembered for one principal; the oldest is dropped."""

MAX_PRINCIPALS: Final = 256
"""Principals for which failures are remembered; the one that failed longest ago is dropped."""

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/]+/")
"""The transport and the host of a reference that has one; no whole reference looks like it."""

_UNREACHABLE: Final = (NetworkError, SourceTimeoutError)


class SessionHealth:
    """The breakers of a session that are not closed, by principal and by name.

    Args:
        clock: Where time comes from.
        policy: How long breakers stay open.
    """

    __slots__ = ("_by_principal", "clock", "policy")

    def __init__(self, clock: Clock, policy: BreakerPolicy) -> None:
        self.clock = clock
        self.policy = policy
        self._by_principal: OrderedDict[str | None, OrderedDict[str, Breaker]] = OrderedDict()

    @property
    def is_empty(self) -> bool:
        """Whether all breakers are closed."""
        return not self._by_principal

    def of(self, principal: str | None) -> SourceHealth:
        """The health of sources as one principal knows it."""
        return SourceHealth(self, principal)

    def find(self, principal: str | None, name: str) -> Breaker | None:
        """The breaker of a name, None if it is closed."""
        named = self._by_principal.get(principal)
        return None if named is None else named.get(name)

    def items(self) -> list[tuple[str, BreakerState, float]]:
        """Names, states and seconds until they are asked in turn again, for all principals."""
        now = self.clock.now()
        return [
            (name, breaker.state(now), breaker.remaining(now))
            for named in self._by_principal.values()
            for name, breaker in named.items()
        ]

    def add(self, principal: str | None, name: str) -> Breaker:
        """The breaker of a name, which becomes the youngest; it is made if it is not there."""
        named = self._by_principal.setdefault(principal, OrderedDict())
        breaker = named.setdefault(name, Breaker(self.policy))
        named.move_to_end(name)
        self._by_principal.move_to_end(principal)
        _trim(named, MAX_REMEMBERED)
        _trim(self._by_principal, MAX_PRINCIPALS)
        return breaker

    def drop(self, principal: str | None, name: str) -> None:
        """Forget a name: its breaker is closed."""
        named = self._by_principal.get(principal)
        if named is not None and named.pop(name, None) is not None and not named:
            del self._by_principal[principal]


class SourceHealth:
    """Which sources failed lately, as far as one principal knows.

    Sources are named by their references, as text.

    Args:
        breakers: The breakers of the session.
        principal: The principal, None for the session itself.
    """

    __slots__ = ("_breakers", "_principal")

    def __init__(self, breakers: SessionHealth, principal: str | None) -> None:
        self._breakers = breakers
        self._principal = principal

    def state(self, reference: str) -> BreakerState:
        """Whether a source should be asked."""
        return self._state(reference, self._breakers.clock.now())

    def remaining(self, reference: str) -> float:
        """Seconds until a source is asked in its turn again, 0 if it is already."""
        now = self._breakers.clock.now()
        return max((each.remaining(now) for each in self._find(reference)), default=0.0)

    def choose(self, candidates: Sequence[BlobCandidate]) -> int:
        """Choose the candidate to ask, and note that it is asked.

        Returns:
            The position of the first one that is not open, else 0.
        """
        if self._breakers.is_empty:
            return 0
        now = self._breakers.clock.now()
        states = [self._state(each.reference, now) for each in candidates]
        usable = (n for n, state in enumerate(states) if state is not BreakerState.OPEN)
        position = next(usable, 0)
        self._probe(candidates[position].reference, now)
        return position

    def has_usable(self, candidates: Iterable[BlobCandidate]) -> bool:
        """Whether one of them is not open."""
        now = self._breakers.clock.now()
        return any(self._state(each.reference, now) is not BreakerState.OPEN for each in candidates)

    def record_success(self, reference: str) -> None:
        """Close a source and its host: the source served what it was asked for."""
        if self._breakers.is_empty:
            return
        for name in _names(reference):
            self._breakers.drop(self._principal, name)

    def record_failure(self, reference: str, failure: SupplementedError) -> None:
        """Record a failure; the table at the top of this module says what each kind means."""
        source, *hosts = _names(reference)
        if isinstance(failure, SlotTimeoutError):
            self.release(reference)
            return
        if isinstance(failure, _UNREACHABLE):
            for name in (source, *hosts):
                self._fail(name, failure)
            return
        # The host answered, whatever the answer is.
        if isinstance(failure, (RegistryError, NotFoundError, VerificationError)):
            for name in hosts:
                self._breakers.drop(self._principal, name)
        if isinstance(failure, (SourceError, VerificationError)) and not _is_refusal(failure):
            self._fail(source, failure)
        self.release(reference)

    def release(self, reference: str) -> None:
        """End a probe without a verdict: its outcome says nothing of the source, or has none."""
        for breaker in self._find(reference):
            breaker.release()

    @contextmanager
    def recording(self, reference: str) -> Generator[None]:
        """Record the outcome of one request to a source, which is the body of the ``with``."""
        self._probe(reference, self._breakers.clock.now())
        try:
            yield
        except SupplementedError as failure:
            self.record_failure(reference, failure)
            raise
        except BaseException:
            self.release(reference)
            raise
        self.record_success(reference)

    def _state(self, reference: str, now: float) -> BreakerState:
        states = {breaker.state(now) for breaker in self._find(reference)}
        for state in (BreakerState.OPEN, BreakerState.HALF_OPEN):
            if state in states:
                return state
        return BreakerState.CLOSED

    def _probe(self, reference: str, now: float) -> None:
        for breaker in self._find(reference):
            breaker.probe(now)

    def _find(self, reference: str) -> list[Breaker]:
        if self._breakers.is_empty:
            return []
        found = (self._breakers.find(self._principal, name) for name in _names(reference))
        return [breaker for breaker in found if breaker is not None]

    def _fail(self, name: str, failure: SupplementedError) -> None:
        self._breakers.add(self._principal, name).record_failure(
            self._breakers.clock.now(),
            pause=failure.retry_after if isinstance(failure, RegistryError) else None,
            wrong_content=isinstance(failure, VerificationError),
        )


_HEALTH: Final = ResourceKey["SessionHealth"]("health of sources")


def health_of(context: Context) -> SourceHealth:
    """The health of sources, as the principal of a session knows it."""
    return _session_health(context).of(context.principal)


def breakers_of(context: Context) -> list[tuple[str, BreakerState, float]]:
    """The breakers of a session that are not closed; see `SessionHealth.items`."""
    return _session_health(context).items()


def _session_health(context: Context) -> SessionHealth:
    def make() -> SessionHealth:
        return SessionHealth(
            context.resource(CLOCK, Clock), context.resource(BREAKERS, BreakerPolicy)
        )

    return context.resource(_HEALTH, make)


def host_of(reference: str) -> str:
    """The host of a reference, or the reference itself if it has none."""
    return _names(reference)[-1]


def _names(reference: str) -> tuple[str, ...]:
    """The names under which a source has breakers: its reference, and its host if it has one."""
    origin = _ORIGIN.match(reference)
    return (reference,) if origin is None else (reference, origin.group())


def _is_refusal(failure: SupplementedError) -> bool:
    """Whether a registry found fault with the request, and not with itself."""
    if isinstance(failure, (UnauthorizedError, ForbiddenError)):
        return True
    status = failure.status if isinstance(failure, RegistryError) else None
    return status is not None and 400 <= status < 500 and status not in {408, 429}  # noqa: PLR2004


def _trim(entries: OrderedDict[K, V], limit: int) -> None:
    while len(entries) > limit:
        entries.popitem(last=False)
