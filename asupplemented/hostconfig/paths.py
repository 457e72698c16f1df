"""Where configuration files are: where the caller says, or the defaults of podman and skopeo."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("ConfigurationPaths", "find_absolute")

_SHORT_NAMES: Final = "containers/short-name-aliases.conf"
_SIGNATURES: Final = "containers/sigstore"


@dataclass(frozen=True, slots=True)
class ConfigurationPaths:
    """Paths of configuration files. A value; nothing here reads the disk.

    A path that is given replaces its default. Without arguments there are no defaults either, so
    nothing is configured; `default` gives the paths that other programs on this host use.

    Attributes:
        registries: A registries.conf, which must exist (rule CONF-01).
        registries_alone: Whether the default drop-ins of `registries` are left out.
        registries_directory: The one directory of its drop-ins (rule CONF-02).
        registries_override: A file that is read after all drop-ins, and must exist. It is left
            out if `registries_directory` is given.
        certificates: The directory of certificates for every registry (rule TLS-01).
        certificates_root: A directory with one directory for each ``host[:port]``.
        lookaside: A registries.d (rule SIG-04).
        short_names: The file of aliases that other programs record (rule SHORT-01).
        root: The directory that contains ``etc``, ``usr`` and ``var``; None ignores all three.
        home: The user's home directory, independent of `root`; None ignores files of the user.
        config: The user's configuration directory; None for ``.config`` in `home`.
        cache: The user's cache directory; None for none.
        superuser: Whether to use the paths of root instead of those of a user.
        uid: The user whose rootless drop-ins are read; None for those of all users only.
    """

    registries: Path | None = None
    registries_alone: bool = False
    registries_directory: Path | None = None
    registries_override: Path | None = None
    certificates: Path | None = None
    certificates_root: Path | None = None
    lookaside: Path | None = None
    short_names: Path | None = None
    root: Path | None = None
    home: Path | None = None
    config: Path | None = None
    cache: Path | None = None
    superuser: bool = False
    uid: int | None = None

    @classmethod
    def default(
        cls,
        environ: Mapping[str, str],
        home: Path | None = None,
        *,
        root: Path = Path("/"),
        superuser: bool | None = None,
    ) -> ConfigurationPaths:
        """The paths that other programs on this host use.

        Args:
            environ: An environment like ``os.environ``. The variables ``HOME``,
                ``XDG_CONFIG_HOME``, ``XDG_CACHE_HOME``, ``CONTAINERS_REGISTRIES_CONF`` (becomes
                `registries`, without drop-ins), ``CONTAINERS_REGISTRIES_CONF_OVERRIDE`` and
                ``_CONTAINERS_ROOTLESS_UID`` are read.
            home: The home directory; None for ``HOME``.
            root: The directory that contains ``etc``, ``usr`` and ``var``.
            superuser: None for whether the user is root outside of a user namespace.
        """
        home = home or find_absolute(environ, "HOME")
        cache = find_absolute(environ, "XDG_CACHE_HOME")
        named = environ.get("CONTAINERS_REGISTRIES_CONF")
        override = environ.get("CONTAINERS_REGISTRIES_CONF_OVERRIDE")
        uid = _find_uid(environ)
        return cls(
            registries=Path(named) if named else None,
            registries_alone=bool(named),
            registries_override=Path(override) if override else None,
            root=root,
            home=home,
            config=find_absolute(environ, "XDG_CONFIG_HOME"),
            cache=cache or (None if home is None else home / ".cache"),
            superuser=uid == 0 if superuser is None else superuser,
            uid=uid,
        )

    def user_path(self, name: str) -> Path | None:
        """The path of `name` in the user's directory for containers; None without one."""
        config = self.config or (None if self.home is None else self.home / ".config")
        return None if config is None else config / "containers" / name

    def system_path(self, name: str, vendor: str = "containers") -> Path | None:
        """The path of `name` in the directory of `vendor` below ``/etc``; None without `root`."""
        return None if self.root is None else self.root / "etc" / vendor / name

    def shipped_path(self, name: str) -> Path | None:
        """The path of `name` where the distribution ships its defaults; None without `root`."""
        return None if self.root is None else self.root / "usr/share/containers" / name

    def drop_in_directories(self, name: str) -> tuple[Path, ...]:
        """The directories of drop-ins, the lowest precedence first (rule CONF-02).

        Args:
            name: The main file, or its name without a suffix: ``registries.conf`` has the
                directory ``registries.conf.d`` and, for root, ``registries.rootful.conf.d``.
        """
        stem, dot, suffix = name.partition(".")
        special = f"{stem}.{'rootful' if self.superuser else 'rootless'}{dot}{suffix}.d"
        names = [f"{name}.d", special]
        if self.uid is not None and not self.superuser:
            names.append(f"{special}/{self.uid}")
        found = [*map(self.shipped_path, names), *map(self.system_path, names)]
        return tuple(path for path in (*found, self.user_path(f"{name}.d")) if path is not None)

    @property
    def recorded_short_names(self) -> Path | None:
        """The file of recorded aliases; None for none (rule SHORT-01)."""
        if self.short_names is not None:
            return self.short_names
        if self.superuser:
            return None if self.root is None else self.root / "var/cache" / _SHORT_NAMES
        return None if self.cache is None else self.cache / _SHORT_NAMES

    @property
    def signatures(self) -> Path | None:
        """The directory of signatures if none is configured; None without one (rule SIG-05)."""
        if self.superuser:
            return None if self.root is None else self.root / "var/lib" / _SIGNATURES
        return None if self.home is None else self.home / ".local/share" / _SIGNATURES


def find_absolute(environ: Mapping[str, str], name: str) -> Path | None:
    """The path in a variable; None if the variable is not set or the path is relative."""
    path = Path(environ.get(name, ""))
    return path if path.is_absolute() else None


def _find_uid(environ: Mapping[str, str]) -> int:
    """The user; within a user namespace of podman, the one who made it."""
    outside = environ.get("_CONTAINERS_ROOTLESS_UID", "")
    return int(outside) if outside.isascii() and outside.isdigit() else os.geteuid()
