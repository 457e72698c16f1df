"""The contracts between the rooms of the house, and for those who write adapters.

A transport writes a `SourceAdapter`: raw bytes, unverified. Everything above sees a `Source`,
which verifies. What an adapter can do beyond the minimum it shows by implementing one of the
small ability protocols (`Batched`, `LocalFile`, `Signed`, ...), which are asked for with
``isinstance``.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NamedTuple,
    Protocol,
    Self,
    TypeVar,
    runtime_checkable,
)

from asupplemented.errors import (
    ConfigurationError,
    SupplementedError,
    UnsupportedOperationError,
    UsageError,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Generator,
        Sequence,
    )
    from pathlib import Path
    from types import TracebackType

    from asupplemented.events import Event
    from asupplemented.model.credential import Credential
    from asupplemented.model.manifest import Manifest
    from asupplemented.model.platform import Platform
    from asupplemented.model.selection import Selection
    from asupplemented.model.signature import Signature
    from asupplemented.progress import CopyProgress, PrefetchReport

__all__ = (
    "AsyncResource",
    "Batched",
    "BlobCache",
    "BlobCandidate",
    "BlobFile",
    "BlobPlace",
    "BlobStream",
    "Context",
    "CredentialProvider",
    "Destination",
    "Hasty",
    "Hook",
    "LayersForCopy",
    "Lease",
    "Listing",
    "LocalFile",
    "Named",
    "Opening",
    "Placed",
    "Ranged",
    "RawBlob",
    "RawManifest",
    "RawPart",
    "RawParts",
    "Reference",
    "Referring",
    "RemoteReference",
    "ResourceKey",
    "Resumable",
    "Served",
    "Setting",
    "Share",
    "Signed",
    "Source",
    "SourceAdapter",
    "Spool",
    "Tenure",
    "Timeouts",
    "WritableReference",
)

T = TypeVar("T")
ResourceT_co = TypeVar("ResourceT_co", bound="AsyncResource", covariant=True)


class AsyncResource(abc.ABC):
    """Something that must be closed.

    Entering returns the resource itself; leaving awaits `aclose`. Closing is idempotent, and
    closes even when it fails: an error means that it was not done gracefully.
    """

    __slots__ = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Release everything that is held. May be called again, and does nothing then."""


class Opening(Generic[ResourceT_co]):
    """A resource about to be opened: ``await`` it, or enter it with ``async with``.

    Nothing happens before that. Awaited, it gives the open resource, which the caller closes;
    entered, it closes the resource on the way out. It can be used once.

    Args:
        opener: Opens the resource; on failure or cancellation it leaves nothing open.
        what: What is opened, for error messages.

    Raises:
        UsageError: When it is used a second time.
    """

    __slots__ = ("_opener", "_resource", "_what")

    def __init__(self, opener: Callable[[], Awaitable[ResourceT_co]], what: object) -> None:
        self._opener: Callable[[], Awaitable[ResourceT_co]] | None = opener
        self._what = what
        self._resource: ResourceT_co | None = None

    def __await__(self) -> Generator[object, None, ResourceT_co]:
        return self._open().__await__()

    async def __aenter__(self) -> ResourceT_co:
        self._resource = await self._open()
        return self._resource

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        resource, self._resource = self._resource, None
        if resource is not None:
            await resource.aclose()

    async def _open(self) -> ResourceT_co:
        opener, self._opener = self._opener, None
        if opener is None:
            message = f"{self._what} was opened already; call open() again for another one"
            raise UsageError(message)
        return await opener()

    def __repr__(self) -> str:
        state = "used" if self._opener is None else "unused"
        return f"<Opening of {self._what}, {state}>"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds; None waits for ever."""

    connect: float | None = 30.0
    """For a connection, TLS included."""
    first_byte: float | None = 60.0
    """From a request sent to the head of its answer."""
    stall: float | None = 60.0
    """Within a body: for the next byte, and the window of `min_rate`."""
    min_rate: int = 1024
    """Bytes per second that a body must reach, averaged over `stall` seconds; 0 turns it off."""
    open: float | None = None
    """For opening one member: connection, access, and its default manifest."""


class ResourceKey(Generic[T]):
    """The typed name of one kind of thing that a session owns, compared by identity."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"ResourceKey({self.name!r})"


