"""References: where images are, before anything is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from asupplemented.abc.context import Context
    from asupplemented.abc.destination import Destination
    from asupplemented.abc.resources import Opening
    from asupplemented.abc.source import Source
    from asupplemented.model.digest import Digest
    from asupplemented.model.index import Selection

__all__ = ("GroupReference", "Reference", "RemoteReference", "WritableReference")


class Reference(Protocol):
    """Where an image is. A frozen, hashable value; equality is lexical; ``str()`` parses back."""

    @property
    def transport(self) -> str:
        """The scheme: "docker", "oci", "dir", ..."""
        ...

    def open(self, context: Context) -> Opening[Source]: ...


@runtime_checkable
class GroupReference(Reference, Protocol):
    """A reference with several members, resolved for a selection when it is opened."""

    @property
    def top(self) -> Reference:
        """Member 0."""
        ...

    @property
    def selection(self) -> Selection:
        """What is taken from each list."""
        ...

    def with_options(self, *, selection: Selection | None = None) -> Reference:
        """The same group for another selection; None keeps the selection."""
        ...


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
