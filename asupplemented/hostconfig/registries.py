"""registries.conf: where images are, and under which conditions (rules CONF-01 to CONF-21)."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from asupplemented.errors import ConfigurationError
from asupplemented.hostconfig.candidates import (
    Candidate,
    list_candidates,
    match_prefix,
)
from asupplemented.hostconfig.documents import (
    is_visible,
    list_documents,
    read_document,
)
from asupplemented.hostconfig.registries_conf import parse_fragment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from asupplemented.hostconfig.paths import ConfigurationPaths
    from asupplemented.hostconfig.tables import (
        Fragment,
        Registry,
        ShortNameMode,
    )
    from asupplemented.model.name import ImageName

__all__ = ("AUTH_FILES", "Registries", "RegistriesCache")

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
