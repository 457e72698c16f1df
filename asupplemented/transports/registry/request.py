"""Who a request is made for: named in errors and events."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from asupplemented.errors import RegistryError, SupplementedError
from asupplemented.events import RequestRetried, Warned

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asupplemented.events import Event

__all__ = ("Caller",)


class Caller(NamedTuple):
    """A reference, and where its events go."""

    reference: str
    emit: Callable[[Event], None]
    namespace: str | None = None
    """The registry that is stood in for, named in ``ns`` of each request (rule CONF-20)."""
    rivals: bool = False
    """Somebody else can be asked for the same, so that this one is not waited for for long."""

    def report_retry(self, error: SupplementedError, attempt: int, delay: float) -> None:
        """Tell that a request is sent again."""
        status = error.status if isinstance(error, RegistryError) else None
        reason = type(error).__name__ if status is None else str(status)
        self.emit(RequestRetried(self.reference, reason, attempt, delay))

    def warn(self, message: str) -> None:
        """Tell what the operator should know."""
        self.emit(Warned(self.reference, message))

    @contextmanager
    def locating(self, digest: str | None = None) -> Generator[None]:
        """Write on errors whom they concern, and what."""
        try:
            yield
        except SupplementedError as error:
            error.locate(reference=self.reference, digest=digest)
            raise
