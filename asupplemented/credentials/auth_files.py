"""Credential files: where they are, in which order they count, and reading them.

The formats of podman and skopeo (auth.json), of docker (config.json), and of docker as it was
(.dockercfg). What is read from disk blocks, and is called in a worker thread.
"""

from __future__ import annotations

import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asupplemented.aio.files import read_limited
from asupplemented.credentials.auth_json import Finding, parse_auth_file, search
from asupplemented.errors import ConfigurationError, NotFoundError, SupplementedError
from asupplemented.limits import MAX_AUTH_FILE
from asupplemented.model.credential import check_lookup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike

__all__ = ("AuthFile", "AuthFiles", "default_auth_file")


@dataclass(frozen=True, slots=True)
class AuthFile:
    """One credential file. A value; it is read each time somebody looks something up.

    Attributes:
        path: Where it is; if nothing is there, it knows nothing.
        legacy: It is a .dockercfg, which knows registries only (rule FILE-09).
        within: A directory that should exist; without it there is a warning (rule FILE-03).
    """

    path: Path
    legacy: bool = False
    within: Path | None = None

    def find(self, name: str, *, docker: bool = False) -> Finding:
        """Look something up. Blocking.

        Args:
            name: A registry, a repository in it, or a namespace between the two.
            docker: Take what only docker knows, see `search`.

        Raises:
            ConfigurationError: The name can have no credential (rule FILE-10), or the file
                cannot be read, is empty or broken, or is larger than ``MAX_AUTH_FILE``.
        """
        check_lookup(name)
        if self.within is not None and _is_missing(self.within):
            return Finding(warning=_explain_missing(self.within))
        raw = self._read()
        if raw is None:
            return Finding()
        place = str(self.path)
        document = parse_auth_file(raw, place, legacy=self.legacy)
        return search(document, name, place, legacy=self.legacy, docker=docker)

    def _read(self) -> bytes | None:
        try:
            return read_limited(self.path, MAX_AUTH_FILE)
        except NotFoundError:
            return None
        except SupplementedError as error:
            message = f"a credential file cannot be used: {error.message}"
            raise ConfigurationError(message) from error


@dataclass(frozen=True, slots=True)
class AuthFiles:
    """The files in which credentials are looked for, the first one that knows any counting.

    Attributes:
        files: In this order (rule FILE-01).
    """

    files: tuple[AuthFile, ...] = ()

    @classmethod
    def explicit(
        cls,
        auth_file: str | PathLike[str] | None = None,
        *,
        docker_compat: str | PathLike[str] | None = None,
        legacy: str | PathLike[str] | None = None,
    ) -> AuthFiles:
        """One file and no other (rule FILE-01).

        Args:
            auth_file: An auth.json.
            docker_compat: A config.json; it is read like the other one.
            legacy: A .dockercfg.

        Raises:
            ConfigurationError: It is not exactly one (rule FILE-02).
        """
        given = [path for path in (auth_file, docker_compat, legacy) if path is not None]
        if len(given) != 1:
            message = (
                "give exactly one of auth_file, docker_compat and legacy: it is the only file"
                f" that will be read, and {len(given)} were given"
            )
            raise ConfigurationError(message)
        return cls((AuthFile(Path(given[0]), legacy=legacy is not None),))

    @classmethod
    def default(
        cls,
        environ: Mapping[str, str],
        home: Path | None = None,
        *,
        root: Path | None = None,
        uid: int | None = None,
        platform: str = sys.platform,
    ) -> AuthFiles:
        """The files that podman, skopeo and docker use, in the order of the first two (FILE-01).

        ``REGISTRY_AUTH_FILE`` is not among what is read: see `default_auth_file`.

        Args:
            environ: Such as ``os.environ``. Read are ``HOME``, ``XDG_RUNTIME_DIR``,
                ``XDG_CONFIG_HOME`` and ``DOCKER_CONFIG``.
            home: The home directory; None for that of the environment, else of the user.
            root: Put before ``/run``, which is then used whatever ``XDG_RUNTIME_DIR`` says.
            uid: The user; None for that of this process.
            platform: As `sys.platform`.
        """
        uid = os.getuid() if uid is None else uid
        home = home or _absolute(environ, "HOME") or _home_of(uid)
        usual = tuple(_locate_usual(environ, home))
        if platform == "linux":
            usual = (_locate_runtime(environ, root, uid), *usual)
        elif home is not None:
            usual = (AuthFile(home / ".config/containers/auth.json"), *usual)
        return cls(tuple(dict.fromkeys(usual)))


def default_auth_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """The one credential file that an environment names, as podman and skopeo see it (FILE-04).

    The library looks at none of these variables by itself.

    Args:
        environ: None for that of this process.

    Returns:
        ``$REGISTRY_AUTH_FILE``, else config.json in ``$DOCKER_CONFIG``; it is then the only
        one. None if neither is set: `AuthFiles.default` tells where to look.
    """
    environ = os.environ if environ is None else environ
    named, directory = environ.get("REGISTRY_AUTH_FILE"), environ.get("DOCKER_CONFIG")
    if named:
        return Path(named)
    return Path(directory, "config.json") if directory else None


def _locate_runtime(environ: Mapping[str, str], root: Path | None, uid: int) -> AuthFile:
    """The file that is gone after a restart, which logging in writes to."""
    directory = _absolute(environ, "XDG_RUNTIME_DIR")
    if root is None and directory is not None:
        return AuthFile(directory / "containers/auth.json", within=directory)
    return AuthFile((root or Path("/")) / "run/containers" / str(uid) / "auth.json")


def _locate_usual(environ: Mapping[str, str], home: Path | None) -> Iterator[AuthFile]:
    """The files that stay."""
    settings = _absolute(environ, "XDG_CONFIG_HOME") or (home and home / ".config")
    named = environ.get("DOCKER_CONFIG")
    docker = Path(named) if named else (home and home / ".docker")
    if settings is not None:
        yield AuthFile(settings / "containers/auth.json")
    if docker is not None:
        yield AuthFile(docker / "config.json")
    if home is not None:
        yield AuthFile(home / ".dockercfg", legacy=True)


def _absolute(environ: Mapping[str, str], name: str) -> Path | None:
    """A path of the environment; one that is relative means nothing there."""
    path = Path(environ.get(name, ""))
    return path if path.is_absolute() else None


def _home_of(uid: int) -> Path | None:
    try:
        return Path(pwd.getpwuid(uid).pw_dir)
    except KeyError:
        return None


def _is_missing(directory: Path) -> bool:
    """Whether it is certain that there is no such thing; any other fault shows on reading."""
    try:
        directory.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _explain_missing(directory: Path) -> str:
    return (
        f"there is no directory {directory}, which XDG_RUNTIME_DIR names; create it, or unset the"
        " variable: credentials are looked for elsewhere meanwhile"
    )
