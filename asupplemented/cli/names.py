"""What this machine says about registries, and the names that people type without a transport."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from asupplemented.abc import Opening
from asupplemented.errors import ConfigurationError, SupplementedError, UsageError
from asupplemented.transports import is_transport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from asupplemented.abc import Context, Reference, Source
    from asupplemented.model.digest import Digest
    from asupplemented.transports.registry import (
        ConfigurationPaths,
        RegistryOptions,
        RegistryReference,
    )

__all__ = ("FilesNamed", "FirstOf", "find_named", "find_options", "find_paths")

T = TypeVar("T")


class FilesNamed(Protocol):
    """The files that a command was told to read in place of those of the machine."""

    @property
    def registries_conf(self) -> Path | None: ...

    @property
    def registries_conf_dir(self) -> Path | None: ...

    @property
    def cert_dir(self) -> Path | None: ...

    @property
    def registries_d(self) -> Path | None: ...


def find_paths(named: FilesNamed) -> ConfigurationPaths:
    """Where the files are: where they were named, else where other programs look."""
    from asupplemented.transports.registry import ConfigurationPaths

    paths = ConfigurationPaths.default(os.environ)
    return replace(
        paths,
        registries=named.registries_conf or paths.registries,
        registries_directory=named.registries_conf_dir,
        certificates=named.cert_dir,
        lookaside=named.registries_d,
    )


def find_options(named: FilesNamed) -> RegistryOptions:
    """The settings of this machine for registries.

    Raises:
        ConfigurationError: The environment names a proxy that is none.
    """
    from asupplemented.transports.registry import Proxies, RegistryOptions

    return RegistryOptions(
        configuration=find_paths(named), proxies=Proxies.from_environment(os.environ)
    )


def find_named(text: str, named: FilesNamed) -> Reference | None:
    """What a name without a transport means to this machine (rule SHORT-01).

    Args:
        text: What somebody typed.
        named: The files that say what short names mean.

    Returns:
        None if it is nothing of the kind, or a short name of which nobody has said anything.

    Raises:
        ConfigurationError: A file cannot be read or followed, or nobody may choose between
            several registries.
        InvalidReferenceError: It is no name of an image.
    """
    scheme = text.partition(":")[0]
    if not text or text[0] in "./~" or "://" in text or is_transport(scheme):
        return None
    from asupplemented.hostconfig import (
        Registries,
        is_short_name,
        load_aliases,
        resolve_short_name,
    )
    from asupplemented.transports.registry import RegistryReference

    paths = find_paths(named)
    registries = Registries.load(paths)
    try:
        recorded = load_aliases(paths.recorded_short_names)
        names = resolve_short_name(text, registries, recorded)
    except ConfigurationError:
        if is_short_name(text) and not registries.search:
            return None
        raise
    first, *others = (RegistryReference(name) for name in names)
    return FirstOf(text, (first, *others)) if others else first


@dataclass(frozen=True, slots=True)
class FirstOf:
    """A short name that may be in several registries: they are tried until one has the image.

    Attributes:
        text: What was typed.
        references: What it may mean, in the order in which to try.
    """

    text: str
    references: tuple[RegistryReference, ...]

    @property
    def transport(self) -> str:
        return "docker"

    def open(self, session: Context) -> Opening[Source]:
        """Open the first one that can be opened."""

        async def opening() -> Source:
            return await self._try(lambda reference: reference.open(session))

        return Opening(opening, self)

    async def list_tags(self, session: Context) -> tuple[str, ...]:
        """The tags in the first registry that lists them."""
        return await self._try(lambda reference: reference.list_tags(session))

    async def get_digest(self, session: Context) -> Digest:
        """The digest in the first registry that tells it."""
        return await self._try(lambda reference: reference.get_digest(session))

    async def _try(self, ask: Callable[[RegistryReference], Awaitable[T]]) -> T:
        failures: list[SupplementedError] = []
        for reference in self.references:
            try:
                return await ask(reference)
            except UsageError:
                raise
            except SupplementedError as error:
                failures.append(error)
        *others, last = failures
        for failure in others:
            last.add_note(f"before that: {failure}")
        raise last

    def __str__(self) -> str:
        return self.text
