"""Fragments: what one registries.conf says, checked (rules CONF-04 to CONF-08).

Tables: the values of a registries.conf, once they are checked.

Aliases: short names that stand for one repository (rule SHORT-01).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, cast, get_args

import msgspec

from asupplemented.errors import ConfigurationError, InvalidReferenceError, excerpt
from asupplemented.hostconfig.documents import (
    check_keys,
    convert,
    parse_toml,
    quote_place,
    read_document,
)
from asupplemented.hostconfig.proxies import check_proxy
from asupplemented.model.name import DEFAULT_REGISTRY, ImageName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = (
    "WILDCARD",
    "Aliases",
    "Fragment",
    "Mirror",
    "Pulls",
    "Registry",
    "ShortNameMode",
    "has_registry",
    "load_aliases",
    "parse_aliases",
    "parse_fragment",
)

Pulls: TypeAlias = Literal["all", "digest-only", "tag-only"]
"""Which pulls a mirror serves."""

ShortNameMode: TypeAlias = Literal["permissive", "enforcing", "disabled"]
"""What to do with a short name that several registries may hold."""

WILDCARD: Final = "*."
"""What a prefix begins with that stands for all hosts below one."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """A place to ask before the registry itself.

    Attributes:
        location: What stands in place of the prefix.
        insecure: Plain http and unverified TLS are allowed.
        pulls: Which pulls it serves.
        tells_registry: Its requests say which registry it stands in for (rule CONF-20).
        proxy: The URL of the proxy that leads there, None for that of the environment.
    """

    location: str
    insecure: bool = False
    pulls: Pulls = "all"
    tells_registry: bool = False
    proxy: str | None = field(default=None, repr=False)

    def serves(self, *, by_digest: bool) -> bool:
        """Whether it is asked for a pull of this kind (rule CONF-13)."""
        return self.pulls == "all" or (self.pulls == "digest-only") == by_digest


@dataclass(frozen=True, slots=True)
class Registry:
    """One ``[[registry]]``: what is true of the names that begin with a prefix.

    Attributes:
        prefix: ``host[:port][/path]``, or ``*.host`` for the hosts below one.
        location: What stands in place of the prefix; None where names stay as they are.
        insecure: Plain http and unverified TLS are allowed.
        blocked: Nothing is read from there.
        mirrors: In the order in which they are asked.
        proxy: The URL of the proxy that leads there, None for that of the environment.
        origin: The file that says so.
    """

    prefix: str
    location: str | None
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()
    proxy: str | None = field(default=None, repr=False)
    origin: Path | None = None

    @property
    def place(self) -> str:
        """What the security settings are about; tables that share it must agree."""
        return self.prefix if self.location is None else self.location


class Fragment(NamedTuple):
    """What one file says; None is what it leaves to the others."""

    registries: tuple[Registry, ...]
    """Each prefix once."""
    search: tuple[str, ...] | None
    helpers: tuple[str, ...] | None
    mode: ShortNameMode | None
    aliases: Aliases
    remarks: tuple[str, ...]
    """What is odd, and does no harm."""


Aliases: TypeAlias = "Mapping[str, ImageName | None]"
"""Short name to repository, without tag and digest. None undoes an alias given elsewhere."""

_FAULTS_SHOWN: Final = 5


class _AliasFile(msgspec.Struct):
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
    return parse_aliases(convert(parse_toml(text, path), _AliasFile, path).aliases, path)


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


_Tree: TypeAlias = "Mapping[str, object]"


class _Endpoint(msgspec.Struct, rename="kebab"):
    location: str = ""
    insecure: bool = False
    proxy: str = ""
    pull_from_mirror: str = ""
    asupplemented_tells_registry: bool = False


class _Table(_Endpoint, rename="kebab"):
    prefix: str = ""
    blocked: bool = False
    mirror_by_digest_only: bool = False
    mirror: list[_Endpoint] = []


class _Names(msgspec.Struct, frozen=True):
    registries: list[str] | None = None


class _Old(msgspec.Struct, frozen=True):
    search: _Names = _Names()
    insecure: _Names = _Names()
    block: _Names = _Names()

    @property
    def said(self) -> bool:
        """Whether there is any list, be it empty."""
        return any(
            names.registries is not None for names in (self.search, self.insecure, self.block)
        )


class _File(msgspec.Struct, rename="kebab"):
    registry: list[_Table] | None = None
    unqualified_search_registries: list[str] | None = None
    credential_helpers: list[str] | None = None
    short_name_mode: str | None = None
    additional_layer_store_auth_helper: str | None = None
    aliases: dict[str, str] | None = None
    registries: _Old = _Old()

    @property
    def said(self) -> bool:
        """Whether there is anything of version 2."""
        return any(
            getattr(self, name) is not None
            for name in self.__struct_fields__
            if name != "registries"
        )


def parse_fragment(text: str, path: Path, *, drop_in: bool = False) -> Fragment:
    """Read one file, of version 2 or of the old version 1 (rule CONF-04).

    Args:
        text: What is in the file.
        path: The file, for messages.
        drop_in: Whether it adds to another file; then it must be of version 2.

    Raises:
        ConfigurationError: Something in it cannot be followed; the message names file and key.
    """
    file, remarks = _read(text, path, drop_in=drop_in)
    registries = [_check_table(table, n, path) for n, table in enumerate(file.registry or (), 1)]
    _check_agreement(registries, path)
    unique = _unique(registries)
    remarks += [
        f"{path}: another [[registry]] {quote_place(table.prefix)} came first; this one is ignored"
        for table in registries
        if unique[table.prefix] is not table
    ]
    return Fragment(
        tuple(unique.values()),
        _check_search(file.unqualified_search_registries, path),
        None if file.credential_helpers is None else tuple(file.credential_helpers),
        _check_mode(file.short_name_mode, path),
        parse_aliases(file.aliases or {}, path),
        tuple(remarks),
    )


def _read(text: str, path: Path, *, drop_in: bool) -> tuple[_File, list[str]]:
    """The file in the terms of version 2, and remarks on its keys."""
    tree = parse_toml(text, path)
    file = convert(tree, _File, path)
    remarks = list(_check_all_keys(tree, path))
    if not file.registries.said:
        return file, remarks
    if drop_in:
        message = f"{path} is of version 1; drop-ins are of version 2: use [[registry]]"
        raise ConfigurationError(message)
    if file.said:
        message = f"{path} mixes versions 1 and 2; replace [registries.*] by [[registry]]"
        raise ConfigurationError(message)
    return _upgrade(file.registries), remarks


def _upgrade(old: _Old) -> _File:
    """Version 1 in the terms of version 2: first what is blocked, then what is insecure."""
    tables: dict[str, _Table] = {}
    for name in old.block.registries or ():
        location = name.rstrip("/")
        tables.setdefault(location, _Table(location=location)).blocked = True
    for name in old.insecure.registries or ():
        location = name.rstrip("/")
        tables.setdefault(location, _Table(location=location)).insecure = True
    return _File(
        registry=list(tables.values()), unqualified_search_registries=old.search.registries
    )


def _check_all_keys(tree: _Tree, path: Path) -> Iterator[str]:
    """Look at the keys of a tree that has the right types."""
    for table, kind, where in _walk(tree, str(path)):
        yield from check_keys(table, kind.__struct_encode_fields__, where)


def _walk(tree: _Tree, where: str) -> Iterator[tuple[_Tree, type[msgspec.Struct], str]]:
    """Every table whose keys are ours to name."""
    yield tree, _File, where
    old = cast("Mapping[str, _Tree]", tree.get("registries", {}))
    yield old, _Old, f"{where}: [registries]"
    for name in old:
        if name in _Old.__struct_fields__:
            yield old[name], _Names, f"{where}: [registries.{name}]"
    for number, table in enumerate(cast("list[_Tree]", tree.get("registry", [])), 1):
        of_table = f"{where}: [[registry]] number {number}"
        yield table, _Table, of_table
        for mirror in cast("list[_Tree]", table.get("mirror", [])):
            yield mirror, _Endpoint, f"{of_table}, [[registry.mirror]]"


def _check_table(table: _Table, number: int, path: Path) -> Registry:
    """One ``[[registry]]`` (rules CONF-05, CONF-07, CONF-08)."""
    where = f"{path}: [[registry]] number {number}"
    location = _check_location(table.location, where)
    prefix = _check_location(table.prefix, where) if table.prefix else location
    if not prefix:
        message = f"{where} has neither prefix nor location; write a location"
        raise ConfigurationError(message)
    where = f"{where} ({quote_place(prefix)})"
    wild = prefix.startswith(WILDCARD)
    if wild and any(character in prefix for character in "/@:"):
        message = f"{where}: a prefix with a wildcard is *.host, without path, port, tag or digest"
        raise ConfigurationError(message)
    if not location and not wild:
        message = f"{where} has no location, which only a prefix like *.example.com may lack"
        raise ConfigurationError(message)
    if table.pull_from_mirror:
        message = f"{where}: pull-from-mirror belongs into a [[registry.mirror]]"
        raise ConfigurationError(message)
    return Registry(
        prefix,
        location or None,
        table.insecure,
        table.blocked,
        tuple(_check_mirror(mirror, table, where) for mirror in table.mirror),
        check_proxy(table.proxy, where) if table.proxy else None,
        path,
    )


def _check_mirror(mirror: _Endpoint, table: _Table, where: str) -> Mirror:
    location = _check_location(mirror.location, where)
    if not location:
        message = f"{where}: a mirror has no location; write where it is"
        raise ConfigurationError(message)
    where = f"{where}, mirror {quote_place(location)}"
    pulls = mirror.pull_from_mirror or "all"
    if pulls not in get_args(Pulls):
        message = f"{where}: pull-from-mirror is {_choice(Pulls)}, not {excerpt(pulls)}"
        raise ConfigurationError(message)
    if table.mirror_by_digest_only:
        if mirror.pull_from_mirror:
            message = f"{where}: pull-from-mirror contradicts mirror-by-digest-only; drop one"
            raise ConfigurationError(message)
        pulls = "digest-only"
    return Mirror(
        location,
        mirror.insecure,
        cast("Pulls", pulls),
        mirror.asupplemented_tells_registry,
        check_proxy(mirror.proxy, where) if mirror.proxy else None,
    )


def _check_location(text: str, where: str) -> str:
    """A location or prefix without slashes at its end (rule CONF-05)."""
    trimmed = text.rstrip("/")
    if trimmed.startswith(("http://", "https://")):
        message = (
            f"{where}: {quote_place(text)} must not have a scheme; write host[:port][/path], "
            f"and insecure = true for plain http"
        )
        raise ConfigurationError(message)
    return trimmed


def _check_agreement(registries: Iterable[Registry], path: Path) -> None:
    """No place is secure in one table and insecure in another (rule CONF-06)."""
    by_place = attrgetter("place")
    for place, group in groupby(sorted(registries, key=by_place), by_place):
        tables = list(group)
        for key in ("insecure", "blocked", "proxy"):
            if len({getattr(table, key) for table in tables}) > 1:
                message = f"{path}: tables with location {quote_place(place)} differ in {key}"
                raise ConfigurationError(message)


def _unique(registries: Iterable[Registry]) -> dict[str, Registry]:
    """The first table of each prefix (rule CONF-06)."""
    first: dict[str, Registry] = {}
    for registry in registries:
        first.setdefault(registry.prefix, registry)
    return first


def _check_search(names: list[str] | None, path: Path) -> tuple[str, ...] | None:
    where = f"{path}: unqualified-search-registries"
    return None if names is None else tuple(_check_host(name, where) for name in names)


def _check_host(text: str, where: str) -> str:
    host = _check_location(text, where)
    try:
        if "@" not in host:
            return ImageName(host, "name").registry
        fault = None
    except InvalidReferenceError as error:
        fault = error
    message = f"{where}: {quote_place(text)} is no host[:port]"
    raise ConfigurationError(message) from fault


def _check_mode(text: str | None, path: Path) -> ShortNameMode | None:
    if text and text not in get_args(ShortNameMode):
        message = f"{path}: short-name-mode is {_choice(ShortNameMode)}, not {excerpt(text)}"
        raise ConfigurationError(message)
    return cast("ShortNameMode", text) if text else None


def _choice(kind: object) -> str:
    return " or ".join(get_args(kind))
