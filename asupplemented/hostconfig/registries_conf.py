"""One registries.conf, or one drop-in, parsed into checked values (rules CONF-04 to CONF-08)."""

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
    quote_location,
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
    "Mirror",
    "Pulls",
    "RegistriesConf",
    "Registry",
    "ShortNameMode",
    "has_registry",
    "load_aliases",
    "parse_aliases",
    "parse_registries_conf",
)

Pulls: TypeAlias = Literal["all", "digest-only", "tag-only"]
"""Which pulls a mirror serves."""

ShortNameMode: TypeAlias = Literal["permissive", "enforcing", "disabled"]
"""What to do if several registries may hold a short name."""

WILDCARD: Final = "*."
"""How a prefix begins that matches the subdomains of a host."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """A location that is asked before the registry itself.

    Attributes:
        location: The replacement of the prefix.
        insecure: Whether plain http and unverified TLS are allowed.
        pulls: Which pulls it serves.
        tells_registry: Whether requests to it name the registry that it mirrors (rule CONF-20).
        proxy: The URL of the proxy to use; None for that of the environment.
    """

    location: str
    insecure: bool = False
    pulls: Pulls = "all"
    tells_registry: bool = False
    proxy: str | None = field(default=None, repr=False)

    def serves(self, *, by_digest: bool) -> bool:
        """Whether the mirror serves a pull of this kind (rule CONF-13)."""
        return self.pulls == "all" or (self.pulls == "digest-only") == by_digest


@dataclass(frozen=True, slots=True)
class Registry:
    """One ``[[registry]]`` table: the settings of all names that begin with a prefix.

    Attributes:
        prefix: ``host[:port][/path]``, or ``*.host`` for the subdomains of a host.
        location: The replacement of the prefix; None leaves names unchanged.
        insecure: Whether plain http and unverified TLS are allowed.
        blocked: Whether the library refuses to read from the registry.
        mirrors: In the order in which they are asked.
        proxy: The URL of the proxy to use; None for that of the environment.
        origin: The file of the table.
    """

    prefix: str
    location: str | None
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()
    proxy: str | None = field(default=None, repr=False)
    origin: Path | None = None

    @property
    def effective_location(self) -> str:
        """Where the registry is. Tables with the same one must have the same security settings."""
        return self.prefix if self.location is None else self.location


class RegistriesConf(NamedTuple):
    """The content of one file. None is a setting that the file leaves to other files."""

    registries: tuple[Registry, ...]
    """Each prefix once."""
    search: tuple[str, ...] | None
    helpers: tuple[str, ...] | None
    mode: ShortNameMode | None
    aliases: Aliases
    warnings: tuple[str, ...]
    """Harmless oddities."""


Aliases: TypeAlias = "Mapping[str, ImageName | None]"
"""Short name to repository, without tag and digest. None removes an alias of another file."""

_FAULTS_SHOWN: Final = 5


class _AliasFile(msgspec.Struct):
    aliases: dict[str, str] = {}


async def load_aliases(path: Path | None) -> Aliases:
    """Read the aliases that other programs have recorded (rule SHORT-01).

    Args:
        path: See `ConfigurationPaths.recorded_short_names`.

    Returns:
        An empty mapping if the file does not exist.

    Raises:
        ConfigurationError: The file cannot be read, or an entry of it is not an alias.
    """
    text = None if path is None else await read_document(path)
    if path is None or text is None:
        return {}
    return parse_aliases(convert(parse_toml(text, path), _AliasFile, path).aliases, path)


def parse_aliases(table: Mapping[str, str], path: Path) -> Aliases:
    """Check a table of aliases (rule SHORT-01).

    Args:
        table: Short name to repository; an empty text removes an alias.
        path: The file of the table, for messages.

    Raises:
        ConfigurationError: Some entries are not aliases; the message lists several of them.
    """
    aliases: dict[str, ImageName | None] = {}
    faults: list[str] = []
    for name, value in table.items():
        try:
            _check_short_name(name)
            aliases[name] = _parse_alias_value(value) if value else None
        except InvalidReferenceError as error:
            faults.append(f"{excerpt(name)} = {quote_location(value)}: {error.message}")
    if faults:
        more = len(faults) - _FAULTS_SHOWN
        shown = "; ".join(faults[:_FAULTS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        message = f"{path}: [aliases] {shown}"
        raise ConfigurationError(message)
    return aliases


def has_registry(text: str) -> bool:
    """Whether a name contains a registry: its first part looks like a host (rule REF-05)."""
    first, slash, _ = text.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def _check_short_name(name: str) -> None:
    if has_registry(name):
        message = "a short name has no registry"
        raise InvalidReferenceError(message)
    if ":" in name or "@" in name:
        message = "a short name has neither tag nor digest"
        raise InvalidReferenceError(message)
    ImageName(DEFAULT_REGISTRY, name)


def _parse_alias_value(text: str) -> ImageName:
    if not has_registry(text):
        message = "an alias stands for a full name that begins with a registry"
        raise InvalidReferenceError(message)
    if ":" in text.partition("/")[2] or "@" in text:
        message = "an alias stands for a repository, without tag or digest"
        raise InvalidReferenceError(message)
    return ImageName.parse(text, allow_ipv6=True).with_tag(None)


_Tree: TypeAlias = "Mapping[str, object]"


class _MirrorTable(msgspec.Struct, rename="kebab"):
    location: str = ""
    insecure: bool = False
    proxy: str = ""
    pull_from_mirror: str = ""
    asupplemented_tells_registry: bool = False


class _RegistryTable(_MirrorTable, rename="kebab"):
    prefix: str = ""
    blocked: bool = False
    mirror_by_digest_only: bool = False
    mirror: list[_MirrorTable] = []


class _RegistryNames(msgspec.Struct, frozen=True):
    registries: list[str] | None = None


class _Version1(msgspec.Struct, frozen=True):
    search: _RegistryNames = _RegistryNames()
    insecure: _RegistryNames = _RegistryNames()
    block: _RegistryNames = _RegistryNames()

    @property
    def is_used(self) -> bool:
        """Whether the file has any of these lists, even an empty one."""
        return any(
            names.registries is not None for names in (self.search, self.insecure, self.block)
        )


class _File(msgspec.Struct, rename="kebab"):
    registry: list[_RegistryTable] | None = None
    unqualified_search_registries: list[str] | None = None
    credential_helpers: list[str] | None = None
    short_name_mode: str | None = None
    additional_layer_store_auth_helper: str | None = None
    aliases: dict[str, str] | None = None
    registries: _Version1 = _Version1()


def parse_registries_conf(text: str, path: Path) -> RegistriesConf:
    """Parse the text of one file. Pure.

    Args:
        text: The text.
        path: The file, for messages.

    Raises:
        ConfigurationError: A setting is malformed; the message names the file and the key. Or
            the file is of version 1 (rule CONF-04).
    """
    file, warnings = _read(text, path)
    registries = [_check_table(table, n, path) for n, table in enumerate(file.registry or (), 1)]
    _check_agreement(registries, path)
    unique = _first_of_each_prefix(registries)
    warnings += [
        f"{path}: the second [[registry]] of prefix {quote_location(table.prefix)} is ignored"
        for table in registries
        if unique[table.prefix] is not table
    ]
    return RegistriesConf(
        tuple(unique.values()),
        _check_search(file.unqualified_search_registries, path),
        None if file.credential_helpers is None else tuple(file.credential_helpers),
        _check_mode(file.short_name_mode, path),
        parse_aliases(file.aliases or {}, path),
        tuple(warnings),
    )


def _read(text: str, path: Path) -> tuple[_File, list[str]]:
    """The file, and warnings about its keys."""
    tree = parse_toml(text, path)
    file = convert(tree, _File, path)
    warnings = list(_check_known_keys(tree, path))
    if file.registries.is_used:
        message = (
            f"{path} is of version 1, which is no longer read; replace [registries.search] by "
            "unqualified-search-registries = [...], and each entry of [registries.insecure] and "
            '[registries.block] by a [[registry]] table with location = "host[:port]" and '
            "insecure = true or blocked = true"
        )
        raise ConfigurationError(message)
    return file, warnings


def _check_known_keys(tree: _Tree, path: Path) -> Iterator[str]:
    """Check the keys of a tree whose values have the right types."""
    for table, kind, where in _iterate_tables(tree, str(path)):
        yield from check_keys(table, kind.__struct_encode_fields__, where)


def _iterate_tables(tree: _Tree, where: str) -> Iterator[tuple[_Tree, type[msgspec.Struct], str]]:
    """Every table of the tree whose keys are fixed, with its struct and its name."""
    yield tree, _File, where
    old = cast("Mapping[str, _Tree]", tree.get("registries", {}))
    yield old, _Version1, f"{where}: [registries]"
    for name in old:
        if name in _Version1.__struct_fields__:
            yield old[name], _RegistryNames, f"{where}: [registries.{name}]"
    for number, table in enumerate(cast("list[_Tree]", tree.get("registry", [])), 1):
        of_table = f"{where}: [[registry]] number {number}"
        yield table, _RegistryTable, of_table
        for mirror in cast("list[_Tree]", table.get("mirror", [])):
            yield mirror, _MirrorTable, f"{of_table}, [[registry.mirror]]"


def _check_table(table: _RegistryTable, number: int, path: Path) -> Registry:
    """One ``[[registry]]`` (rules CONF-05, CONF-07, CONF-08)."""
    where = f"{path}: [[registry]] number {number}"
    location = _check_location(table.location, where)
    prefix = _check_location(table.prefix, where) if table.prefix else location
    if not prefix:
        message = f"{where} has neither prefix nor location; add a location"
        raise ConfigurationError(message)
    where = f"{where} ({quote_location(prefix)})"
    wild = prefix.startswith(WILDCARD)
    if wild and any(character in prefix for character in "/@:"):
        message = f"{where}: a prefix with a wildcard is *.host, without path, port, tag or digest"
        raise ConfigurationError(message)
    if not location and not wild:
        message = f"{where} has no location; only a prefix like *.example.com needs none"
        raise ConfigurationError(message)
    if table.pull_from_mirror:
        message = f"{where}: pull-from-mirror belongs in a [[registry.mirror]]"
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


def _check_mirror(mirror: _MirrorTable, table: _RegistryTable, where: str) -> Mirror:
    location = _check_location(mirror.location, where)
    if not location:
        message = f"{where}: a mirror has no location; add one"
        raise ConfigurationError(message)
    where = f"{where}, mirror {quote_location(location)}"
    pulls = mirror.pull_from_mirror or "all"
    if pulls not in get_args(Pulls):
        message = f"{where}: pull-from-mirror is {_alternatives(Pulls)}, not {excerpt(pulls)}"
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
    """A location or prefix without trailing slashes (rule CONF-05)."""
    trimmed = text.rstrip("/")
    if trimmed.startswith(("http://", "https://")):
        message = (
            f"{where}: {quote_location(text)} must not have a scheme; write host[:port][/path], "
            f"and insecure = true for plain http"
        )
        raise ConfigurationError(message)
    return trimmed


def _check_agreement(registries: Iterable[Registry], path: Path) -> None:
    """Refuse tables of one location with different security settings (rule CONF-06)."""
    by_location = attrgetter("effective_location")
    for location, group in groupby(sorted(registries, key=by_location), by_location):
        tables = list(group)
        for key in ("insecure", "blocked", "proxy"):
            if len({getattr(table, key) for table in tables}) > 1:
                message = f"{path}: tables with location {quote_location(location)} differ in {key}"
                raise ConfigurationError(message)


def _first_of_each_prefix(registries: Iterable[Registry]) -> dict[str, Registry]:
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
    message = f"{where}: {quote_location(text)} is not a host[:port]"
    raise ConfigurationError(message) from fault


def _check_mode(text: str | None, path: Path) -> ShortNameMode | None:
    if text and text not in get_args(ShortNameMode):
        message = f"{path}: short-name-mode is {_alternatives(ShortNameMode)}, not {excerpt(text)}"
        raise ConfigurationError(message)
    return cast("ShortNameMode", text) if text else None


def _alternatives(kind: object) -> str:
    return " or ".join(get_args(kind))
