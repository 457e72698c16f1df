"""A credential provider that combines auth files and helpers (rules FILE-11, FILE-12)."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asupplemented.credentials.auth_files import AuthFiles
from asupplemented.credentials.auth_json import HelperCall
from asupplemented.credentials.helpers import CredentialHelpers, check_suffix
from asupplemented.errors import ConfigurationError, SupplementedError
from asupplemented.model.credential import AUTH_FILES, Credential, check_lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from os import PathLike

    from asupplemented.aio.retry import Clock
    from asupplemented.credentials.helpers import HelperLimits

__all__ = ("AuthFileCredentials",)

MAX_WARNINGS: Final = 64
"""Distinct warnings that are passed on; later ones are dropped."""


class AuthFileCredentials:
    """Credentials from auth files and helpers; give it to ``Session(credentials=...)``.

    A helper that is missing or fails is a warning, and the search goes on without it: the
    credential that is found, or anonymous access, tells of it in its `Credential.trouble`.

    Each lookup reads the files again, so a new login takes effect at once; the answers of helpers
    are cached for some minutes. Helpers are asked in order, with the files as one of them, and the
    first credential that is found is used. The files are searched in order, too, but a file that
    is malformed ends their search and is an error if no helper has a credential (rule FILE-05).

    There is nothing to close. All sessions of one event loop may share it.

    Args:
        files: The files to search: the path of an auth.json, which is then the only file, or
            `AuthFiles`. None for `AuthFiles.default` of `environ`, which ignores
            ``REGISTRY_AUTH_FILE``: programs pass `AuthFiles.of_environment` (rule FILE-04).
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
            None if neither a file nor a helper has a credential, and no helper failed.

        Raises:
            ConfigurationError: The name cannot have a credential (rule FILE-10), or a file is
                malformed and no helper has a credential.
        """
        registry = check_lookup(name).partition("/")[0]
        failure: ConfigurationError | None = None
        troubles: list[str] = []
        for helper in self._helpers:
            if helper != AUTH_FILES:
                call = HelperCall(helper, registry)
                found = await self._ask(call, "credential-helpers in registries.conf", troubles)
            else:
                try:
                    found = await self._search_files(name, troubles)
                except ConfigurationError as error:
                    failure = error
                    continue
            if found is not None:
                return replace(found, trouble="; ".join(troubles)) if troubles else found
        if failure is not None:
            for trouble in troubles:
                failure.add_note(trouble)
            raise failure
        return Credential(trouble="; ".join(troubles)) if troubles else None

    def __repr__(self) -> str:
        places = ", ".join(map(str, self._files.files))
        return f"<AuthFileCredentials from {places or 'no file'}>"

    async def _search_files(self, name: str, troubles: list[str]) -> Credential | None:
        """Search the files in order; an error of one ends the search."""
        for file in self._files.files:
            finding = await file.find(name, docker=self._docker)
            if finding.warning is not None:
                self._warn_once(finding.warning)
            found = finding.credential
            if finding.helper is not None:
                found = await self._ask(finding.helper, str(file), troubles) or found
            if found is not None:
                return found
        return None

    async def _ask(self, call: HelperCall, origin: str, troubles: list[str]) -> Credential | None:
        """Ask a helper. If that fails, it has no credential, and `troubles` says why."""
        try:
            return await self._credential_helpers.get(*call)
        except SupplementedError as error:
            troubles.append(f"{error.message} (named by {origin})")
            return None

    def _warn_once(self, warning: str) -> None:
        if self._warn is None or warning in self._warned or len(self._warned) >= MAX_WARNINGS:
            return
        self._warned.add(warning)
        self._warn(warning)
