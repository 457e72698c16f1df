"""Which failures pass (rule RET-06): what is tried again, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asupplemented.aio.retry import Retry
from asupplemented.errors import RegistryError, TooManyRequestsError
from asupplemented.transports.registry.failures import is_passing, is_unreached

if TYPE_CHECKING:
    from asupplemented.errors import SupplementedError

__all__ = ("judge", "judge_ping", "judge_rival")

_BUSY: Final = frozenset((429, 502, 503, 504))
_ONCE: Final = frozenset((408, 500))
"""Statuses that are worth one more attempt, and not two."""


def judge(error: SupplementedError) -> Retry | None:
    """Whether a request is worth another attempt.

    Statuses 429, 502, 503 and 504 are, and 408 and 500 once; no other status is. So are
    transport errors from before the head of an answer, unless they will not go away: a
    certificate that is not trusted, a name that does not exist.
    """
    if isinstance(error, RegistryError) and error.status is not None:
        if error.status in _BUSY:
            return Retry(after=error.retry_after)
        return Retry(after=error.retry_after, attempts=2) if error.status in _ONCE else None
    return Retry() if is_passing(error) and not _began(error) else None


def judge_ping(error: SupplementedError) -> Retry | None:
    """The same for the first request to a registry.

    What was never reached is not asked again: there is most likely nothing at that address, and
    whoever waits for the answer wants to know.
    """
    return None if is_unreached(error) else judge(error)


def judge_rival(error: SupplementedError) -> Retry | None:
    """The same where somebody else can be asked: only who asks for a pause is given one.

    So a mirror that is away costs one attempt, and the next place is asked (rule CONF-14).
    """
    return judge(error) if isinstance(error, TooManyRequestsError) else None


def _began(error: SupplementedError) -> bool:
    """Whether the body of an answer had begun: from there on nothing is tried again."""
    return getattr(error, "received", None) is not None
