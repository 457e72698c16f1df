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
        registries_directory: The one directory of its drop-ins (rule CONF-02).
        certificates: The directory of certificates for every registry (rule TLS-01).
        certificates_root: A directory with one directory for each ``host[:port]``.
        lookaside: A registries.d (rule SIG-04).
        short_names: The file of aliases that other programs record (rule SHORT-01).
        root: The directory that contains ``etc`` and ``var``; None ignores both.
        home: The user's home directory, independent of `root`; None ignores files of the user.
        cache: The user's cache directory; None for none.
        superuser: Whether to use the paths of root instead of those of a user.
    """

    registries: Path | None = None
    registries_directory: Path | None = None
    certificates: Path | None = None
    certificates_root: Path | None = None
    lookaside: Path | None = None
    short_names: Path | None = None
    root: Path | None = None
    home: Path | None = None
    cache: Path | None = None
    superuser: bool = False

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
                ``XDG_CACHE_HOME``, ``CONTAINERS_REGISTRIES_CONF`` (becomes `registries`) and
                ``_CONTAINERS_ROOTLESS_UID`` are read.
            home: The home directory; None for ``HOME``.
            root: The directory that contains ``etc`` and ``var``.
            superuser: None asks the operating system.
        """
        home = home or find_absolute(environ, "HOME")
        cache = find_absolute(environ, "XDG_CACHE_HOME")
        named = environ.get("CONTAINERS_REGISTRIES_CONF")
        return cls(
            registries=Path(named) if named else None,
            root=root,
            home=home,
            cache=cache or (None if home is None else home / ".cache"),
            superuser=_is_superuser(environ) if superuser is None else superuser,
        )

    def user_path(self, name: str) -> Path | None:
        """The path of `name` in the user's configuration directory; None without `home`."""
        return None if self.home is None else self.home / ".config/containers" / name

    def system_path(self, name: str, vendor: str = "containers") -> Path | None:
        """The path of `name` in the configuration directory of the system; None without `root`."""
        return None if self.root is None else self.root / "etc" / vendor / name

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
        """The directory of signatures if none is configured (rule SIG-05)."""
        if self.superuser:
            return None if self.root is None else self.root / "var/lib" / _SIGNATURES
        return None if self.home is None else self.home / ".local/share" / _SIGNATURES


def find_absolute(environ: Mapping[str, str], name: str) -> Path | None:
    """The path in a variable; None if the variable is not set or the path is relative."""
    path = Path(environ.get(name, ""))
    return path if path.is_absolute() else None


def _is_superuser(environ: Mapping[str, str]) -> bool:
    """Whether this process runs as root, outside of the user namespace of another user."""
    outside = environ.get("_CONTAINERS_ROOTLESS_UID")
    return outside == "0" if outside else os.geteuid() == 0
