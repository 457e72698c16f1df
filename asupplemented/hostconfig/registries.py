"""registries.conf: where images are, and under which conditions (rules CONF-01 to CONF-21).

Candidates: the places where an image may be, physically, in the order to ask them.
"""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from asupplemented.errors import ConfigurationError, InvalidReferenceError
from asupplemented.hostconfig.documents import (
    is_visible,
    list_documents,
    quote_place,
    read_document,
)
from asupplemented.hostconfig.registries_conf import WILDCARD, Registry, parse_fragment
from asupplemented.model.name import ImageName

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from asupplemented.errors import SupplementedError
    from asupplemented.hostconfig.paths import ConfigurationPaths
    from asupplemented.hostconfig.registries_conf import (
        Fragment,
        Registry,
        ShortNameMode,
    )

__all__ = (
    "AUTH_FILES",
    "Candidate",
    "Registries",
    "RegistriesCache",
    "join_failures",
    "list_candidates",
    "match_prefix",
)

_ENDS_OF_PREFIX = (":", "/", "@")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place to read an image from.

    Attributes:
        name: The image there. Credentials, certificates and lookaside signatures are looked up
            by this name, and not by the one that was asked for (rules CONF-18, CONF-19).
        insecure: Plain http and unverified TLS are allowed there.
        is_mirror: False for the registry itself, the last candidate. What was given for the
            registry itself, as a credential, is not for its mirrors (rule CRED-04).
        told_registry: The registry to name in the parameter ``ns`` of each request; None for no
            such parameter (rule CONF-20).
        proxy: The URL of the proxy that leads there, None for that of the environment.
        blocked: The table that forbids to read from there, None if none does.
    """

    name: ImageName
    insecure: bool = False
    is_mirror: bool = False
    told_registry: str | None = None
    proxy: str | None = field(default=None, repr=False)
    blocked: Registry | None = None

    def check_allowed(self) -> None:
        """Refuse a place that is blocked (rule CONF-17).

        Raises:
            ConfigurationError: It is; the message names table and file.
        """
        if self.blocked is not None:
            message = (
                f"{self.name.repository} is blocked: {self.blocked.origin} says blocked = true "
                f"of {quote_place(self.blocked.prefix)}"
            )
            raise ConfigurationError(message, reference=self.name)


def match_prefix(text: str, prefix: str) -> int | None:
    """How much of a name a prefix stands for (rules CONF-08, CONF-09).

    Args:
        text: ``registry/path``.
        prefix: Of a table. ``*.host`` stands for any host below that one, once ``.host`` occurs.

    Returns:
        Characters, None if the name does not begin with the prefix.
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


def list_candidates(name: ImageName, registry: Registry) -> Iterator[Candidate]:
    """The mirrors that serve such a pull, then always the registry itself (rule CONF-13).

    Whether they are blocked is not looked up here.

    Args:
        name: An image that the table is about. With a digest it is pulled by that alone.
        registry: The table.

    Raises:
        ConfigurationError: A location makes no name of an image (rule CONF-12).
    """
    for mirror in registry.mirrors:
        if mirror.serves(by_digest=name.digest is not None):
            yield Candidate(
                _rewrite(name, registry, mirror.location),
                mirror.insecure,
                is_mirror=True,
                told_registry=name.registry if mirror.tells_registry else None,
                proxy=mirror.proxy,
            )
    physical = name if registry.location is None else _rewrite(name, registry, registry.location)
    yield Candidate(physical, registry.insecure, proxy=registry.proxy)


def join_failures(failures: Sequence[tuple[Candidate, SupplementedError]]) -> SupplementedError:
    """The one error for several candidates that all failed (rule CONF-15).

    Args:
        failures: At least one, in the order in which they were asked; the last one is that of
            the registry itself.

    Returns:
        The only error as it is; else an error like the last one, which is its cause, that also
        tells of the others.
    """
    *mirrors, (candidate, last) = failures
    if not mirrors:
        return last
    others = "\n".join(f"[{mirror.name}: {error}]" for mirror, error in mirrors)
    joined = copy.copy(last)
    joined.message = f"(Mirrors also failed: {others}): {candidate.name}: {last.message}"
    joined.args = (joined.message,)
    joined.__cause__ = last
    return joined


