"""The version, as pyproject.toml has it: a constant, so that it need not be looked up."""

from __future__ import annotations

from typing import Final

__all__ = ("VERSION",)

VERSION: Final = "0.1.0"
