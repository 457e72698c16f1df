"""Where the files are: named by the caller, or where systems keep them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("ConfigurationPaths",)

_SHORT_NAMES: Final = "containers/short-name-aliases.conf"
_SIGNATURES: Final = "containers/sigstore"


@dataclass(frozen=True, slots=True)
class ConfigurationPaths:
    """Paths of configuration files. A value; nothing is looked up on disk here.

    A path that is given is used alone, and its default is not looked at. Without any argument
    there are no defaults either, and nothing is configured; `default` gives what other programs
    on the machine use.

    Attributes:
        registries: A registries.conf, which must exist (rule CONF-01).
        registries_directory: The one directory of its drop-ins (rule CONF-02).
        certificates: The directory of certificates for every registry (rule TLS-01).
        certificates_root: A directory with one directory for each ``host[:port]``.
        lookaside: A registries.d (rule SIG-04).
        short_names: The aliases that other programs have recorded (rule SHORT-01).
        root: The directory in which ``/etc`` and ``/var`` are looked for; None for nowhere.
        home: The user's home directory, which `root` does not move; None for nobody's.
        cache: The user's directory for caches; None for none.
        superuser: Whether files are where root keeps them, rather than a user.
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
        """The paths that other programs use.

        Args:
            environ: Such as ``os.environ``. Read are ``HOME``, ``XDG_CACHE_HOME``,
                ``CONTAINERS_REGISTRIES_CONF`` (a path, as `registries`), and the variable by
                which tools for rootless containers say whose root they are.
            home: The home directory; None for that of the environment.
            root: Put before ``/etc`` and ``/var``.
            superuser: None asks the operating system who we are.
        """
        home = home or _absolute(environ, "HOME")
        cache = _absolute(environ, "XDG_CACHE_HOME")
        named = environ.get("CONTAINERS_REGISTRIES_CONF")
        return cls(
            registries=Path(named) if named else None,
            root=root,
            home=home,
            cache=cache or (None if home is None else home / ".cache"),
            superuser=_is_superuser(environ) if superuser is None else superuser,
        )

    def of_user(self, name: str) -> Path | None:
        """Where the user configures `name`, None if there is no user."""
        return None if self.home is None else self.home / ".config/containers" / name

    def of_system(self, name: str, vendor: str = "containers") -> Path | None:
        """Where the system configures `name`, None if the system does not count."""
        return None if self.root is None else self.root / "etc" / vendor / name

    @property
    def recorded_short_names(self) -> Path | None:
        """The file of recorded aliases, None if there is none (rule SHORT-01)."""
        if self.short_names is not None:
            return self.short_names
        if self.superuser:
            return None if self.root is None else self.root / "var/cache" / _SHORT_NAMES
        return None if self.cache is None else self.cache / _SHORT_NAMES

    @property
    def signatures(self) -> Path | None:
        """The directory of signatures where none is configured (rule SIG-05)."""
        if self.superuser:
            return None if self.root is None else self.root / "var/lib" / _SIGNATURES
        return None if self.home is None else self.home / ".local/share" / _SIGNATURES


def _absolute(environ: Mapping[str, str], name: str) -> Path | None:
    """A path of the environment; one that is relative means nothing there."""
    path = Path(environ.get(name, ""))
    return path if path.is_absolute() else None


def _is_superuser(environ: Mapping[str, str]) -> bool:
    """Whether we are root, and not a user who only appears as such within a namespace."""
    outside = environ.get("_CONTAINERS_ROOTLESS_UID")
    return outside == "0" if outside else os.geteuid() == 0
