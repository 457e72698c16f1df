"""Sizes in words."""

from __future__ import annotations

from typing import Final

__all__ = ("show_size",)

_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_KIB: Final = 1024


def show_size(size: int | None) -> str:
    """A size in binary units, like ``"512 B"`` or ``"1.5 MiB"``; ``"? B"`` if it is unknown."""
    if size is None:
        return "? B"
    if size < _KIB:
        return f"{size} B"
    steps = min((size.bit_length() - 1) // 10, len(_UNITS))
    return f"{size / _KIB**steps:.1f} {_UNITS[steps - 1]}"
