"""A machine and a certificate authority for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented.testing.certificates import Authority
from tests.hostconfig.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root", tmp_path / "home")


@pytest.fixture
def authority() -> Authority:
    return Authority()