@runtime_checkable
class Setting(Protocol):
    """A value that a session is given for those who look for it under its key.

    Such as ``RegistryOptions``. A session takes one of each kind: ``Session(settings=[...])``.
    """

    @property
    def key(self) -> ResourceKey[Any]:
        """The kind of setting that it is."""
        ...


class Hook(Protocol):
    """Told of everything worth counting. Called on the event loop: be quick, do not raise."""

    def __call__(self, event: Event, /) -> None: ...


class CredentialProvider(Protocol):
    """Looks up the credential for a repository; None for anonymous access.

    It is asked once for each source that is opened, with the name that is most specific: that of
    the repository, ``host[:port]/path``. What precedes the first slash is the registry, as it is
    written in the reference: case matters (rule REF-09), and Docker Hub is ``docker.io``. A name
    without a slash asks for the registry as a whole. Where an image is read from a mirror, the
    name is the one that it has there, and what is given for it goes there (rule CRED-04).
    """

    def __call__(self, name: str, /) -> Awaitable[Credential | None]: ...


class Share(Protocol):
    """Whether a principal may have what another one has fetched, or is fetching.

    It is asked before anything is revealed, so it has to know by itself that the principal is
    allowed to read the blob. Whoever is refused fetches the blob itself, with its own
    credentials.
    """

    def __call__(
        self, principal: str | None, descriptor: Descriptor, members: Sequence[str], /
    ) -> bool | Awaitable[bool]:
        """Decide for one blob.

        Args:
            principal: Who asks, None for the session itself.
            descriptor: The blob.
            members: The references, as text, through which the principal came to ask for it.
        """
        ...


class Context(Protocol):
    """What adapters see of a session."""

    @property
    def lookahead(self) -> int:
        """Manifest fetches in flight beyond the one that is needed next; 0 is serial."""
        ...

    @property
    def tls_verify(self) -> bool | None:
        """False allows plain http and unverified TLS for every registry, True for none.

        None leaves it to what is configured for each registry; without that it is True.
        """
        ...

    @property
    def timeouts(self) -> Timeouts: ...

    @property
    def http(self) -> object | None:
        """A borrowed ``aiohttp.ClientSession`` that is never closed here, or None."""
        ...

    @property
    def credentials(self) -> CredentialProvider: ...

    @property
    def cache(self) -> BlobCache | None:
        """Keeps blobs and manifests; None for nothing. It is never closed here."""
        ...

    @property
    def share(self) -> Share | None:
        """Decides what principals share; None: nothing."""
        ...

    @property
    def principal(self) -> str | None:
        """Whom the session is used for, None for nobody in particular (``Session.scoped``).

        What a registry lets one principal have is never kept for another (rule SEC-13).
        """
        ...

    def resource(self, key: ResourceKey[T], factory: Callable[[], T]) -> T:
        """The session's one object of a kind, made on first use.

        All principals share it: what belongs to one of them is kept by its name in there. If it
        is an `AsyncResource` it is closed with the session, in reverse order of making.

        Raises:
            ClosedError: The session is closed.
            WrongLoopError: The session belongs to another event loop.
        """
        ...

    @property
    def observed(self) -> bool:
        """Whether there is a hook; without one, events need not even be made."""
        ...

    def emit(self, event: Event) -> None:
        """Tell the hooks."""
        ...


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


class RawManifest(NamedTuple):
    """Bytes as a source gave them, and the media type that it claims, None if it claims none."""

    raw: bytes
    media_type: str | None


