"""TLS contexts, made off the event loop because that reads many files (rule TLS-06)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from asupplemented.aio.flight import Flights
from asupplemented.hostconfig.certificates import make_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from asupplemented.hostconfig.certificates import Certificates

__all__ = ("InThread", "TLSContexts")

InThread: TypeAlias = "Callable[[Callable[[], ssl.SSLContext]], Awaitable[ssl.SSLContext]]"
"""Calls a function that blocks, and does not block."""


class TLSContexts:
    """One verifying and one trusting context for each set of certificates, made when needed.

    Args:
        in_thread: Calls a function in a worker thread.
    """

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread
        self._made: dict[tuple[Certificates, bool], ssl.SSLContext] = {}
        self._flights = Flights[tuple["Certificates", bool], "ssl.SSLContext"]()

    async def get(self, certificates: Certificates, *, verify: bool) -> ssl.SSLContext:
        """The context that checks certificates and host names, or the one that checks nothing.

        Args:
            certificates: What to trust and to show besides what the system says.
            verify: Which of the two.

        Raises:
            ConfigurationError: A client certificate cannot be used.
        """
        key = certificates, verify
        context = self._made.get(key)
        if context is None:
            make = partial(make_context, certificates, verify=verify)
            context = await self._flights.run(key, partial(self._in_thread, make))
            self._made[key] = context
        return context
