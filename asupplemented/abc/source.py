"""Where images are, how they are read, and where they are written."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, runtime_checkable

from asupplemented.abc.resource import AsyncResource
from asupplemented.errors import SupplementedError, UnsupportedOperationError
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.index import SystemImage
from asupplemented.model.manifest import Manifest, UnreadManifest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from asupplemented.abc.adapter import RawParts
    from asupplemented.abc.blob import BlobCandidate, BlobStream
    from asupplemented.abc.context import Context
    from asupplemented.abc.resource import Opening
    from asupplemented.events import CacheUse, CopyProgress, PrefetchReport
    from asupplemented.model.index import Selection
    from asupplemented.model.platform import Platform
    from asupplemented.model.signature import Signature

__all__ = (
    "ChoosingReference",
    "Destination",
    "GroupReference",
    "GroupSource",
    "Listing",
    "ManifestTrace",
    "Reference",
    "RemoteReference",
    "RepositoryReference",
    "Source",
    "WritableReference",
    "reference_for",
)


class Reference(Protocol):
    """Where an image is. A frozen, hashable value; equality is lexical; ``str()`` parses back."""

    @property
    def transport(self) -> str:
        """The scheme: "docker", "oci", "dir", ..."""
        ...

    def open(self, session: Context, /) -> Opening[Source]:
        """Open the image: a context manager, and awaitable. Nothing happens before that."""
        ...


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
class ChoosingReference(Reference, Protocol):
    """A reference that several images may answer to, each for another platform."""

    def for_platform(self, platform: Platform | None) -> Reference:
        """The same place, to open the image for a platform; None is that of this host."""
        ...


def reference_for(reference: Reference, selection: Selection | None) -> Reference:
    """A reference as it is opened for a selection (rule CI-02).

    Where several images have one name, the platform of a `SystemImage` chooses among them.
    """
    if isinstance(selection, SystemImage) and isinstance(reference, ChoosingReference):
        return reference.for_platform(selection.platform)
    return reference


@runtime_checkable
class WritableReference(Protocol):
    """A reference that can be copied to."""

    def create(self, session: Context, /) -> Opening[Destination]:
        """Open the place to write an image to. What is there stays until `Destination.commit`."""
        ...


@runtime_checkable
class RemoteReference(Protocol):
    """A reference that answers questions without being opened."""

    async def list_tags(self, session: Context, /) -> tuple[str, ...]:
        """All tags of its repository, each once, in the order in which they are given."""
        ...

    async def get_digest(self, session: Context, /) -> Digest:
        """The digest of its default manifest, as the other side claims it."""
        ...


@runtime_checkable
class RepositoryReference(RemoteReference, Reference, Protocol):
    """A reference to one image of a repository, which has others by tag and by digest."""

    @property
    def tag(self) -> str | None:
        """Its tag; None if a digest names the image."""
        ...

    @property
    def repository(self) -> str:
        """``host[:port]/path``, under which its credential is looked up."""
        ...

    def at(self, which: str, /) -> RepositoryReference:
        """The image of the same repository with another tag, or with a digest.

        Raises:
            InvalidReferenceError: `which` is no tag.
            InvalidDigestError: `which` holds a colon, and is no digest.
        """
        ...

    def open_repository(self, session: Context, /) -> Opening[Source]:
        """Open the repository without reading a manifest, for what is named by digest.

        Nothing is asked yet, so the repository may not exist.
        """
        ...


class ManifestTrace(NamedTuple):
    """Where a manifest comes from."""

    reference: str
    """The reference of the source that serves it, as text."""
    cache_use: CacheUse
    """"hit" if the cache gave it when it was read last, "" for a local source, else "miss"."""
    held: bool
    """Whether it is in memory, so that nothing is asked for it."""


class Source(AsyncResource):
    """An open image: its manifests, blobs and signatures, verified.

    Who opened it closes it; streams taken from it fail after that.
    """

    __slots__ = ()

    @property
    @abc.abstractmethod
    def reference(self) -> Reference:
        """What was opened, as the caller gave it (rule SR-01)."""

    @property
    @abc.abstractmethod
    def concurrent_blobs(self) -> bool:
        """Whether blobs may be read side by side (seed: ``HasThreadSafeGetBlob``)."""

    @abc.abstractmethod
    async def get_manifest(self, instance: Digest | str | None = None) -> Manifest:
        """The default manifest (None), or that of an instance, verified.

        Raises:
            NotFoundError: There is no such manifest.
            VerificationError: The bytes are not those that the digest names.
            ManifestError: They are no manifest.
            SourceError: The source failed.
        """

    def trace_manifest(self, digest: Digest) -> ManifestTrace:
        """Where a manifest that was read comes from, by its digest."""
        del digest
        return ManifestTrace(str(self.reference), "miss", held=False)

    async def get_manifests(
        self, instances: Sequence[Digest]
    ) -> Sequence[Manifest | SupplementedError]:
        """Many instances, one outcome each, in the order asked. Fast where `batched` is true."""
        outcomes: list[Manifest | SupplementedError] = []
        for instance in instances:
            try:
                outcomes.append(await self.get_manifest(instance))
            except SupplementedError as error:
                outcomes.append(error)
        return outcomes

    async def fetch_manifests(
        self, instances: Sequence[Digest]
    ) -> Sequence[UnreadManifest | SupplementedError]:
        """Many instances as verified bytes, before their media types are decided.

        One outcome each, in the order asked. A source that does not override it decides the types
        itself, as `get_manifests` does.
        """
        return [
            UnreadManifest(outcome.raw, outcome.media_type, outcome.digest)
            if isinstance(outcome, Manifest)
            else outcome
            for outcome in await self.get_manifests(instances)
        ]

    async def get_named(self, named: Descriptor, *, opaque: bool = False) -> Manifest:
        """The instance that a descriptor names; its size and media type count (rules G-05, C-08).

        Args:
            named: An entry of an index.
            opaque: Whether bytes of an unknown media type are given as they are (rule X-07b).

        Raises:
            InvalidDigestError: The descriptor has no valid digest; nothing was requested.
            SupplementedError: See `get_manifest`, and `UnreadManifest.read`.
        """
        [outcome] = await self.fetch_manifests([Digest(named.digest)])
        if isinstance(outcome, SupplementedError):
            raise outcome
        return outcome.read(named, opaque=opaque)

    @property
    def batched(self) -> bool:
        """Whether `get_manifests` is cheaper than as many `get_manifest`."""
        return False

    @abc.abstractmethod
    def blob_candidates(self, blob: Descriptor) -> Sequence[BlobCandidate]:
        """The candidates that can serve a blob, best first.

        Raises:
            BlobNotFoundError: The source does not know it.
        """

    @abc.abstractmethod
    def open_blob(
        self,
        blob: Digest | str | Descriptor,
        *,
        start: int = 0,
        end: int | None = None,
        shared: bool = True,
    ) -> BlobStream:
        """A stream over ``[start, end)`` of a blob, not yet opened; entering opens it.

        Args:
            blob: Its digest, or a descriptor.
            start: Offset of the first byte.
            end: Offset behind the last byte; None is the end of the blob.
            shared: Whether a fetch of the whole blob may be shared with other readers in
                this session at the same time, and may come from the session's cache.

        Raises:
            InvalidDigestError: `blob` is no digest.
            BlobNotFoundError: No known instance names it.
            RangeError: ``start < 0`` or ``end < start``.
        """

    @abc.abstractmethod
    async def prefetch(
        self,
        *,
        selection: Selection | None = None,
        concurrency: int | None = None,
        progress: Callable[[CopyProgress], None] | None = None,
    ) -> PrefetchReport:
        """Fetch the image into the cache of the session: all manifests first, then the blobs.

        What the cache has is not fetched again, so a prefetch can be repeated. A blob in a file
        of this machine is read, and stays where it is.

        Args:
            selection: What is taken from each list; None is all of it.
            concurrency: Requests at the same time, at least 1.
            progress: Called on the event loop with every event. It must be quick and must not
                raise.

        Returns:
            What was fetched, what the cache holds now, and what it does not hold.

        Raises:
            ConfigurationError: The session has no cache.
            SupplementedError: A manifest or blob cannot be read.
        """

    @abc.abstractmethod
    async def get_signatures(self, instance: Digest | str | None = None) -> tuple[Signature, ...]:
        """All signatures of a manifest, empty if there are none.

        Args:
            instance: The digest of the manifest; None is the default one.

        Raises:
            InvalidDigestError: `instance` is no digest.
            SourceError: The source failed or refused.
        """

    @abc.abstractmethod
    async def layers_for_copy(
        self, instance: Digest | str | None = None
    ) -> tuple[Descriptor, ...] | None:
        """The layers to ask for instead of those of a manifest; None if it is right (rule SR-06).

        Args:
            instance: The digest of the manifest; None is the default one.
        """

    async def get_referrers(
        self,
        subject: Digest | str,
        artifact_type: str | None = None,  # noqa: ARG002 - for sources that can
    ) -> tuple[Descriptor, ...]:
        """What says of itself that it is about a manifest: signatures, SBOMs (rule SIG-07).

        Args:
            subject: Digest of the manifest. It need not exist.
            artifact_type: Only those of this type; None for all.

        Returns:
            Their descriptors, each once; empty if there are none.

        Raises:
            InvalidDigestError: `subject` is no digest, or a list names something that is none.
            UnsupportedOperationError: The source has no such lists.
            ManifestError: A list is malformed.
            SourceError: The source failed or refused.
        """
        message = f"this source has no list of what refers to {Digest(subject)}"
        raise UnsupportedOperationError(message, reference=self.reference)

    def open_parts(
        self,
        blob: Digest | str | Descriptor,
        ranges: Sequence[tuple[int, int | None]],  # noqa: ARG002 - for sources that can
    ) -> RawParts:
        """Several ranges of a blob, asked for at once, unverified (rule PART-01).

        Args:
            blob: Its digest, or a descriptor.
            ranges: Each ``(start, end)``, end exclusive and behind start; sorted, and without
                overlaps. The last one may end with None, the end of the blob.

        Returns:
            The parts, not yet asked for; entering asks.

        Raises:
            InvalidDigestError: `blob` is no digest.
            BlobNotFoundError: No known instance names it.
            RangeError: The ranges are none, or not sorted, or outside of the blob.
            UnsupportedOperationError: No source of this blob can do that; read it as a whole.
        """
        digest = Digest(blob.digest if isinstance(blob, Descriptor) else blob)
        message = f"ranges of {digest} cannot be read at once here; read the blob as a whole"
        raise UnsupportedOperationError(message, reference=self.reference, digest=digest)


@runtime_checkable
class GroupSource(Protocol):
    """A `Source` with several members: what its resolution says of them, for copies."""

    def list_missing(self) -> frozenset[str]:
        """Instances that a list names, or the selection requests, and that no member supplies.

        They are as lists write them: those of an unknown digest algorithm are no `Digest`.
        """
        ...

    def list_images(self) -> dict[Digest, Platform | None]:
        """All images that a member supplies, each with the platform that a list names for it."""
        ...


class Destination(AsyncResource):
    """Where an image is written.

    The order of calls is law: blobs, then manifests (instances before the lists that name
    them), then signatures, then `commit`. Nothing is visible to readers before `commit`; closing
    without it leaves at most whole, verified blobs, which a re-run will use.
    """

    __slots__ = ()

    keeps_media_type: ClassVar[bool] = True
    """Whether it stores the media type of the top beside the bytes."""

    @property
    @abc.abstractmethod
    def reference(self) -> Reference:
        """What is written to."""

    async def expect_blobs(self, blobs: Collection[Descriptor]) -> None:
        """Look up at once what is there of many blobs, before `has_blob` is asked for each.

        A destination that gains nothing from that does not override it.
        """

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
        """Write the top manifest and make everything visible, at once.

        Args:
            top: The manifest.
            platform: What a list of images says of it; None says nothing.
        """


@runtime_checkable
class Listing(Protocol):
    """A destination that can list images beside the top."""

    def list_beside(self, images: Sequence[tuple[Manifest, Platform | None]], /) -> bool:
        """Have `Destination.commit` list images that were written, each with its platform.

        Returns:
            False if nothing was noted, because readers could not tell the top from the others.
        """
        ...