def _rewrite(name: ImageName, registry: Registry, location: str) -> ImageName:
    """Put a location in place of the prefix (rule CONF-12)."""
    kept = name.repository[match_prefix(name.repository, registry.prefix) or 0 :]
    repository = f"{location}{kept}"
    if "@" in repository:  # not parsed, for what was parsed is in the error
        fault = "a location has neither user nor digest"
        raise _unusable(name, registry, location, fault)
    try:
        parsed = ImageName.parse(f"{repository}:tag", allow_ipv6=True)
    except InvalidReferenceError as error:
        raise _unusable(name, registry, location, error.message) from error
    if parsed.repository != repository:
        fault = f"{repository} is short for {parsed.repository}, write that"
        raise _unusable(name, registry, location, fault)
    return ImageName(parsed.registry, parsed.path, name.tag, name.digest)


def _unusable(name: ImageName, registry: Registry, location: str, fault: str) -> ConfigurationError:
    message = (
        f"{registry.origin or 'registries.conf'}: location {quote_place(location)} of prefix "
        f"{quote_place(registry.prefix)} does not fit {name.repository}: {fault}"
    )
    return ConfigurationError(message, reference=name)


AUTH_FILES: Final = "containers-auth.json"
"""Among credential helpers, the name that means the credential files (rule FILE-12)."""

_MAIN: Final = "registries.conf"
_DROP_INS: Final = "registries.conf.d"
_SUFFIX: Final = ".conf"