class SourceAdapter(Protocol):
    """All that a transport writes. What it returns is raw and unverified."""

    @property
    def concurrent_blobs(self) -> bool:
        """Whether blobs may be opened side by side (seed: ``HasThreadSafeGetBlob``)."""
        ...

    async def fetch_manifest(self, instance: Digest | None) -> RawManifest:
        """Read the default manifest (None), or the one of a digest.

        Raises:
            ManifestNotFoundError: It is not there.
            SourceError: The source could not be read.
            LimitExceededError: It is larger than ``MAX_MANIFEST``.
        """
        ...

    def open_blob(
        self,
        blob: Descriptor,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,
    ) -> RawBlob:
        """Prepare to read ``[start, end)`` of a blob; entering the result asks for it.

        Args:
            blob: Its ``digest`` has been validated.
            start: Offset of the first byte.
            end: Offset behind the last byte, None for the end of the blob.
            etag: The strong validator of the body that this one goes on with; None if it goes
                on with none. If the source has something else by now it sends the whole of that,
                so `RawBlob.start` is 0 (rule RES-06). Sources without validators ignore it.
        """
        ...

    async def aclose(self) -> None: ...


class RawBlob(Protocol):
    """One attempt to read a blob: entering it opens the body, iterating gives its bytes.

    Chunks are not empty and may have any size. The attributes are valid once entered. Entering
    raises `BlobNotFoundError`, `RangeError` or a `SourceError`; iterating raises a `SourceError`.
    """

    @property
    def start(self) -> int:
        """Offset of the first byte that will come; 0 if the whole comes in place of a range."""
        ...

    @property
    def size(self) -> int | None:
        """Size of the whole blob as the source claims it, None if it does not say."""
        ...

    @property
    def etag(self) -> str | None:
        """A strong validator to resume with, or None."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@runtime_checkable
class Resumable(Protocol):
    """A `RawBlob` that knows whether there is going on with it; one that does not say can be."""

    @property
    def resumable(self) -> bool:
        """Whether the same source may be asked for the rest of a body that broke off."""
        ...


@runtime_checkable
class Hasty(Protocol):
    """A `RawBlob` that can be told not to be patient with its source."""

    def hurry(self) -> None:
        """Others may serve the blob as well, so fail soon rather than try again for long.

        Called before it is entered, if at all.
        """
        ...


@dataclass(slots=True)
class BlobFile:
    """An open regular file that holds a blob; who receives it closes it.

    Read it by position (``os.pread``): the descriptor has no cursor of its own to share.
    """

    fd: int
    path: Path
    offset: int
    """Where the blob begins within the file."""
    size: int
    """Bytes of the blob, by the file system."""
    close: Callable[[], None]
    """Closes `fd`; may be called once."""


class BlobPlace(Protocol):
    """One place that may hold a blob."""

    @property
    def reference(self) -> str:
        """Where it is, physically."""
        ...

    def open_blob(
        self, blob: Descriptor, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> RawBlob:
        """As `SourceAdapter.open_blob`, from this place and no other."""
        ...


@runtime_checkable
class Placed(Protocol):
    """Reads from several places that stand in for one another: a registry and its mirrors."""

    def blob_places(self) -> Sequence[BlobPlace]:
        """The places to read blobs from, best first. Nothing is asked of them yet.

        A body that breaks off in one place goes on in the next one.
        """
        ...


@runtime_checkable
class Batched(Protocol):
    """Reads many manifests in one go."""

    def fetch_manifests(
        self, instances: Sequence[Digest]
    ) -> Sequence[RawManifest | SupplementedError]:
        """Read manifests by digest, one outcome each, in the order asked.

        Blocking: it is called in a worker thread, so that a whole batch costs one hop.
        """
        ...


class RawPart(Protocol):
    """One range of a blob. Iterate it before the next part is taken; what is left is skipped."""

    @property
    def start(self) -> int:
        """Offset of its first byte."""
        ...

    @property
    def end(self) -> int | None:
        """Offset behind its last byte; None if it goes to the end of a blob of unknown size."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class RawParts(Protocol):
    """One attempt to read ranges of a blob: entering it asks, iterating gives the parts in order.

    Nothing is verified: only a whole blob can be. Each part is whole, or iterating it raises a
    `SourceError`. `size` is valid once entered. Entering raises `BlobNotFoundError`, a
    `SourceError`, or `UnsupportedOperationError` if this blob is to be read as a whole there.
    """

    @property
    def size(self) -> int | None:
        """Size of the whole blob as the source claims it, None if it does not say."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def __aiter__(self) -> AsyncIterator[RawPart]: ...


@runtime_checkable
class Ranged(Protocol):
    """Reads several ranges of a blob in one go."""

    def open_parts(self, blob: Descriptor, ranges: Sequence[tuple[int, int | None]]) -> RawParts:
        """Prepare to read some ranges; see `Source.open_parts`. ``blob.digest`` was validated."""
        ...


@runtime_checkable
class LocalFile(Protocol):
    """Holds blobs in local files."""

    def open_file(self, blob: Descriptor) -> BlobFile:
        """Open the file of a blob. Blocking: it is called in a worker thread.

        Raises:
            BlobNotFoundError: There is no such file.
            SourceError: It cannot be opened, or is no regular file.
        """
        ...


@runtime_checkable
class Named(Protocol):
    """Knows what its default manifest must be: a digested reference, a layout's descriptor."""

    @property
    def default_descriptor(self) -> Descriptor | None:
        """Its ``digest`` is checked, and its ``size`` too if known. None: nothing names it."""
        ...


