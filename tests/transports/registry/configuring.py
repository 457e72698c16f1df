"""A system to configure: one root and one home for each test, and options that read them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.hostconfig.machine import Machine
from tests.transports.registry.sessions import LIMITS, OPTIONS_HERE, watch

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from asupplemented.transports.registry.options import RegistryOptions
    from tests.transports.registry.sessions import Watched


@dataclass(frozen=True)
class Configured(Machine):
    """A machine whose files are read by the sessions that it gives."""

    @classmethod
    def make(cls, directory: Path) -> Configured:
        return cls(directory / "root", directory / "home")

    def write_registries(self, *tables: str) -> Path:
        """Write the system's registries.conf."""
        return self.write_system("containers/registries.conf", "\n".join(tables))

    def options(self, **limits: Any) -> RegistryOptions:
        """The usual options, with these files."""
        return replace(OPTIONS_HERE, configuration=self.paths, limits=replace(LIMITS, **limits))

    def watch(
        self, options: RegistryOptions | None = None, **settings: Any
    ) -> AbstractAsyncContextManager[Watched]:
        """A session that reads these files; without more, they decide about TLS."""
        settings = {"tls_verify": None, **settings}
        return watch(options=options or self.options(), **settings)


def table(
    prefix: str,
    *mirrors: str,
    location: str | None = None,
    insecure: bool = True,
    more: str = "",
) -> str:
    """A ``[[registry]]`` with mirrors, all of them insecure or none.

    Args:
        prefix: Of the table.
        mirrors: Locations, each with more lines about it if there are some.
        location: Of the registry itself; None for the prefix.
        insecure: Whether plain http will do.
        more: Lines about the registry itself.
    """
    flag = f"insecure = {str(insecure).lower()}"
    place = prefix if location is None else location
    lines = ["[[registry]]", f'prefix = "{prefix}"', f'location = "{place}"', flag, more]
    for mirror in mirrors:
        where, *rest = mirror.splitlines()
        lines += ["[[registry.mirror]]", f'location = "{where}"', flag, *rest]
    return "\n".join(lines)
