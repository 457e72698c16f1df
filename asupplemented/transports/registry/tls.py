"""TLS contexts, made off the event loop because that reads many files (rule TLS-06)."""

from __future__ import annotations

import ssl

import anyio.to_thread

from asupplemented.transports.registry.flight import SingleFlight

__all__ = ("TLSContexts",)


class TLSContexts:
    """One verifying and one trusting context, each made when it is first needed."""

    def __init__(self) -> None:
        self._verifying: ssl.SSLContext | None = None
        self._trusting: ssl.SSLContext | None = None
        self._flight = SingleFlight[ssl.SSLContext]()

    async def get(self, *, verify: bool) -> ssl.SSLContext:
        """The context that checks certificates and host names, or the one that checks nothing."""
        if not verify:
            if self._trusting is None:
                self._trusting = _make_trusting()
            return self._trusting
        if self._verifying is None:
            self._verifying = await self._flight.run(_load_verifying)
        return self._verifying


async def _load_verifying() -> ssl.SSLContext:
    return await anyio.to_thread.run_sync(_make_verifying)


def _make_verifying() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _make_trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