@runtime_checkable
class Signed(Protocol):
    """Stores signatures beside manifests."""

    async def fetch_signatures(self, instance: Digest | None) -> Sequence[Signature]: ...


@runtime_checkable
class Referring(Protocol):
    """Knows which manifests refer to a manifest."""

    async def fetch_referrers(
        self, subject: Digest, artifact_type: str | None
    ) -> Sequence[Descriptor]:
        """See `Source.get_referrers`."""
        ...


@runtime_checkable
class LayersForCopy(Protocol):
    """Serves layers under digests other than those in the manifest (rule SR6)."""

    async def layers_for_copy(self, instance: Digest | None) -> Sequence[Descriptor] | None:
        """None if the manifest is right, else a full replacement list, base layer first."""
        ...


class BlobCandidate(Protocol):
    """One source that may serve a blob: mapped errors, limits and hooks, no hash."""

    @property
    def reference(self) -> str: ...

    @property
    def local(self) -> bool:
        """Whether it reads files of this machine, so that nobody gains by sharing what it reads."""
        ...

    def hold(self) -> AsyncResource:
        """Keep its source from closing until the result is closed.

        Whoever closes the source meanwhile does not wait, and the last one to let go of it
        closes it indeed.
        """
        ...

    @property
    def member(self) -> int | None:
        """Member number in the outermost group, None outside of one."""
        ...

    def open(self, start: int = 0, end: int | None = None, etag: str | None = None) -> RawBlob:
        """See `SourceAdapter.open_blob`."""
        ...

    async def open_file(self) -> BlobFile | None:
        """The local file that holds the blob, None where the source has no files."""
        ...


class Served(NamedTuple):
    """A part of a blob, and who served it."""

    reference: str
    member: int | None
    """Member number, None outside of a group."""
    start: int
    """Offset of the first byte."""
    end: int
    """Offset behind the last byte."""


class BlobStream(AsyncResource):
    """The verified bytes of one blob, or of a range of it. Read once, front to back.

    Enter it, then iterate: ``async with image.open_blob(digest) as blob: async for chunk in
    blob``. Chunks have 1 byte to 1 MiB and are never empty. The chunk that holds the last byte
    is withheld until size and digest are right, so a stream that ends without an error is whole
    and true.
    """

    __slots__ = ()

    @property
    @abc.abstractmethod
    def descriptor(self) -> Descriptor:
        """What was asked for."""

    @property
    @abc.abstractmethod
    def size(self) -> int | None:
        """Bytes of the whole blob; None until somebody who knows was asked."""

    @property
    @abc.abstractmethod
    def received(self) -> int:
        """Bytes handed out so far."""

    @property
    @abc.abstractmethod
    def member(self) -> int | None:
        """Member that serves the bytes now, None outside of a group or before the first."""

    @property
    @abc.abstractmethod
    def served(self) -> Sequence[Served]:
        """Who has served which part of what was fetched so far, in order."""

    @property
    @abc.abstractmethod
    def verified(self) -> bool | None:
        """None while running; then True, or False for a range from the wire and early ends."""

    @property
    @abc.abstractmethod
    def path(self) -> Path | None:
        """A verified whole local file, valid until `aclose`; None where there is none.

        Using it uses the stream.
        """

    def __aiter__(self) -> Self:
        return self

    @abc.abstractmethod
    async def __anext__(self) -> bytes:
        """The next chunk.

        Raises:
            UsageError: The stream was not entered.
            ClosedError: It has been closed.
            DigestMismatchError: The content is not what the digest names.
            SizeMismatchError: It is longer or shorter than announced.
            SourceError: The source failed.
        """

    @abc.abstractmethod
    async def read_all(self, limit: int) -> bytes:
        """Read the rest into memory.

        Args:
            limit: The most bytes to accept; a larger blob raises before it is read if its size
                is known, else at the first byte too many.

        Raises:
            LimitExceededError: There is more than `limit`.
        """


