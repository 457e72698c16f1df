"""Copy an image, whole and verified, from any source to any destination.

Theory of operation. `plan_copy` reads every manifest first, so that a copy that cannot succeed
fails before anything is written. Then the order of writing is fixed: blobs, manifests (instances
before the lists that name them), signatures, and the top at the commit, which makes everything
visible at once. Layers and configs of all images go side by side, because no blob names another. A
manifest is therefore never written before what it names. A copy that fails or is cancelled before
the commit changes nothing that a reader of the destination sees. It leaves at most whole blobs
behind; the next copy finds them and does not fetch them again.

Every error that leaves a copy has a note that names the side, source or destination, that failed.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from asupplemented.abc import (
    AsyncResource,
    GroupReference,
    Listing,
    Source,
    WritableReference,
    reference_for,
)
from asupplemented.aio.concurrency import for_each
from asupplemented.errors import (
    BlobNotFoundError,
    ConfigurationError,
    SupplementedError,
    UnsupportedOperationError,
)
from asupplemented.events import (
    BlobAdvanced,
    BlobCopied,
    BlobReused,
    CopyPlanned,
    CopyProgress,
    Warned,
)
from asupplemented.model.index import AllImages, SystemImage
from asupplemented.model.media_type import DOCKER_LIST, DOCKER_MANIFEST, guess
from asupplemented.transfer.plan import for_each_blob, plan_copy
from asupplemented.transports import parse_reference

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    from asupplemented.abc import BlobStream, Context, Destination, Opening, Reference
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.model.index import Selection
    from asupplemented.model.manifest import Manifest
    from asupplemented.transfer.plan import CopyPlan, Sparse

__all__ = (
    "BlobAdvanced",
    "BlobCopied",
    "BlobReused",
    "CopyPlanned",
    "CopyProgress",
    "CopyReport",
    "copy",
)

ResourceT = TypeVar("ResourceT", bound=AsyncResource)

_MANIFESTS: Final = 64
"""Manifests written at the same time, if the number is left to the copy."""

_NAMED: Final = 20
"""Digests that a warning names; it counts the others."""

_DOCKER: Final = frozenset((DOCKER_MANIFEST, DOCKER_LIST))
_ORIGIN: Final = "while copying, the "
"""First words of the note that names the side on which an error arose."""


class CopyReport(NamedTuple):
    """What a copy did."""

    destination: str
    """The reference that opens the copy, as text.

    It is the one that was given, with a number if a nameless copy is not the only image of its
    layout (rule OC-05).
    """
    digest: Digest
    """Digest of the top manifest, as written."""
    media_type: str
    """Media type of the top manifest."""
    manifests: int
    """Number of manifests written, the top included."""
    blobs: int
    """Number of blobs fetched and written."""
    bytes: int
    """Bytes of these blobs."""
    reused_blobs: int
    """Number of blobs that the destination already had."""
    reused_bytes: int
    """Bytes of these; a blob whose manifest gives no size counts as 0."""
    signatures: int
    """Number of signatures written."""
    seconds: float
    """Seconds of wall time."""
    missing: tuple[str, ...]
    """Instances that should be in the copy and that no member supplies; the copy is sparse."""
    warnings: tuple[str, ...]
    """Sentences for people about results that may be unexpected."""


async def copy(
    source: Source | Reference | str,
    destination: Reference | str,
    session: Context,
    *,
    selection: Selection | None = None,
    extras: bool = False,
    concurrency: int | None = None,
    progress: Callable[[CopyProgress], None] | None = None,
) -> CopyReport:
    """Copy an image with its blobs and signatures; manifests keep their bytes (rules K).

    Args:
        source: An open source, which stays open, or a reference, which is opened for the copy.
        destination: A reference that can be written: ``oci:`` or ``dir:``. Several copies to
            one layout may run at the same time.
        session: The session in which both are opened.
        selection: What to copy of a list. `AllImages`: everything that it names, nested lists
            included. `SpecificImages`: the requested instances; the list keeps its bytes and
            becomes sparse, with a warning. `SystemImage`: the one image, which becomes the top.
            None: the selection of a group, `AllImages` for any other reference.
        extras: Whether to copy images that only the supplements of a group have. They are stored
            with their blobs and can be read by digest. ``oci:PATH:NAME`` also lists them in
            ``index.json``, without a name; ``oci:PATH`` and ``dir:`` have room for one image.
            Lists of supplements are never copied.
        concurrency: Blobs copied at the same time, 1 or more. None for six of 4 MiB and more, or
            up to 64 small ones (rule SR-04). A source that reads one blob at a time is read one
            blob at a time.
        progress: Called on the event loop with every event. It must be quick and must not raise.

    Returns:
        What was written, reused and missing.

    Raises:
        ConfigurationError: `concurrency` is below 1, or `extras` is set with a `SystemImage`.
        UnsupportedOperationError: The destination cannot be written, or copying would change a
            manifest (rule K-06).
        NotFoundError: A manifest or blob does not exist.
        VerificationError: Content is not what its digest names.
        SourceError: Reading or writing failed.

    An error after the start has a note that names the side that failed. Readers of the destination
    then see what they saw before the copy.
    """
    target = _writable(destination)
    if concurrency is not None and concurrency < 1:
        message = f"concurrency={concurrency} copies nothing; pass 1 or more, or None"
        raise ConfigurationError(message)
    started = perf_counter()
    async with (
        _opening(target.create(session), "destination", destination) as output,
        _opened(source, selection, session) as image,
    ):
        chosen = selection or _selection_of(image.reference)
        if extras and isinstance(chosen, SystemImage):
            message = "extras=True needs AllImages() or SpecificImages(...), not SystemImage()"
            raise ConfigurationError(message)
        with _on_side("source", image.reference):
            plan = await plan_copy(
                image, chosen, session, extras=extras, concurrency=1 + session.lookahead
            )
        with _on_side("destination", output.reference):
            _check_readable(output, plan.top)
        limit = concurrency if image.concurrent_blobs else 1
        transfer = _Transfer(image, output, session, plan, limit, progress or _ignore)
        await transfer.run()
        return transfer.report(perf_counter() - started)


def _check_readable(output: Destination, top: Manifest) -> None:
    """Refuse a copy that could not be read back (rule G-05).

    Raises:
        UnsupportedOperationError: The destination keeps no media type, and the bytes of the top
            do not tell theirs.
    """
    if output.keeps_media_type or guess(top.raw) == top.media_type:
        return
    message = (
        f"{output.reference.transport}: keeps no media type, and this manifest of type "
        f"{top.media_type} does not tell its own, so the copy could not be read; copy to oci:"
    )
    raise UnsupportedOperationError(message, digest=top.digest)


def _writable(destination: Reference | str) -> WritableReference:
    target = parse_reference(destination) if isinstance(destination, str) else destination
    if not isinstance(target, WritableReference):
        message = f"nothing can be copied to {target.transport}:, only to oci: and dir:"
        raise UnsupportedOperationError(message, reference=target)
    return target


def _selection_of(reference: Reference) -> Selection:
    return reference.selection if isinstance(reference, GroupReference) else AllImages()


@asynccontextmanager
async def _opened(
    source: Source | Reference | str, selection: Selection | None, session: Context
) -> AsyncGenerator[Source]:
    """Open a reference and close its source in the end; yield an open source as it is."""
    if isinstance(source, Source):
        yield source
        return
    reference = parse_reference(source) if isinstance(source, str) else source
    if isinstance(reference, GroupReference):
        reference = reference.with_options(selection=selection)
    reference = reference_for(reference, selection)
    async with _opening(reference.open(session), "source", reference) as image:
        yield image


@asynccontextmanager
async def _opening(
    opening: Opening[ResourceT], side: str, reference: object
) -> AsyncGenerator[ResourceT]:
    """Open a resource and close it in the end; an error of opening names the side."""
    with _on_side(side, reference):
        resource = await opening
    async with resource:
        yield resource


@contextmanager
def _on_side(side: str, reference: object) -> Generator[None]:
    """Add a note to an error that names the side of the copy."""
    try:
        yield
    except SupplementedError as error:
        _note_side(error, side, reference)
        raise


def _note_side(error: SupplementedError, side: str, reference: object) -> None:
    """Note on which side of the copy an error arose, unless a note says so already."""
    if not any(note.startswith(_ORIGIN) for note in getattr(error, "__notes__", ())):
        error.add_note(f"{_ORIGIN}{side} failed: {reference}")


def _ignore(event: CopyProgress) -> None:
    """The caller asked for no progress."""


@dataclass(slots=True)
class _Transfer:
    """One run of a copy, from its plan to its report."""

    source: Source
    output: Destination
    session: Context
    plan: CopyPlan
    limit: int | None
    """Blobs at the same time; None for a number that depends on their sizes."""
    progress: Callable[[CopyProgress], None]
    warnings: list[str] = field(default_factory=list[str])
    written: list[int] = field(default_factory=list[int])
    """Sizes of the blobs that were written."""
    reused: list[int] = field(default_factory=list[int])
    """Sizes of the blobs that the destination already had; 0 for an unknown size."""
    signatures: int = 0

    async def run(self) -> None:
        """Write everything, each part before what names it."""
        plan = self.plan
        blobs = plan.blobs
        self.progress(CopyPlanned(len(plan.manifests), len(blobs), plan.size))
        self._warn_of_plan()
        # What a manifest names is written before the manifest, and the top last (rule K-01): a copy
        # that ends early leaves no manifest whose parts are not there.
        with self._writing():
            await self.output.expect_blobs(blobs)
        await for_each_blob(blobs, self._copy_blob, limit=self.limit)
        with self._writing():
            for level in plan.levels:
                await for_each(level, self.output.put_manifest, limit=self.limit or _MANIFESTS)
            await self._put_signatures()
            self._list_extras()
            asked = self.output.reference
            await self.output.commit(plan.top, platform=plan.platform)
        if self.output.reference != asked:
            self._warn(
                f"{asked} lists other images too and so cannot be opened; this copy is "
                f"{self.output.reference} until the list changes; copy to a name, such as "
                f"{asked}:NAME, to keep it apart"
            )

    def report(self, seconds: float) -> CopyReport:
        """Sum up the run."""
        return CopyReport(
            destination=str(self.output.reference),
            digest=self.plan.top.digest,
            media_type=self.plan.top.media_type,
            manifests=len(self.plan.manifests),
            blobs=len(self.written),
            bytes=sum(self.written),
            reused_blobs=len(self.reused),
            reused_bytes=sum(self.reused),
            signatures=self.signatures,
            seconds=seconds,
            missing=self.plan.missing,
            warnings=tuple(self.warnings),
        )

    def _writing(self) -> AbstractContextManager[None]:
        return _on_side("destination", self.output.reference)

    async def _copy_blob(self, blob: Descriptor) -> None:
        with self._writing():
            if await self.output.has_blob(blob):
                self.reused.append(blob.size or 0)
                self.progress(BlobReused(blob))
                return
        try:
            async with AsyncExitStack() as stack:
                with _on_side("source", self.source.reference):
                    # Only a cache gains from a fetch that other readers can join.
                    shared = self.session.cache is not None
                    stream = self.source.open_blob(blob, shared=shared)
                    stream.on_progress(lambda received: self.progress(BlobAdvanced(blob, received)))
                    await stack.enter_async_context(stream)
                self.progress(BlobAdvanced(blob, 0))
                await self._put_blob(stream)
                self._warn_of_corrupt(stream)
        except BlobNotFoundError:
            if not blob.urls:
                raise
            self._warn(f"no source holds {blob.digest}, which the manifest says to fetch by URL")
            return
        size = stream.received if stream.size is None else stream.size
        self.written.append(size)
        self.progress(BlobCopied(blob, size, stream.member))

    def _warn_of_corrupt(self, stream: BlobStream) -> None:
        for failure in stream.corrupt:
            self._warn(
                f"{failure.reference} is damaged: blob {stream.descriptor.digest} was copied from "
                f"{stream.served[-1].reference} instead ({failure.message})"
            )

    async def _put_blob(self, stream: BlobStream) -> None:
        """Write a blob. The destination reads the stream, so the error may be of either side."""
        try:
            await self.output.put_blob(stream)
        except SupplementedError as error:
            if stream.failure is not None:
                _note_side(error, "source", self.source.reference)
            else:
                _note_side(error, "destination", self.output.reference)
            raise

    async def _put_signatures(self) -> None:
        lost = 0
        for instance, signatures in self.plan.signed:
            if await self.output.put_signatures(signatures, instance):
                self.signatures += len(signatures)
            else:
                lost += len(signatures)
        if lost:
            were = "1 signature was" if lost == 1 else f"{lost} signatures were"
            self._warn(f"{were} not copied: this destination cannot hold them")

    def _list_extras(self) -> None:
        extras = self.plan.extras
        if not extras or (isinstance(self.output, Listing) and self.output.list_beside(extras)):
            return
        images = "1 extra image" if len(extras) == 1 else f"{len(extras)} extra images"
        self._warn(
            f"{images} can be read by digest only: this destination has room for one image in its "
            "list, oci:PATH:NAME for many"
        )

    # Warnings

    def _warn_of_plan(self) -> None:
        for sparse in self.plan.sparse:
            self._warn(_describe(sparse))
        if self.plan.unlisted:
            self._warn(f"no member supplies the requested {_join(self.plan.unlisted)}")
        kept = sorted({m.media_type for m in self.plan.manifests} & _DOCKER)
        if kept and self.output.reference.transport == "oci":
            self._warn(
                f"Docker media types are kept as they are ({', '.join(kept)}); some tools read "
                "only those of OCI from a layout"
            )

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        self.session.emit(Warned(str(self.output.reference), message))


def _describe(sparse: Sparse) -> str:
    copied = sparse.named - len(sparse.left_out) - len(sparse.missing)
    text = f"the list {sparse.digest} is sparse: {copied} of the {sparse.named} it names are copied"
    if sparse.missing:
        text += f"; no member supplies {_join(sparse.missing)}"
    return text


def _join(digests: Sequence[str]) -> str:
    names = ", ".join(digests[:_NAMED])
    return names if len(digests) <= _NAMED else f"{names} and {len(digests) - _NAMED} more"
