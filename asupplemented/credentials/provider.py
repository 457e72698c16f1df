"""Looking credentials up where podman, skopeo and docker keep them (rules FILE-11, FILE-12)."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio.to_thread

from asupplemented.credentials.auth_files import AuthFiles
from asupplemented.credentials.helpers import CredentialHelpers, check_suffix
from asupplemented.errors import SupplementedError
from asupplemented.model.credential import check_lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from os import PathLike

    from asupplemented.aio.retry import Clock
    from asupplemented.credentials.auth_files import AuthFile
    from asupplemented.credentials.helpers import HelperLimits
    from asupplemented.model.credential import Credential

__all__ = ("AUTH_FILES", "AuthFileCredentials")

AUTH_FILES: Final = "containers-auth.json"
"""In a list of helpers, this is no program but the credential files (rule FILE-12)."""

MAX_WARNINGS: Final = 64
"""Distinct warnings that are passed on; the rest is dropped."""


class AuthFileCredentials:
    """Credentials from files and helpers; give it to ``Session(credentials=...)``.

    Each lookup reads the files anew, in a worker thread, and so sees who logged in meanwhile;
    what a helper said is good for some minutes. Helpers are asked in order, the files being one
    of them, and the first one that knows a credential has the word. The files are asked in order
    likewise, but one that cannot be used ends their search (rule FILE-05).

    It holds nothing that must be closed, and may serve all sessions of one event loop.

    Args:
        files: Where to look: the path of an auth.json, which is then the only file, or what
            `AuthFiles` describes. None is `AuthFiles.default` for `environ`; as that does not
            look at ``REGISTRY_AUTH_FILE``, programs give `default_auth_file` (rule FILE-04).
        helpers: Which helpers to ask, in this order: the ``NAME`` of ``docker-credential-NAME``,
            or `AUTH_FILES` for the files. registries.conf calls that ``credential-helpers``.
        docker: Read files as docker does: with ``credsStore``, user names and passwords in the
            open, and tokens that stand alone (rule FILE-06).
        environ: The environment of the helpers, and of `AuthFiles.default`; None for that of
            this process.
        warn: Told, once each, of what the operator should know. None for nobody.
        limits: How much to bear from a helper.
        clock: Where time comes from.

    Raises:
        ConfigurationError: A helper cannot have this name.
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
        self._programs = CredentialHelpers(environ=environ, limits=limits, clock=clock)

    @property
    def files(self) -> AuthFiles:
        """Where credentials are looked for."""
        return self._files

    async def __call__(self, name: str, /) -> Credential | None:
        """Look a credential up.

        Args:
            name: A repository (``host[:port]/path``), a namespace above it, or a registry.

        Returns:
            None if nobody knows any, and nobody failed.

        Raises:
            ConfigurationError: The name can have no credential (rule FILE-10); or a file or a
                helper cannot be used.
            SourceError: A helper failed or was too slow.
            LimitExceededError: A helper printed too much.
        """
        registry = check_lookup(name).partition("/")[0]
        failures: list[SupplementedError] = []
        for helper in self._helpers:
            try:
                if helper == AUTH_FILES:
                    found = await self._search(name)
                else:
                    found = await self._programs.get(helper, registry)
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

    async def _search(self, name: str) -> Credential | None:
        """What the files say; the first one that cannot be used ends it."""
        for file in self._files.files:
            found = await self._look_into(file, name)
            if found is not None:
                return found
        return None

    async def _look_into(self, file: AuthFile, name: str) -> Credential | None:
        look = partial(file.find, name, docker=self._docker)
        finding = await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
        if finding.warning is not None:
            self._pass_on(finding.warning)
        if finding.helper is None:
            return finding.credential
        try:
            known = await self._programs.get(*finding.helper)
        except SupplementedError as error:
            error.add_note(f"{file.path} names this helper")
            raise
        return finding.credential if known is None else known

    def _pass_on(self, warning: str) -> None:
        if self._warn is None or warning in self._warned or len(self._warned) >= MAX_WARNINGS:
            return
        self._warned.add(warning)
        self._warn(warning)


def _join(failures: list[SupplementedError]) -> SupplementedError:
    """The first failure, with those that came after it in its notes."""
    first, *others = failures
    for other in others:
        first.add_note(f"another place for credentials failed, too: {other}")
    return first
