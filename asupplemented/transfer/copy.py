"""Copying an image, whole and verified, from any source to any destination.

The order is law: layers, configs, manifests (what a list names before the list), signatures, and
the top at the commit, which makes all visible at once. A copy that fails or is cancelled before
that has changed nothing that a reader of the destination sees; the whole blobs that it leaves
behind are found by the next copy and not fetched again.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeVar

from asupplemented.abc import AsyncResource, BlobStream, Listing, Source, WritableReference
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
from asupplemented.model.media_type import DOCKER_LIST, DOCKER_MANIFEST
from asupplemented.supplemented import SupplementedReference
from asupplemented.transfer.plan import read_cargo
from asupplemented.transports import parse_reference

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from asupplemented.abc import Context, Destination, Opening, Reference, Served
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.model.index import Selection
    from asupplemented.transfer.plan import Cargo, Sparse

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

CONCURRENCY: Final = 6
"""Blobs side by side, as upstream has it (rule SR-04)."""

_NAMED: Final = 20
"""Digests that a warning names before it only counts."""

_DOCKER: Final = frozenset((DOCKER_MANIFEST, DOCKER_LIST))
_ORIGIN: Final = "while copying, the "
"""How the note begins that says on which side an error arose."""


class CopyReport(NamedTuple):
    """What a copy did.

    Attributes:
        destination: Where the image is now, as text.
        digest: Of the top manifest as it was written.
        media_type: Of the top manifest.
        manifests: Manifests written, the top included.
        blobs: Blobs fetched and written.
        bytes: Of these blobs.
        reused_blobs: Blobs that were in the destination before.
        reused_bytes: Of these, as far as the manifests tell their sizes.
        signatures: Signatures written.
        seconds: Wall time.
        missing: Manifests that were wanted and that nobody supplied: the copy is sparse.
        warnings: Sentences for people: what works, but maybe not as expected.
    """

    destination: str
    digest: Digest
    media_type: str
    manifests: int
    blobs: int
    bytes: int
    reused_blobs: int
    reused_bytes: int
    signatures: int
    seconds: float
    missing: tuple[Digest, ...]
    warnings: tuple[str, ...]


async def copy(
    source: Source | Reference | str,
    destination: Reference | str,
    session: Context,
    *,
    selection: Selection | None = None,
    extras: bool = False,
    concurrency: int = CONCURRENCY,
    progress: Callable[[CopyProgress], None] | None = None,
) -> CopyReport:
    """Copy an image with all that belongs to it; manifests keep their bytes (rules K).

    Args:
        source: An open source, which stays open, or a reference, which is opened for the copy.
        destination: A reference that can be written: ``oci:`` or ``dir:``. Several copies to
            one layout may run at once.
        session: Where both are opened.
        selection: What to copy of a list. `AllImages`: all that it names, nested lists too.
            `SpecificImages`: the requested ones; the list keeps its bytes and becomes sparse,
            with a warning. `SystemImage`: the one image, which becomes the top. None: what a
            group was made with, and `AllImages` for everything else.
        extras: Whether images come along that only the supplements of a group have. They are
            stored with their blobs, to be had by digest. ``oci:PATH:NAME`` also lists them in
            ``index.json``, without a name; ``oci:PATH`` and ``dir:`` have room for one image.
            Lists of supplements do not come along.
        concurrency: Blobs side by side, 1 or more; 1 where the source reads one at a time.
        progress: Told of what happens, on the event loop: be quick, do not raise.

    Raises:
        ConfigurationError: `concurrency` is below 1, or `extras` are asked of a `SystemImage`.
        UnsupportedOperationError: The destination cannot be written, or copying would change a
            manifest (rule K-06).
        NotFoundError: A manifest or blob is not there.
        VerificationError: The content is not what its digest names.
        SourceError: Reading or writing failed.

    All that fails after the start has a note that says on which side, and leaves the
    destination as its readers saw it before.
    """
    target = _writable(destination)
    if concurrency < 1:
        message = f"concurrency={concurrency} copies nothing; 1 copies one blob after another"
        raise ConfigurationError(message)
    started = perf_counter()
    async with (
        _opening(target.create(session), "destination", destination) as output,
        _opened(source, selection, session) as image,
    ):
        chosen = selection or _selection_of(image.reference)
        if extras and isinstance(chosen, SystemImage):
            message = "extras go with all images or specific ones, not with the one of a system"
            raise ConfigurationError(message)
        with _on_side("source", image.reference):
            cargo = await read_cargo(
                image, chosen, extras=extras, concurrency=1 + session.lookahead
            )
        limit = concurrency if image.concurrent_blobs else 1
        transfer = _Transfer(image, output, session, cargo, limit, progress or _ignore)
        await transfer.run()
        return transfer.report(perf_counter() - started)


def _writable(destination: Reference | str) -> WritableReference:
    target = parse_reference(destination) if isinstance(destination, str) else destination
    if not isinstance(target, WritableReference):
        message = f"nothing can be copied to {target.transport}:, only to oci: and dir:"
        raise UnsupportedOperationError(message, reference=target)
    return target


def _selection_of(reference: Reference) -> Selection:
    return reference.selection if isinstance(reference, SupplementedReference) else AllImages()


@asynccontextmanager
async def _opened(
    source: Source | Reference | str, selection: Selection | None, session: Context
) -> AsyncGenerator[Source]:
    """The source, open; what was open already stays so."""
    if isinstance(source, Source):
        yield source
        return
    reference = parse_reference(source) if isinstance(source, str) else source
    if isinstance(reference, SupplementedReference):
        reference = reference.with_options(selection=selection)
    async with _opening(reference.open(session), "source", reference) as image:
        yield image


@asynccontextmanager
async def _opening(
    opening: Opening[ResourceT], side: str, reference: object
) -> AsyncGenerator[ResourceT]:
    """Open, and say on which side it failed."""
    with _on_side(side, reference):
        resource = await opening
    async with resource:
        yield resource


@contextmanager
def _on_side(side: str, reference: object) -> Generator[None]:
    """Note on an error on which side of the copy it arose, unless it is known."""
    try:
        yield
    except SupplementedError as error:
        if not any(note.startswith(_ORIGIN) for note in getattr(error, "__notes__", ())):
            error.add_note(f"{_ORIGIN}{side} failed: {reference}")
        raise


def _ignore(event: CopyProgress) -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class _Transfer:
    """One run of a copy, once it is known what is copied."""

    source: Source
    output: Destination
    context: Context
    cargo: Cargo
    limit: int
    progress: Callable[[CopyProgress], None]
    warnings: list[str] = field(default_factory=list[str])
    written: list[int] = field(default_factory=list[int])
    """Sizes of the blobs written."""
    reused: list[int] = field(default_factory=list[int])
    """Sizes of the blobs that were there, 0 if not known."""
    signatures: int = 0

    async def run(self) -> None:
        """Write everything in the order that is law."""
        cargo = self.cargo
        blobs = len(cargo.layers) + len(cargo.configs)
        self.progress(CopyPlanned(len(cargo.manifests), blobs, cargo.size))
        self._warn_before()
        await for_each(cargo.layers, self._copy_blob, limit=self.limit)
        await for_each(cargo.configs, self._copy_blob, limit=self.limit)
        with self._writing():
            for tier in cargo.tiers:
                await for_each(tier, self.output.put_manifest, limit=self.limit)
            await self._put_signatures()
            self._list_extras()
            await self.output.commit(cargo.top, platform=cargo.platform)

    def report(self, seconds: float) -> CopyReport:
        """What was done."""
        return CopyReport(
            destination=str(self.output.reference),
            digest=self.cargo.top.digest,
            media_type=self.cargo.top.media_type,
            manifests=len(self.cargo.manifests),
            blobs=len(self.written),
            bytes=sum(self.written),
            reused_blobs=len(self.reused),
            reused_bytes=sum(self.reused),
            signatures=self.signatures,
            seconds=seconds,
            missing=self.cargo.missing,
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
            # Without a cache nobody gains by a fetch that others could follow.
            shared = self.context.cache is not None
            async with _Watched(self.source, blob, self.progress, shared=shared) as stream:
                self.progress(BlobAdvanced(blob, 0))
                with self._writing():
                    await self.output.put_blob(stream)
        except BlobNotFoundError:
            if not blob.urls:
                raise
            self._warn(f"nobody holds {blob.digest}, which the manifest says to find by URL")
            return
        size = stream.received if stream.size is None else stream.size
        self.written.append(size)
        self.progress(BlobCopied(blob, size, stream.member))

    async def _put_signatures(self) -> None:
        lost = 0
        for instance, signatures in self.cargo.signed:
            if await self.output.put_signatures(signatures, instance):
                self.signatures += len(signatures)
            else:
                lost += len(signatures)
        if lost:
            were = "1 signature was" if lost == 1 else f"{lost} signatures were"
            self._warn(f"{were} not copied: this destination cannot hold them")

    def _list_extras(self) -> None:
        extras = self.cargo.extras
        if not extras or (isinstance(self.output, Listing) and self.output.list_beside(extras)):
            return
        images = "1 extra image" if len(extras) == 1 else f"{len(extras)} extra images"
        self._warn(
            f"{images} can be had by digest only: this destination has room for one image in its "
            "list, oci:PATH:NAME for many"
        )

    # Warnings

    def _warn_before(self) -> None:
        for sparse in self.cargo.sparse:
            self._warn(_tell(sparse))
        if self.cargo.unlisted:
            self._warn(f"nobody supplied the requested {_name(self.cargo.unlisted)}")
        kept = sorted({m.media_type for m in self.cargo.manifests} & _DOCKER)
        if kept and self.output.reference.transport == "oci":
            self._warn(
                f"Docker media types are kept as they are ({', '.join(kept)}); some tools read "
                "only those of OCI from a layout"
            )

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        self.context.emit(Warned(str(self.output.reference), message))


def _tell(sparse: Sparse) -> str:
    held = sparse.named - len(sparse.left_out) - len(sparse.missing)
    told = f"the list {sparse.digest} is sparse: {held} of the {sparse.named} it names are copied"
    if sparse.missing:
        told += f"; nobody supplied {_name(sparse.missing)}"
    return told


def _name(digests: Sequence[str]) -> str:
    names = ", ".join(digests[:_NAMED])
    return names if len(digests) <= _NAMED else f"{names} and {len(digests) - _NAMED} more"


class _Watched(BlobStream):
    """A stream that reports its progress, and whose errors say that they are the source's."""

    __slots__ = ("_progress", "_reference", "_stream")

    def __init__(
        self,
        source: Source,
        blob: Descriptor,
        progress: Callable[[CopyProgress], None],
        *,
        shared: bool,
    ) -> None:
        self._reference = source.reference
        self._progress = progress
        with _on_side("source", self._reference):
            self._stream = source.open_blob(blob, shared=shared)

    @property
    def descriptor(self) -> Descriptor:
        return self._stream.descriptor

    @property
    def size(self) -> int | None:
        return self._stream.size

    @property
    def received(self) -> int:
        return self._stream.received

    @property
    def member(self) -> int | None:
        return self._stream.member

    @property
    def served(self) -> Sequence[Served]:
        return self._stream.served

    @property
    def verified(self) -> bool | None:
        return self._stream.verified

    def take_path(self) -> Path | None:
        return self._stream.take_path()

    async def __aenter__(self) -> Self:
        with _on_side("source", self._reference):
            await self._stream.__aenter__()
        return self

    async def __anext__(self) -> bytes:
        with _on_side("source", self._reference):
            chunk = await self._stream.__anext__()
        self._progress(BlobAdvanced(self.descriptor, self._stream.received))
        return chunk

    async def read_all(self, limit: int) -> bytes:
        with _on_side("source", self._reference):
            return await self._stream.read_all(limit)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stream.__aexit__(exc_type, exc, traceback)

    async def aclose(self) -> None:
        await self._stream.aclose()
