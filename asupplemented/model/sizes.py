"""Sizes in words."""

from __future__ import annotations

import re
from typing import Final

from asupplemented.errors import ConfigurationError, excerpt

__all__ = ("parse_size", "show_size")

_SIZE: Final = re.compile(r"([0-9]{1,15})(?:([KMGT])(i?)B?)?", re.ASCII | re.IGNORECASE)
_POWERS: Final = {"K": 1, "M": 2, "G": 3, "T": 4}
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


def parse_size(text: str) -> int:
    """Parse a size: ``500MB``, ``10GiB``, ``10G`` (the same as ``10GiB``) or ``4096``.

    Returns:
        Bytes.

    Raises:
        ConfigurationError: The text is not a size above 0.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        message = f"{excerpt(text)} is not a size; write 10GiB, 500MB or a number of bytes"
        raise ConfigurationError(message)
    number, unit, binary = match.groups()
    if unit is None:
        return int(number)
    decimal = text.strip().upper().endswith("B") and not binary
    factor: int = (1000 if decimal else 1024) ** _POWERS[unit.upper()]
    return int(number) * factor
