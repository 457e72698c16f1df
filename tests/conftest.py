"""What tests share: a session, an authority, Hypothesis profiles, the mark of interop tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings

from asupplemented import Session
from asupplemented.testing import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

INTEROP = Path(__file__).parent / "interop"

# No deadlines: the machine may be busy, and no test here measures time.
settings.register_profile("default", max_examples=50, deadline=None)
settings.register_profile(
    "ci",
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.register_profile(  # for `tests.mutants`: a failure need not be made small
    "mutants",
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def pytest_configure() -> None:
    """Choose the profile by HYPOTHESIS_PROFILE, else by whether this is CI."""
    usual = "ci" if os.environ.get("CI") else "default"
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", usual))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in tests/interop, so that no test there can forget to."""
    for item in items:
        if INTEROP in item.path.parents:
            item.add_marker(pytest.mark.interop)


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    """A session with nothing configured."""
    async with Session() as session:
        yield session


@pytest.fixture
def authority() -> Authority:
    """A certificate authority that this host does not trust."""
    return Authority()
