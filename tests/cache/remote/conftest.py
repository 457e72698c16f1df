"""What the tests of caches over several hosts share."""

from __future__ import annotations

import pytest

from asupplemented.cache.remote import remote as remote_tier


@pytest.fixture(autouse=True)
def no_interpreter_ends_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to wait for threads that would be in the way of that."""
    monkeypatch.setattr(remote_tier, "GRACE", 0.0)