class Source(AsyncResource):
    """An open image: its manifests, blobs and signatures, verified.

    Who opened it closes it; streams taken from it fail after that.
    """

    __slots__ = ()

    @property
    @abc.abstractmethod
    def reference(self) -> Reference: ...

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

    @property
    def batched(self) -> bool:
        """Whether `get_manifests` is cheaper than as many `get_manifest`."""
        return False

    @abc.abstractmethod
    def blob_candidates(self, blob: Descriptor) -> Sequence[BlobCandidate]:
        """Who can serve a blob, best first.

        Raises:
            BlobNotFoundError: Nobody here knows it.
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
            shared: Whether a fetch of the whole blob may be shared with others who read it in
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
        concurrency: int = 6,
        progress: Callable[[CopyProgress], None] | None = None,
    ) -> PrefetchReport:
        """Fetch the image into the cache of the session; see `asupplemented.prefetching`."""

    @abc.abstractmethod
    async def get_signatures(self, instance: Digest | str | None = None) -> tuple[Signature, ...]:
        """All signatures of a manifest, empty if there are none."""

    @abc.abstractmethod
    async def layers_for_copy(
        self, instance: Digest | str | None = None
    ) -> tuple[Descriptor, ...] | None:
        """None if the manifest is right, else the layers to ask for instead (rule SR6)."""

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
            UnsupportedOperationError: Nobody keeps such lists here.
            ManifestError: A list is malformed.
            SourceError: The source failed or refused.
        """
        message = f"nobody knows here what refers to {Digest(subject)}"
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


