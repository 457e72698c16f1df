"""Aliases: short names that stand for one repository (rule SHORT-01)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from asupplemented.errors import ConfigurationError, InvalidReferenceError
from asupplemented.hostconfig.documents import (
    convert,
    parse_toml,
    quote_place,
    read_document,
)
from asupplemented.model.name import DEFAULT_REGISTRY, ImageName
from asupplemented.model.text import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ("Aliases", "has_registry", "load_aliases", "parse_aliases")

Aliases: TypeAlias = "Mapping[str, ImageName | None]"
"""Short name to repository, without tag and digest. None undoes an alias given elsewhere."""

_FAULTS_SHOWN: Final = 5


class _File(msgspec.Struct):
    aliases: dict[str, str] = {}


def load_aliases(path: Path | None) -> Aliases:
    """Read the aliases that other programs have recorded. Blocking.

    Args:
        path: See `ConfigurationPaths.recorded_short_names`.

    Returns:
        None of them if there is no such file.

    Raises:
        ConfigurationError: The file cannot be read, or a line of it is no alias.
    """
    text = None if path is None else read_document(path)
    if path is None or text is None:
        return {}
    return parse_aliases(convert(parse_toml(text, path), _File, path).aliases, path)


def parse_aliases(table: Mapping[str, str], path: Path) -> Aliases:
    """Check a table of aliases.

    Args:
        table: Short name to text; no text undoes an alias.
        path: The file it is from, for messages.

    Raises:
        ConfigurationError: Some are no aliases; the message names several of them.
    """
    aliases: dict[str, ImageName | None] = {}
    faults: list[str] = []
    for name, value in table.items():
        try:
            _check_short(name)
            aliases[name] = _parse_value(value) if value else None
        except InvalidReferenceError as error:
            faults.append(f"{excerpt(name)} = {quote_place(value)}: {error.message}")
    if faults:
        more = len(faults) - _FAULTS_SHOWN
        shown = "; ".join(faults[:_FAULTS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        message = f"{path}: [aliases] {shown}"
        raise ConfigurationError(message)
    return aliases


def has_registry(text: str) -> bool:
    """Whether a name says where it is from: its first part looks like a host (rule REF-05)."""
    first, slash, _ = text.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def _check_short(name: str) -> None:
    if has_registry(name):
        message = "a short name has no registry"
        raise InvalidReferenceError(message)
    if ":" in name or "@" in name:
        message = "a short name has neither tag nor digest"
        raise InvalidReferenceError(message)
    ImageName(DEFAULT_REGISTRY, name)


def _parse_value(text: str) -> ImageName:
    if not has_registry(text):
        message = "an alias stands for a full name, beginning with a registry"
        raise InvalidReferenceError(message)
    if ":" in text.partition("/")[2] or "@" in text:
        message = "an alias stands for a repository, without tag or digest"
        raise InvalidReferenceError(message)
    return ImageName.parse(text, allow_ipv6=True).with_tag(None)
