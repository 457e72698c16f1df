"""Who the command line is to registries: whoever is logged in on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asupplemented.abc import Context, CredentialProvider
    from asupplemented.model.credential import Credential

__all__ = ("Login",)


class Login:
    """Looks up credentials where people log in. Nothing is read before a registry is asked.

    Args:
        authfile: The one file to read, None for those that programs usually read.
        warn: Told of what the operator should know.
    """

    def __init__(self, authfile: Path | None, warn: Callable[[str], None]) -> None:
        self._authfile = authfile
        self._warn = warn
        self._provider: CredentialProvider | None = None
        self.context: Context | None = None
        """The session that asks; its configuration names the helpers (rule FILE-12)."""

    async def __call__(self, name: str, /) -> Credential | None:
        if self._provider is None:
            self._provider = await self._prepare()
        return await self._provider(name)

    async def _prepare(self) -> CredentialProvider:
        from asupplemented.credentials import (
            AuthFileCredentials,
            default_auth_file,
        )
        from asupplemented.hostconfig import Registries
        from asupplemented.transports.registry.host_config import System

        registries = Registries()
        if self.context is not None:
            registries = await System.of(self.context).load_registries(self._warn)
        return AuthFileCredentials(
            self._authfile or default_auth_file(),
            helpers=registries.credential_helpers,
            docker=True,
            warn=self._warn,
        )
