"""What the parts of a registry client work with, taken from the context once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asupplemented.aio.files import WORKERS, Workers
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.transports.registry.connections import CONNECTIONS, Connections
from asupplemented.transports.registry.options import OPTIONS, RegistryOptions

if TYPE_CHECKING:
    from asupplemented.abc import Context, Timeouts

__all__ = ("Means",)


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
