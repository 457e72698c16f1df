"""Caches: blobs being fetched, blobs that are kept, and leases of hosts that share a cache."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Protocol

from asupplemented.abc.resource import AsyncResource
from asupplemented.errors import ConfigurationError, UnsupportedOperationError
from asupplemented.remedies import CACHE, advise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asupplemented.abc.adapter import BlobFile
    from asupplemented.abc.blob import BlobCandidate
    from asupplemented.abc.context import Context
    from asupplemented.abc.source import Reference
    from asupplemented.events import CopyProgress, PrefetchReport
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.model.index import Selection
    from asupplemented.model.manifest import Manifest

__all__ = ("BlobCache", "Lease", "LeaseProvider", "Spool")


class Spool(AsyncResource):
    """A blob being fetched: one fetch appends to it, and any number of readers follow.

    A verifying stream released its bytes, so the end of a blob arrives only when the whole blob is
    right. Closing a spool that was not committed drops its bytes.
    """

    __slots__ = ()

    @property
    def candidates(self) -> Sequence[BlobCandidate]:
        """Candidates that may serve the blob better than those of the fetch, best first.

        For example another process that fetches it, or a store that several hosts share.
        """
        return ()

    @property
    @abc.abstractmethod
    def length(self) -> int:
        """Bytes that are there to be read."""

    @abc.abstractmethod
    async def append(self, chunk: bytes) -> None:
        """Write the next chunk, all or nothing of it; called by one task at a time.

        Raises:
            SourceError: The disk is full, or failed. The bytes before can still be read.
        """

    @abc.abstractmethod
    async def read(self, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start` on, at least one; ``start < length``.

        Raises:
            SourceError: The disk failed.
        """

    def expect(self, size: int) -> None:
        """Take note of the size that a source told for the whole blob; it may be wrong."""

    def read_by_all(self, position: int) -> None:
        """Take note that all present readers have read what is before `position`.

        A later reader may still begin at 0.
        """

    @property
    def wanted(self) -> bool:
        """Whether the blob is fetched to its end even if no reader is left."""
        return False

    @abc.abstractmethod
    async def commit(self) -> None:
        """Keep the blob, which is whole and right, for later readers, if it is to be kept.

        A blob that cannot be kept is no error: a warning tells of it. It can be read until the
        spool is closed.
        """