@dataclass(frozen=True, slots=True)
class Registries:
    """All that the files of one system say about registries. A value.

    Attributes:
        tables: One for each prefix, sorted by it.
        search: Registries in which short names are looked for, in order.
        credential_helpers: Where credentials are looked up, in order; never empty.
        short_name_mode: What to do when several registries may hold a short name.
        aliases: Short name to repository, without tag and digest.
        files: The files that this is from, in the order in which they were read.
        remarks: What is odd in them, and does no harm.
    """

    tables: tuple[Registry, ...] = ()
    search: tuple[str, ...] = ()
    credential_helpers: tuple[str, ...] = (AUTH_FILES,)
    short_name_mode: ShortNameMode = "permissive"
    aliases: Mapping[str, ImageName] = field(default_factory=dict[str, "ImageName"], hash=False)
    files: tuple[Path, ...] = ()
    remarks: tuple[str, ...] = ()

    @classmethod
    def load(cls, paths: ConfigurationPaths) -> Registries:
        """Read the main file and its drop-ins (rules CONF-01, CONF-02). Blocking.

        Args:
            paths: Where they are.

        Raises:
            ConfigurationError: A file cannot be read or followed, or the one that was named
                does not exist.
        """
        main, directories = _choose(paths)
        registries = cls()
        for path in (main, *_list_drop_ins(directories)):
            text = None if path is None else read_document(path)
            if path is not None and text is not None:
                fragment = parse_fragment(text, path, drop_in=path is not main)
                registries = registries.merge(fragment, path)
            elif path is not None and path is paths.registries:
                message = f"there is no file {path}, which was given as the registries.conf"
                raise ConfigurationError(message)
        return registries

    def merge(self, fragment: Fragment, path: Path) -> Registries:
        """What holds once another file was read (rule CONF-03).

        Tables are replaced whole by those of the same prefix, and lists whole by lists, be they
        empty. An alias without a value undoes one.

        Args:
            fragment: What the file says.
            path: The file.
        """
        tables = {table.prefix: table for table in (*self.tables, *fragment.registries)}
        aliases = {**self.aliases, **fragment.aliases}
        return replace(
            self,
            tables=tuple(tables[prefix] for prefix in sorted(tables)),
            search=self.search if fragment.search is None else fragment.search,
            credential_helpers=(
                self.credential_helpers
                if fragment.helpers is None
                else fragment.helpers or (AUTH_FILES,)
            ),
            short_name_mode=fragment.mode or self.short_name_mode,
            aliases={name: value for name, value in aliases.items() if value is not None},
            files=(*self.files, path),
            remarks=(*self.remarks, *fragment.remarks),
        )

    def find(self, name: ImageName) -> Registry | None:
        """The table of an image: that of the longest prefix (rule CONF-10).

        Of several that are equally long, it is the first one in lexical order. Tag and digest
        of the name do not matter (rule CONF-11).
        """
        return next(iter(self._find_longest(name)), None)

    def find_rivals(self, name: ImageName) -> tuple[Registry, ...]:
        """Tables whose prefix fits as well as that of `find`, and that lost by their spelling.

        Worth a remark: most likely nobody has meant it so (rule CONF-10).
        """
        return self._find_longest(name)[1:]

    def candidates(self, name: ImageName) -> tuple[Candidate, ...]:
        """The places to read an image from, in order; the last one is the registry itself.

        Each place is looked up once more to see whether it is blocked. So a blocked registry
        is still read from its mirrors, and only the last candidate is refused (rule CONF-17).

        Args:
            name: The image as it was asked for.

        Raises:
            ConfigurationError: A location makes no name of an image, so that nothing should be
                asked at all (rule CONF-12).
        """
        table = self.find(name)
        found = (Candidate(name),) if table is None else tuple(list_candidates(name, table))
        return tuple(replace(each, blocked=self._find_block(each.name)) for each in found)

    def _find_longest(self, name: ImageName) -> tuple[Registry, ...]:
        text = name.repository
        fitting = [table for table in self.tables if match_prefix(text, table.prefix) is not None]
        longest = max((len(table.prefix) for table in fitting), default=0)
        return tuple(table for table in fitting if len(table.prefix) == longest)

    def _find_block(self, name: ImageName) -> Registry | None:
        table = self.find(name)
        return table if table is not None and table.blocked else None


class RegistriesCache:
    """The registries of one set of paths, read when first asked for (rule CONF-21).

    May be used from several threads.

    Args:
        paths: Where the files are.
    """

    def __init__(self, paths: ConfigurationPaths) -> None:
        self._paths = paths
        self._lock = threading.Lock()
        self._current: Registries | None = None

    @property
    def current(self) -> Registries | None:
        """What was read last, None if nothing was yet. Does not block."""
        return self._current

    def get(self) -> Registries:
        """What was read last; it is read now if nothing was yet. Blocking.

        Raises:
            ConfigurationError: See `Registries.load`. The next call tries again.
        """
        with self._lock:
            if self._current is None:
                self._current = Registries.load(self._paths)
            return self._current

    def reload(self) -> Registries:
        """Read the files again. Blocking.

        Raises:
            ConfigurationError: See `Registries.load`. What was read before stays in force.
        """
        with self._lock:
            self._current = Registries.load(self._paths)
            return self._current


def _choose(paths: ConfigurationPaths) -> tuple[Path | None, tuple[Path, ...]]:
    """The main file, None for none, and the directories of its drop-ins."""
    of_user, of_system = paths.of_user(_MAIN), paths.of_system(_MAIN)
    main = paths.registries or of_system
    directories = [paths.of_system(_DROP_INS), paths.of_user(_DROP_INS)]
    if paths.registries is None and of_user is not None and is_visible(of_user):
        main = of_user
        del directories[0]
    if paths.registries_directory is not None:
        directories = [paths.registries_directory]
    return main, tuple(directory for directory in directories if directory is not None)


def _list_drop_ins(directories: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(path for each in directories for path in list_documents(each, _SUFFIX))
