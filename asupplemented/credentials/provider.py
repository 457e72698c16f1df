"""A credential provider that combines auth files and helpers (rules FILE-11, FILE-12)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from asupplemented.credentials.auth_files import AuthFiles
from asupplemented.credentials.helpers import CredentialHelpers, check_suffix
from asupplemented.errors import SupplementedError
from asupplemented.model.credential import AUTH_FILES, check_lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from os import PathLike

    from asupplemented.aio.retry import Clock
    from asupplemented.credentials.auth_files import AuthFile
    from asupplemented.credentials.helpers import HelperLimits
    from asupplemented.model.credential import Credential

__all__ = ("AuthFileCredentials",)

MAX_WARNINGS: Final = 64
"""Distinct warnings that are passed on; later ones are dropped."""


class AuthFileCredentials:
    """Credentials from auth files and helpers; give it to ``Session(credentials=...)``.

    Each lookup reads the files again, so a new login takes effect at once; the answers of helpers
    are cached for some minutes. Helpers are asked in order, with the files as one of them, and the
    first credential that is found is used. The files are searched in order, too, but a file that
    is malformed ends their search (rule FILE-05).

    There is nothing to close. All sessions of one event loop may share it.

    Args:
        files: The files to search: the path of an auth.json, which is then the only file, or
            `AuthFiles`. None for `AuthFiles.default` of `environ`, which ignores
            ``REGISTRY_AUTH_FILE``: programs pass `default_auth_file` (rule FILE-04).
        helpers: The helpers to ask, in this order: the ``NAME`` of ``docker-credential-NAME``,
            or `AUTH_FILES` for the files. It is ``credential-helpers`` of registries.conf.
        docker: Read files as docker does: with ``credsStore``, user names and passwords in plain
            text, and tokens without a password (rule FILE-06).
        environ: The environment of the helpers, and of `AuthFiles.default`; None for that of
            this process.
        warn: Called once with each warning for the operator; None drops them.
        limits: Limits of the helpers.
        clock: Gives the time.

    Raises:
        ConfigurationError: The name of a helper is malformed.
    """

    def __init__(
        self,
        files: AuthFiles | str | PathLike[str] | None = None,
        *,
        helpers: Iterable[str] = (AUTH_FILES,),
        docker: bool = False,
        environ: Mapping[str, str] | None = None,
        warn: Callable[[str], object] | None = None,
        limits: HelperLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        if files is None:
            files = AuthFiles.default(os.environ if environ is None else environ)
        self._files = files if isinstance(files, AuthFiles) else AuthFiles.explicit(files)
        self._helpers = tuple(
            name if name == AUTH_FILES else check_suffix(name) for name in helpers
        )
        self._docker = docker
        self._warn = warn
        self._warned: set[str] = set()
        self._credential_helpers = CredentialHelpers(environ=environ, limits=limits, clock=clock)

    @property
    def files(self) -> AuthFiles:
        """The files that are searched."""
        return self._files

    async def __call__(self, name: str, /) -> Credential | None:
        """Look a credential up.

        Args:
            name: A repository (``host[:port]/path``), a namespace above it, or a registry.

        Returns:
            None if neither a file nor a helper has a credential, and none of them failed.

        Raises:
            ConfigurationError: The name cannot have a credential (rule FILE-10), or a file is
                malformed, or a helper cannot be run.
            SourceError: A helper failed or was too slow.
            LimitExceededError: A helper printed too much.
        """
        registry = check_lookup(name).partition("/")[0]
        failures: list[SupplementedError] = []
        for helper in self._helpers:
            try:
                if helper == AUTH_FILES:
                    found = await self._search_files(name)
                else:
                    found = await self._credential_helpers.get(helper, registry)
            except SupplementedError as error:
                failures.append(error)
                continue
            if found is not None:
                return found
        if failures:
            raise _join(failures)
        return None

    def __repr__(self) -> str:
        places = ", ".join(str(file.path) for file in self._files.files)
        return f"<AuthFileCredentials from {places or 'no file'}>"

    async def _search_files(self, name: str) -> Credential | None:
        """Search the files in order; an error of one ends the search."""
        for file in self._files.files:
            found = await self._search_file(file, name)
            if found is not None:
                return found
        return None

    async def _search_file(self, file: AuthFile, name: str) -> Credential | None:
        finding = await file.find(name, docker=self._docker)
        if finding.warning is not None:
            self._warn_once(finding.warning)
        if finding.helper is None:
            return finding.credential
        try:
            known = await self._credential_helpers.get(*finding.helper)
        except SupplementedError as error:
            error.add_note(f"{file.path} names this helper")
            raise
        return finding.credential if known is None else known

    def _warn_once(self, warning: str) -> None:
        if self._warn is None or warning in self._warned or len(self._warned) >= MAX_WARNINGS:
            return
        self._warned.add(warning)
        self._warn(warning)


def _join(failures: list[SupplementedError]) -> SupplementedError:
    """The first failure, with the later ones as notes."""
    first, *others = failures
    for other in others:
        first.add_note(f"another source of credentials failed, too: {other}")
    return first
