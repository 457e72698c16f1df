"""Destinations: where images are written."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from asupplemented.abc.resource import AsyncResource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.abc.blob import BlobStream
    from asupplemented.abc.reference import Reference
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.model.manifest import Manifest
    from asupplemented.model.platform import Platform
    from asupplemented.model.signature import Signature

__all__ = ("Destination", "Listing")


class Destination(AsyncResource):
    """Where an image is written.

    The order of calls is law: blobs, then manifests (instances before the lists that name
    them), then signatures, then `commit`. Nothing is visible to readers before `commit`; closing
    without it leaves at most whole, verified blobs, which a re-run will use.
    """

    __slots__ = ()

    @property
    @abc.abstractmethod
    def reference(self) -> Reference: ...

    @abc.abstractmethod
    async def has_blob(self, blob: Descriptor) -> bool:
        """Whether the whole, right blob is there already."""

    @abc.abstractmethod
    async def put_blob(self, stream: BlobStream) -> None:
        """Write an entered stream to its end. On any failure nothing of it stays."""

    @abc.abstractmethod
    async def put_manifest(self, manifest: Manifest) -> None:
        """Write a manifest that is not the top under its digest."""

    @abc.abstractmethod
    async def put_signatures(
        self, signatures: Sequence[Signature], instance: Digest | None
    ) -> bool:
        """Write the signatures of an instance, None for the top.

        Returns:
            False if this kind of destination cannot hold them.
        """

    @abc.abstractmethod
    async def commit(self, top: Manifest, *, platform: Platform | None = None) -> None:
        """Write the top manifest and make everything visible, at once."""


@runtime_checkable
class Listing(Protocol):
    """A destination that can list images beside the top."""

    def list_beside(self, images: Sequence[tuple[Manifest, Platform | None]]) -> bool:
        """Have `Destination.commit` list images that were written, each with its platform.

        Returns:
            False if nothing was noted, because readers could not tell the top from the others.
        """
        ...
