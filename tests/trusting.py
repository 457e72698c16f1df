"""Have this process trust an authority, as if the system did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import connector

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

__all__ = ("trust_authority",)


def trust_authority(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Trust the authorities in a file until the test ends.

    aiohttp reads the authorities of the system once, when it is imported, so it has to read them
    again.
    """
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = connector._make_ssl_context(verified=True)
    monkeypatch.setattr(connector, "_SSL_CONTEXT_VERIFIED", context)
