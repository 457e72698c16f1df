"""The merged registries.conf, and the locations of an image in it (rules CONF-01 to CONF-21).

Reading and parsing are apart: `Registries.load` reads one file after another with aiofiles, and
then one thread parses and merges them all, for parsers of TOML are slow.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import anyio.to_thread

from asupplemented.errors import ConfigurationError, InvalidReferenceError
from asupplemented.hostconfig.documents import (
    find_visible,
    list_drop_ins,
    quote_location,
    read_document,
)
from asupplemented.hostconfig.registries_conf import WILDCARD, Registry, parse_registries_conf
from asupplemented.model.credential import AUTH_FILES
from asupplemented.model.name import ImageName

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from asupplemented.errors import SupplementedError
    from asupplemented.hostconfig.paths import ConfigurationPaths
    from asupplemented.hostconfig.registries_conf import (
        RegistriesConf,
        Registry,
        ShortNameMode,
    )

__all__ = (
    "ImageLocation",
    "Registries",
    "RegistriesCache",
    "join_failures",
    "list_locations",
    "match_prefix",
)

_ENDS_OF_PREFIX = (":", "/", "@")


@dataclass(frozen=True, slots=True)
class ImageLocation:
    """One location of an image: a mirror, or the registry itself.

    Attributes:
        name: The image at this location. Credentials, certificates and lookaside signatures are
            looked up by this name, not by the one that was asked for (rules CONF-18, CONF-19).
        insecure: Whether plain http and unverified TLS are allowed.
        is_mirror: False for the registry itself, the last location. A credential that was given
            for the registry is not sent to its mirrors (rule CRED-04).
        mirrored_registry: The registry to name in the parameter ``ns`` of each request; None for
            no such parameter (rule CONF-20).
        proxy: The URL of the proxy to use; None for that of the environment.
        blocked: The table that blocks this location; None if none does.
    """

    name: ImageName
    insecure: bool = False
    is_mirror: bool = False
    mirrored_registry: str | None = None
    proxy: str | None = field(default=None, repr=False)
    blocked: Registry | None = None

    def check_allowed(self) -> None:
        """Refuse a location that is blocked (rule CONF-17).

        Raises:
            ConfigurationError: It is blocked; the message names the table and the file.
        """
        if self.blocked is not None:
            message = (
                f"{self.name.repository} is blocked: {self.blocked.origin} says blocked = true "
                f"of {quote_location(self.blocked.prefix)}"
            )
            raise ConfigurationError(message, reference=self.name)


def match_prefix(text: str, prefix: str) -> int | None:
    """Match a name against the prefix of a table (rules CONF-08, CONF-09).

    Args:
        text: ``registry/path``.
        prefix: The prefix. ``*.host`` matches the subdomains of ``host``, up to the first
            occurrence of ``.host``.

    Returns:
        The number of characters that match; None if the name does not begin with the prefix.
    """
    if prefix.startswith(WILDCARD):
        tail = prefix[1:]
        start = text.find(tail)
        if start < 0 or "/" in text[:start]:
            return None
        end = start + len(tail)
    elif text.startswith(prefix):
        end = len(prefix)
    else:
        return None
    return end if text[end : end + 1] in {"", *_ENDS_OF_PREFIX} else None


def list_locations(name: ImageName, registry: Registry) -> Iterator[ImageLocation]:
    """The mirrors that serve a pull of this kind, then the registry itself (rule CONF-13).

    Args:
        name: An image that the table matches. A name with a digest is pulled by that digest.
        registry: The table.

    Yields:
        Locations, without their `blocked`.

    Raises:
        ConfigurationError: A location does not form the name of an image (rule CONF-12).
    """
    for mirror in registry.mirrors:
        if mirror.serves(by_digest=name.digest is not None):
            yield ImageLocation(
                _rewrite(name, registry, mirror.location),
                mirror.insecure,
                is_mirror=True,
                mirrored_registry=name.registry if mirror.tells_registry else None,
                proxy=mirror.proxy,
            )
    physical = name if registry.location is None else _rewrite(name, registry, registry.location)
    yield ImageLocation(physical, registry.insecure, proxy=registry.proxy)


def join_failures(failures: Sequence[tuple[ImageLocation, SupplementedError]]) -> SupplementedError:
    """Join the errors of all locations of an image (rule CONF-15).

    Args:
        failures: At least one, in the order of the attempts; the last one is that of the
            registry itself.

    Returns:
        A single error unchanged; else a copy of the last one, with the last one as its cause,
        whose message also contains the other errors.
    """
    *mirrors, (location, last) = failures
    if not mirrors:
        return last
    others = "\n".join(f"[{mirror.name}: {error}]" for mirror, error in mirrors)
    joined = copy.copy(last)
    joined.message = f"(Mirrors also failed: {others}): {location.name}: {last.message}"
    joined.args = (joined.message,)
    joined.__cause__ = last
    return joined


def _rewrite(name: ImageName, registry: Registry, location: str) -> ImageName:
    """Replace the prefix of a name by a location (rule CONF-12)."""
    kept = name.repository[match_prefix(name.repository, registry.prefix) or 0 :]
    repository = f"{location}{kept}"
    if "@" in repository:  # Not parsed: the error would quote a password.
        fault = "a location has neither user nor digest"
        raise _location_error(name, registry, location, fault)
    try:
        parsed = ImageName.parse(f"{repository}:tag", allow_ipv6=True)
    except InvalidReferenceError as error:
        raise _location_error(name, registry, location, error.message) from error
    if parsed.repository != repository:
        fault = f"{repository} is short for {parsed.repository}; write that"
        raise _location_error(name, registry, location, fault)
    return ImageName(parsed.registry, parsed.path, name.tag, name.digest)


def _location_error(
    name: ImageName, registry: Registry, location: str, fault: str
) -> ConfigurationError:
    message = (
        f"{registry.origin or 'registries.conf'}: location {quote_location(location)} of prefix "
        f"{quote_location(registry.prefix)} does not fit {name.repository}: {fault}"
    )
    return ConfigurationError(message, reference=name)


_MAIN: Final = "registries.conf"
_SUFFIX: Final = ".conf"


@dataclass(frozen=True, slots=True)
class Registries:
    """What registries.conf and its drop-ins say together. A value.

    Attributes:
        tables: One for each prefix, sorted by it.
        search: Registries in which short names are searched, in order.
        credential_helpers: Where credentials are looked up, in order; never empty.
        short_name_mode: What to do if several registries may hold a short name.
        aliases: Short name to repository, without tag and digest.
        files: The files that were read, in this order.
        warnings: Harmless oddities of the files.
    """

    tables: tuple[Registry, ...] = ()
    search: tuple[str, ...] = ()
    credential_helpers: tuple[str, ...] = (AUTH_FILES,)
    short_name_mode: ShortNameMode = "permissive"
    aliases: Mapping[str, ImageName] = field(default_factory=dict[str, "ImageName"], hash=False)
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    async def load(cls, paths: ConfigurationPaths) -> Registries:
        """Read the main file, its drop-ins and the override (rules CONF-01, CONF-02).

        Args:
            paths: Where the files are.

        Raises:
            ConfigurationError: A file cannot be read or is malformed, or a file that
                `paths` names does not exist.
        """
        main, override = await _find_main(paths), None
        directories = paths.drop_in_directories(_MAIN)
        if paths.registries_directory is not None:
            directories = (paths.registries_directory,)
        else:
            override = paths.registries_override
            if paths.registries_alone:
                directories = ()
        texts: list[tuple[Path, str]] = []
        for path in (main, *await list_drop_ins(directories, _SUFFIX), override):
            text = None if path is None else await read_document(path)
            if path is not None and text is not None:
                texts.append((path, text))
            elif path is not None and path in {paths.registries, override}:
                message = f"there is no file {path}, which was given as a registries.conf"
                raise ConfigurationError(message)
        if not texts:
            return cls()
        return await anyio.to_thread.run_sync(cls.parse, texts, abandon_on_cancel=True)

    @classmethod
    def parse(cls, texts: Sequence[tuple[Path, str]]) -> Registries:
        """Parse and merge files. Pure.

        Args:
            texts: Paths and texts; later files override earlier ones.

        Raises:
            ConfigurationError: A file is malformed.
        """
        registries = cls()
        for path, text in texts:
            registries = registries.merge(parse_registries_conf(text, path), path)
        return registries

    def merge(self, parsed: RegistriesConf, path: Path) -> Registries:
        """Override these settings by those of another file (rule CONF-03).

        A table replaces the whole table of the same prefix, and a list replaces the whole list,
        even if it is empty. An alias without a value removes an alias.

        Args:
            parsed: The content of the file.
            path: The file.
        """
        tables = {table.prefix: table for table in (*self.tables, *parsed.registries)}
        aliases = {**self.aliases, **parsed.aliases}
        return replace(
            self,
            tables=tuple(tables[prefix] for prefix in sorted(tables)),
            search=self.search if parsed.search is None else parsed.search,
            credential_helpers=(
                self.credential_helpers
                if parsed.helpers is None
                else parsed.helpers or (AUTH_FILES,)
            ),
            short_name_mode=parsed.mode or self.short_name_mode,
            aliases={name: value for name, value in aliases.items() if value is not None},
            files=(*self.files, path),
            warnings=(*self.warnings, *parsed.warnings),
        )

    def find(self, name: ImageName) -> Registry | None:
        """The table of an image: the one whose prefix is the longest that matches (rule CONF-10).

        Of prefixes of equal length the first one in lexical order wins. The tag and the digest of
        the name are ignored (rule CONF-11).
        """
        return next(iter(self._find_longest(name)), None)

    def find_ties(self, name: ImageName) -> tuple[Registry, ...]:
        """Tables whose matching prefix is as long as that of `find` (rule CONF-10).

        Only their lexical order decides, which is most likely a mistake: callers warn.
        """
        return self._find_longest(name)[1:]

    def locations(self, name: ImageName) -> tuple[ImageLocation, ...]:
        """The locations of an image, in order; the last one is the registry itself.

        Each location is looked up again to find out whether it is blocked. So the mirrors of a
        blocked registry still serve, and only the last location is refused (rule CONF-17).

        Args:
            name: The image as it was asked for.

        Raises:
            ConfigurationError: A location does not form the name of an image. Then no location
                must be asked (rule CONF-12).
        """
        table = self.find(name)
        found = (ImageLocation(name),) if table is None else tuple(list_locations(name, table))
        return tuple(replace(each, blocked=self._find_block(each.name)) for each in found)

    def _find_longest(self, name: ImageName) -> tuple[Registry, ...]:
        text = name.repository
        matching = [table for table in self.tables if match_prefix(text, table.prefix) is not None]
        longest = max((len(table.prefix) for table in matching), default=0)
        return tuple(table for table in matching if len(table.prefix) == longest)

    def _find_block(self, name: ImageName) -> Registry | None:
        table = self.find(name)
        return table if table is not None and table.blocked else None


class RegistriesCache:
    """The registries of one set of paths, read on first use (rule CONF-21).

    Args:
        paths: Where the files are.
    """

    def __init__(self, paths: ConfigurationPaths) -> None:
        self._paths = paths
        self._current: Registries | None = None

    @property
    def current(self) -> Registries | None:
        """The settings that were read last; None if none were read."""
        return self._current

    async def get(self) -> Registries:
        """The settings that were read last; if none were read, the files are read now.

        Raises:
            ConfigurationError: See `Registries.load`. The next call tries again.
        """
        return await self.reload() if self._current is None else self._current

    async def reload(self) -> Registries:
        """Read the files again.

        Raises:
            ConfigurationError: See `Registries.load`. Then the previous settings stay in force.
        """
        self._current = await Registries.load(self._paths)
        return self._current


async def _find_main(paths: ConfigurationPaths) -> Path | None:
    """The main file: the one that is given, else the first that exists (rule CONF-01)."""
    if paths.registries is not None:
        return paths.registries
    return await find_visible(
        (paths.user_path(_MAIN), paths.system_path(_MAIN), paths.shipped_path(_MAIN))
    )
