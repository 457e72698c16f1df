"""Auth files: where they are, in which order they are searched, and reading them.

The formats are auth.json of podman and skopeo, config.json of docker, and .dockercfg of old
docker versions.
"""

from __future__ import annotations

import errno
import os
import pwd
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import aiofiles.os
import anyio.to_thread

from asupplemented.aio.async_files import read_file
from asupplemented.credentials.auth_json import LookupResult, find_credential, parse_auth_file
from asupplemented.errors import ConfigurationError, NotFoundError, SupplementedError
from asupplemented.hostconfig.paths import find_absolute
from asupplemented.limits import MAX_AUTH_FILE, OFFLOAD_BYTES
from asupplemented.model.credential import check_lookup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike

__all__ = ("AuthFile", "AuthFiles", "default_auth_file")


@dataclass(frozen=True, slots=True)
class AuthFile:
    """One auth file. A value; each lookup reads the file again.

    Attributes:
        path: Where it is. A file that does not exist holds no credentials.
        legacy: It is a .dockercfg, which holds credentials of registries only (rule FILE-09).
        within: A directory that should exist. If it does not, there is a warning (rule FILE-03).
    """

    path: Path
    legacy: bool = False
    within: Path | None = None

    async def find(self, name: str, *, docker: bool = False) -> LookupResult:
        """Read the file and look a credential up.

        Args:
            name: A registry, a repository in it, or a namespace between the two.
            docker: Read fields that only docker reads, see `find_credential`.

        Raises:
            ConfigurationError: The name cannot have a credential (rule FILE-10), or the file
                cannot be read, is empty or malformed, or is larger than ``MAX_AUTH_FILE``.
        """
        check_lookup(name)
        if self.within is not None and await _is_missing(self.within):
            return LookupResult(warning=_explain_missing(self.within))
        raw = await self._read()
        if raw is None:
            return LookupResult()
        search = partial(self._search, raw, name, docker=docker)
        if len(raw) <= OFFLOAD_BYTES:
            return search()
        return await anyio.to_thread.run_sync(search, abandon_on_cancel=True)

    async def _read(self) -> bytes | None:
        try:
            return await read_file(self.path, MAX_AUTH_FILE)
        except NotFoundError:
            return None
        except SupplementedError as error:
            message = f"an auth file cannot be read: {error.message}"
            raise ConfigurationError(message) from error

    def _search(self, raw: bytes, name: str, *, docker: bool) -> LookupResult:
        place = str(self.path)
        document = parse_auth_file(raw, place, legacy=self.legacy)
        return find_credential(document, name, place, legacy=self.legacy, docker=docker)


@dataclass(frozen=True, slots=True)
class AuthFiles:
    """The auth files that are searched; the first one that holds a credential is used.

    Attributes:
        files: In the order of the search (rule FILE-01).
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
        """Search one file only (rule FILE-01).

        Args:
            auth_file: An auth.json.
            docker_compat: A config.json, which is read like an auth.json.
            legacy: A .dockercfg.

        Raises:
            ConfigurationError: None or several are given (rule FILE-02).
        """
        given = [path for path in (auth_file, docker_compat, legacy) if path is not None]
        if len(given) != 1:
            message = (
                "give exactly one of auth_file, docker_compat and legacy, the only file to search:"
                f" {len(given)} were given"
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

        ``REGISTRY_AUTH_FILE`` is ignored here: see `default_auth_file`.

        Args:
            environ: An environment like ``os.environ``. The variables ``HOME``,
                ``XDG_RUNTIME_DIR``, ``XDG_CONFIG_HOME`` and ``DOCKER_CONFIG`` are read.
            home: The home directory; None for ``HOME``, else that of the user.
            root: A prefix of ``/run``, which is then used instead of ``XDG_RUNTIME_DIR``.
            uid: The user; None for that of this process.
            platform: A value of `sys.platform`.
        """
        uid = os.getuid() if uid is None else uid
        home = home or find_absolute(environ, "HOME") or _home_of(uid)
        persistent = tuple(_locate_persistent(environ, home))
        if platform == "linux":
            persistent = (_locate_runtime(environ, root, uid), *persistent)
        elif home is not None:
            persistent = (AuthFile(home / ".config/containers/auth.json"), *persistent)
        return cls(tuple(dict.fromkeys(persistent)))


def default_auth_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """The one auth file that an environment names, as for podman and skopeo (FILE-04).

    The library does not read these variables by itself.

    Args:
        environ: An environment like ``os.environ``; None for that of this process.

    Returns:
        ``$REGISTRY_AUTH_FILE``, else config.json in ``$DOCKER_CONFIG``: the only file to search.
        None if neither is set: then `AuthFiles.default` gives the files.
    """
    environ = os.environ if environ is None else environ
    named, directory = environ.get("REGISTRY_AUTH_FILE"), environ.get("DOCKER_CONFIG")
    if named:
        return Path(named)
    return Path(directory, "config.json") if directory else None


def _locate_runtime(environ: Mapping[str, str], root: Path | None, uid: int) -> AuthFile:
    """The file that ``podman login`` writes, in a directory that a restart empties."""
    directory = find_absolute(environ, "XDG_RUNTIME_DIR")
    if root is None and directory is not None:
        return AuthFile(directory / "containers/auth.json", within=directory)
    return AuthFile((root or Path("/")) / "run/containers" / str(uid) / "auth.json")


def _locate_persistent(environ: Mapping[str, str], home: Path | None) -> Iterator[AuthFile]:
    """The files that outlive a restart."""
    settings = find_absolute(environ, "XDG_CONFIG_HOME") or (home and home / ".config")
    named = environ.get("DOCKER_CONFIG")
    docker = Path(named) if named else (home and home / ".docker")
    if settings is not None:
        yield AuthFile(settings / "containers/auth.json")
    if docker is not None:
        yield AuthFile(docker / "config.json")
    if home is not None:
        yield AuthFile(home / ".dockercfg", legacy=True)


def _home_of(uid: int) -> Path | None:
    try:
        return Path(pwd.getpwuid(uid).pw_dir)
    except KeyError:
        return None


async def _is_missing(directory: Path) -> bool:
    """Whether a directory does not exist. Any other error will occur on reading, too."""
    try:
        await aiofiles.os.stat(directory)
    except OSError as error:
        return error.errno == errno.ENOENT
    return False


def _explain_missing(directory: Path) -> str:
    return (
        f"there is no directory {directory}, which XDG_RUNTIME_DIR names; create it or unset the"
        " variable; meanwhile the other auth files are searched"
    )
