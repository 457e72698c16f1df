"""Image names without a transport, as registries.conf of this host says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from asupplemented.abc import Opening
from asupplemented.errors import ConfigurationError, SupplementedError, UsageError
from asupplemented.transports import is_transport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asupplemented.abc import Context, Reference, Source
    from asupplemented.model.digest import Digest
    from asupplemented.transports.registry import RegistryReference
    from asupplemented.transports.registry.host_config import ConfigurationFiles

__all__ = ("FirstAvailable", "resolve_name")

T = TypeVar("T")


def resolve_name(text: str, files: ConfigurationFiles) -> Reference | None:
    """Resolve a name without a transport as registries.conf says (rule SHORT-01). Blocking.

    Args:
        text: The argument as it was typed.
        files: The files that define short names.

    Returns:
        None if `text` is a path or has a transport, or is a short name for which no alias and
        no search registry is configured.

    Raises:
        ConfigurationError: A file cannot be read or is malformed, or several registries may
            hold the name and short-name-mode is "enforcing".
        InvalidReferenceError: It is not the name of an image.
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
    from asupplemented.transports.registry.host_config import configuration_paths

    paths = configuration_paths(files)
    registries = asyncio.run(Registries.load(paths))
    try:
        recorded = asyncio.run(load_aliases(paths.recorded_short_names))
        names = resolve_short_name(text, registries, recorded)
    except ConfigurationError:
        if is_short_name(text) and not registries.search:
            return None
        raise
    first, *others = (RegistryReference(name) for name in names)
    return FirstAvailable(text, (first, *others)) if others else first


@dataclass(frozen=True, slots=True)
class FirstAvailable:
    """A short name that several registries may hold: the first one that has the image serves it.

    Attributes:
        text: The argument as it was typed.
        references: The images that it may mean, in the order in which they are tried.
    """

    text: str
    references: tuple[RegistryReference, ...]

    @property
    def transport(self) -> str:
        return "docker"

    def open(self, session: Context) -> Opening[Source]:
        """Open the first reference that can be opened."""

        async def opening() -> Source:
            return await self._try(lambda reference: reference.open(session))

        return Opening(opening, self)

    async def list_tags(self, session: Context) -> tuple[str, ...]:
        """The tags in the first registry that lists them."""
        return await self._try(lambda reference: reference.list_tags(session))

    async def get_digest(self, session: Context) -> Digest:
        """The digest in the first registry that has the image."""
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
            last.add_note(f"another registry failed first: {failure}")
        raise last

    def __str__(self) -> str:
        return self.text