class BlobCache(AsyncResource):
    """Keeps blobs and manifests by digest, for later readers. Tags are not its business.

    A cache never fails a pull: what it cannot read or write it passes by, with an event `Warned`.
    It tells principals apart by ``session.principal``: with ``shared=False``, it finds only what
    this principal has fetched itself (rule SEC-13).
    """

    __slots__ = ()

    @property
    def fills(self) -> bool:
        """Whether reading a part of a blob that is not kept has all of it fetched meanwhile."""
        return False

    @abc.abstractmethod
    async def find(
        self, session: Context, blob: Descriptor, *, shared: bool = False
    ) -> BlobFile | None:
        """The file of a whole blob that was verified when it was stored, None if there is none.

        It is not evicted, or at least stays readable, until it is closed.

        Args:
            session: The session that asks, for its principal.
            blob: What is asked for.
            shared: Whether the session's `Share` has allowed what another principal fetched.
        """

    async def holds(self, session: Context, blob: Descriptor) -> bool:
        """Whether it holds a blob or manifest, whole, and this principal may have it.

        Reports ask this. It counts as no use of the blob.
        """
        file = await self.find(session, blob)
        if file is None:
            return False
        file.close()
        return True

    @abc.abstractmethod
    async def claim(self, session: Context, blob: Descriptor) -> Spool | None:
        """Prepare to fetch a blob, so that it is kept; None if it cannot or must not be."""

    @abc.abstractmethod
    async def find_manifest(
        self, session: Context, digest: Digest, *, source: str | None = None
    ) -> Manifest | None:
        """A manifest that this principal read from one source, None if it is not there.

        That a cache holds the bytes of a manifest says nothing about other sources: a manifest
        that was read from one is not found for another, and its media type is the one that this
        source gave. The cache verifies the manifest (`Manifest.verified`), away from the event
        loop. It is used as it is.

        Args:
            session: The session that asks, for its principal.
            digest: The digest of the manifest.
            source: The source, as it was given to `keep_manifest`.
        """

    @abc.abstractmethod
    async def keep_manifest(
        self, session: Context, manifest: Manifest, *, top: bool, source: str | None = None
    ) -> None:
        """Keep a verified manifest.

        Args:
            session: The session that read it, for its principal.
            manifest: What to keep.
            top: Whether it was opened as the default manifest of a reference.
            source: The repository, or other place, that it was read from; None names none.
        """

    async def pin(
        self,
        reference: Reference,
        session: Context,
        *,
        selection: Selection | None = None,
        progress: Callable[[CopyProgress], None] | None = None,
    ) -> PrefetchReport:
        """Fetch an image into the cache, and keep it there until its digest is unpinned.

        If it cannot be fetched, the pin stays all the same: calling this again goes on, and
        `unpin` gives up.

        Args:
            reference: The image, or a group.
            session: The session, whose cache this is.
            selection: What is fetched of each list; None is all that the reference stands for.
                The pin is of the whole.
            progress: Told of everything worth showing; called on the event loop.

        Returns:
            What was fetched, what the cache holds now, and what it does not hold.

        Raises:
            ConfigurationError: The session has another cache, or none.
            SupplementedError: The image cannot be read, or the pin cannot be written.
        """
        if session.cache is not self:
            message = f"this session has another cache than {self}"
            message += advise("give it as {}", CACHE)
            raise ConfigurationError(message, reference=reference)
        async with reference.open(session) as image:
            top = await image.get_manifest()
            await self.pin_digests(session, top.digest)
            return await image.prefetch(selection=selection, progress=progress)

    async def pin_digests(self, session: Context, *digests: Digest) -> None:
        """Never evict the blobs or manifests of some digests, nor what these name.

        It makes no difference whether they are there or yet to come.

        Raises:
            UnsupportedOperationError: This kind of cache has no pins.
            SupplementedError: The pins cannot be written.
        """
        del session
        message = f"{self} has no pins, so it cannot keep {', '.join(digests)} for sure"
        raise UnsupportedOperationError(message)

    async def unpin(self, session: Context, *digests: Digest) -> None:
        """Take pins away; those of other digests stay.

        Raises:
            UnsupportedOperationError: This kind of cache has no pins.
            SupplementedError: The pins cannot be written.
        """
        del session
        message = f"{self} has no pins, so there is none of {', '.join(digests)}"
        raise UnsupportedOperationError(message)


class Lease(AsyncResource):
    """A lease that is held. Closing it releases it at once, so that other hosts need not wait.

    Closing raises no errors of the server: a lease that cannot be released ends with its time.
    """

    __slots__ = ()

    @abc.abstractmethod
    async def renew(self) -> bool:
        """Restart the time of the lease. The cache calls it three times within `LeaseProvider.ttl`.

        Like closing, it raises no errors of the server.

        Returns:
            False once the lease is lost; another host may be at work, too.
        """


class LeaseProvider(Protocol):
    """Gives leases, with which one of several hosts at a time does work that all of them need.

    A lease saves work and protects nothing. Blobs are named by their digests, so two hosts that
    fetch one at the same time store the same bytes, and no fencing token is needed. So it never
    fails a fetch, either: if the server cannot be asked, every host goes on without a lease, with
    an event `Warned` when that begins.
    """

    @property
    def ttl(self) -> float:
        """Seconds after which a lease that is not renewed is free again."""
        ...

    async def acquire(self, session: Context, key: str, /) -> Lease | None:
        """Try to get the lease of a key, for a while.

        Returns:
            None if another host holds it. If the server cannot be asked, a lease that is held
            nowhere.
        """
        ...
