"""Tables: the values of a registries.conf, once they are checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented.hostconfig.aliases import Aliases

__all__ = ("WILDCARD", "Fragment", "Mirror", "Pulls", "Registry", "ShortNameMode")

Pulls: TypeAlias = Literal["all", "digest-only", "tag-only"]
"""Which pulls a mirror serves."""

ShortNameMode: TypeAlias = Literal["permissive", "enforcing", "disabled"]
"""What to do with a short name that several registries may hold."""

WILDCARD: Final = "*."
"""What a prefix begins with that stands for all hosts below one."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """A place to ask before the registry itself.

    Attributes:
        location: What stands in place of the prefix.
        insecure: Plain http and unverified TLS are allowed.
        pulls: Which pulls it serves.
        tells_registry: Its requests say which registry it stands in for (rule CONF-20).
        proxy: The URL of the proxy that leads there, None for that of the environment.
    """

    location: str
    insecure: bool = False
    pulls: Pulls = "all"
    tells_registry: bool = False
    proxy: str | None = field(default=None, repr=False)

    def serves(self, *, by_digest: bool) -> bool:
        """Whether it is asked for a pull of this kind (rule CONF-13)."""
        return self.pulls == "all" or (self.pulls == "digest-only") == by_digest


@dataclass(frozen=True, slots=True)
class Registry:
    """One ``[[registry]]``: what is true of the names that begin with a prefix.

    Attributes:
        prefix: ``host[:port][/path]``, or ``*.host`` for the hosts below one.
        location: What stands in place of the prefix; None where names stay as they are.
        insecure: Plain http and unverified TLS are allowed.
        blocked: Nothing is read from there.
        mirrors: In the order in which they are asked.
        proxy: The URL of the proxy that leads there, None for that of the environment.
        origin: The file that says so.
    """

    prefix: str
    location: str | None
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()
    proxy: str | None = field(default=None, repr=False)
    origin: Path | None = None

    @property
    def place(self) -> str:
        """What the security settings are about; tables that share it must agree."""
        return self.prefix if self.location is None else self.location


class Fragment(NamedTuple):
    """What one file says; None is what it leaves to the others."""

    registries: tuple[Registry, ...]
    """Each prefix once."""
    search: tuple[str, ...] | None
    helpers: tuple[str, ...] | None
    mode: ShortNameMode | None
    aliases: Aliases
    remarks: tuple[str, ...]
    """What is odd, and does no harm."""
