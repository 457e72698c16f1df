"""Who a request is made for: named in errors and events.

What the parts of a registry client work with, taken from the context once.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.aio.threads import WORKERS, Workers
from asupplemented.errors import RegistryError, SupplementedError
from asupplemented.events import RequestRetried, Warned
from asupplemented.transports.registry.connections import CONNECTIONS, Connections
from asupplemented.transports.registry.options import OPTIONS, RegistryOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asupplemented.abc import Context, Timeouts
    from asupplemented.events import Event

__all__ = ("Caller", "Means")


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


@dataclass(frozen=True, slots=True)
class Means:
    """Connections, settings and time of one session."""

    connections: Connections
    options: RegistryOptions
    timeouts: Timeouts
    clock: Clock

    @classmethod
    def of(cls, context: Context) -> Means:
        """Those of a session.

        Raises:
            ConfigurationError: The client that the session borrowed cannot be used.
        """
        options = context.resource(OPTIONS, RegistryOptions)
        workers = context.resource(WORKERS, Workers)
        connections = context.resource(
            CONNECTIONS,
            lambda: Connections(
                context.http,
                timeouts=context.timeouts,
                options=options,
                in_thread=workers.run,
            ),
        )
        clock = context.resource(CLOCK, Clock)
        return cls(connections, options, context.timeouts, clock)
