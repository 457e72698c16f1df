"""References: where images are, before anything is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from asupplemented.abc.context import Context
    from asupplemented.abc.destination import Destination
    from asupplemented.abc.resource import Opening
    from asupplemented.abc.source import Source
    from asupplemented.model.digest import Digest

__all__ = ("Reference", "RemoteReference", "WritableReference")


class Reference(Protocol):
    """Where an image is. A frozen, hashable value; equality is lexical; ``str()`` parses back."""

    @property
    def transport(self) -> str:
        """The scheme: "docker", "oci", "dir", ..."""
        ...

    def open(self, context: Context) -> Opening[Source]: ...


@runtime_checkable
class WritableReference(Protocol):
    """A reference that can be copied to."""

    def create(self, context: Context) -> Opening[Destination]: ...


@runtime_checkable
class RemoteReference(Protocol):
    """A reference about which one can ask without opening it."""

    async def list_tags(self, context: Context) -> tuple[str, ...]:
        """All tags of its repository, each once, in the order in which they are given."""
        ...

    async def get_digest(self, context: Context) -> Digest:
        """The digest of its default manifest, as the other side claims it."""
        ...
