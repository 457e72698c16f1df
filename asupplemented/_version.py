"""The version, a constant: reading the metadata of the installed package takes long."""

from __future__ import annotations

__all__ = ("__version__",)

__version__ = "0.1.0"
