"""TLS contexts, made off the event loop because that reads many files (rule TLS-06)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread

from asupplemented.transports.registry.configuration.certificates import make_context
from asupplemented.transports.registry.flight import Flights

if TYPE_CHECKING:
    import ssl

    from asupplemented.transports.registry.configuration.certificates import Certificates

__all__ = ("TLSContexts",)


class TLSContexts:
    """One verifying and one trusting context for each set of certificates, made when needed."""

    def __init__(self) -> None:
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
            context = await self._flights.run(key, partial(anyio.to_thread.run_sync, make))
            self._made[key] = context
        return context