class Spool(AsyncResource):
    """A blob in the making: one fetch appends to it, and any number of readers follow.

    What is in it was released by a verifying stream, so the end of a blob arrives only when the
    whole of it is right. Closing a spool that was not committed drops its bytes.
    """

    __slots__ = ()

    @property
    def candidates(self) -> Sequence[BlobCandidate]:
        """Who may serve the blob better than those who were asked to, best first.

        Another process that is fetching it, say, or a store that several hosts share.
        """
        return ()

    @property
    @abc.abstractmethod
    def length(self) -> int:
        """Bytes that are there to be read."""

    @abc.abstractmethod
    async def append(self, chunk: bytes) -> None:
        """Write the next bytes, all or none of them; called by one task at a time.

        Raises:
            SourceError: The disk is full, or failed. What was there before can be read still.
        """

    @abc.abstractmethod
    async def read(self, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start` on, at least one; ``start < length``.

        Raises:
            SourceError: The disk failed.
        """

    @property
    def wanted(self) -> bool:
        """Whether the blob is to be fetched to its end, even if nobody reads it any more."""
        return False

    @abc.abstractmethod
    async def commit(self) -> None:
        """The blob is whole and right: keep it for those who come later, if it is to be kept.

        What cannot be kept is no error: a warning tells it. It can be read until it is closed.
        """


class BlobCache(AsyncResource):
    """Keeps blobs and manifests by digest, for later readers. Tags are not its business.

    It never fails a pull: what cannot be read from it or written to it is passed by, with an
    event `asupplemented.events.Warned`. What principals brought in is told apart by
    ``context.principal``: with ``shared=False``, only what this principal has fetched itself is
    there (rule SEC-13).
    """

    __slots__ = ()

    @property
    def fills(self) -> bool:
        """Whether who reads a part of a blob that is not there has all of it fetched meanwhile."""
        return False

    @abc.abstractmethod
    async def find(
        self, context: Context, blob: Descriptor, *, shared: bool = False
    ) -> BlobFile | None:
        """The file of a whole blob that was verified when it was stored, None if there is none.

        It is not evicted, or at least stays readable, until it is closed.
        """

    @abc.abstractmethod
    async def claim(self, context: Context, blob: Descriptor) -> Spool | None:
        """Prepare to fetch a blob, so that it is kept; None if it cannot or must not be."""

    @abc.abstractmethod
    async def find_manifest(
        self, context: Context, digest: Digest, *, shared: bool = False
    ) -> RawManifest | None:
        """A manifest by its digest, None if it is not there."""

    @abc.abstractmethod
    async def keep_manifest(self, context: Context, manifest: Manifest, *, top: bool) -> None:
        """Keep a verified manifest.

        Args:
            context: For whom.
            manifest: What to keep.
            top: Whether somebody opened it as the default manifest of a reference.
        """

    async def pin(
        self,
        reference: Reference,
        context: Context,
        *,
        selection: Selection | None = None,
        progress: Callable[[CopyProgress], None] | None = None,
    ) -> PrefetchReport:
        """Fetch an image into the cache, and keep it there until its digest is unpinned.

        If it cannot be fetched, the pin stays all the same: calling this again goes on, and
        `unpin` gives up.

        Args:
            reference: The image, or a group.
            context: The session, whose cache this is.
            selection: What is fetched of each list; None is all that the reference stands for.
                The pin is of the whole.
            progress: Told of everything worth showing; called on the event loop.

        Raises:
            ConfigurationError: The session has another cache, or none.
            SupplementedError: The image cannot be read, or the pin cannot be written.
        """
        if context.cache is not self:
            message = f"this session has another cache than {self}; make it as Session(cache=...)"
            raise ConfigurationError(message, reference=reference)
        async with reference.open(context) as image:
            top = await image.get_manifest()
            await self.pin_digests(context, top.digest)
            return await image.prefetch(selection=selection, progress=progress)

    async def pin_digests(self, context: Context, *digests: Digest) -> None:
        """Never evict some blobs or manifests, nor what these name, there or yet to come.

        Raises:
            UnsupportedOperationError: This kind of cache has no pins.
            SupplementedError: The pins cannot be written.
        """
        del context
        message = f"{self} has no pins, so it cannot keep {', '.join(digests)} for sure"
        raise UnsupportedOperationError(message)

    async def unpin(self, context: Context, *digests: Digest) -> None:
        """Take pins away; those of other digests stay.

        Raises:
            UnsupportedOperationError: This kind of cache has no pins.
            SupplementedError: The pins cannot be written.
        """
        del context
        message = f"{self} has no pins, so there is none of {', '.join(digests)}"
        raise UnsupportedOperationError(message)


class Tenure(AsyncResource):
    """A lease that was taken. Closing it gives it back at once, so that others need not wait.

    Closing never raises what the other side says: what cannot be given back lapses.
    """

    __slots__ = ()

    @abc.abstractmethod
    async def renew(self) -> bool:
        """Say that the work goes on; call it whenever some of it was done.

        Nobody is asked before a good part of the time is over.

        Returns:
            False once the lease is lost: somebody else may be at work, too.
        """


class Lease(Protocol):
    """Lets one of several hosts at a time do what all of them need.

    It saves work and guards nothing: what is made has its digest for a name, so two who make it
    at once make the same, and no token is needed to fence off who has lost the lease meanwhile.
    So it never fails anybody, either. Where it cannot be asked, nobody leads and everybody goes
    on, with an event `asupplemented.events.Warned` when that begins.
    """

    async def take(self, context: Context, key: str) -> Tenure | None:
        """Try to take the lease of a key, for a while.

        Returns:
            None if somebody else has it. If nobody can be asked, a tenure that holds nothing.
        """
        ...
