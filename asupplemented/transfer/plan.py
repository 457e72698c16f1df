"""What a copy consists of, read and checked before anything is written.

A cargo is closed: every blob that its manifests name is in it, and of the manifests that its
lists name, those that are not in it are known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from asupplemented.aio.concurrency import for_each
from asupplemented.errors import (
    InstanceNotFoundError,
    LimitExceededError,
    MalformedManifestError,
    SizeMismatchError,
    SupplementedError,
    UnsupportedManifestError,
    UnsupportedOperationError,
)
from asupplemented.limits import MAX_INSTANCES, MAX_MANIFESTS_TOTAL, MAX_NESTING
from asupplemented.model.digest import Digest
from asupplemented.model.index import SpecificImages, SystemImage, choose
from asupplemented.model.manifest import ImageManifest, Index
from asupplemented.model.media_type import DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED
from asupplemented.supplemented import SupplementedSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asupplemented.abc import Source
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.index import Selection
    from asupplemented.model.manifest import Manifest
    from asupplemented.model.platform import Platform
    from asupplemented.model.signature import Signature

__all__ = ("Cargo", "Extra", "Signed", "Sparse", "read_cargo")

T = TypeVar("T")

BATCH: Final = 64
"""Manifests asked for in one hop where the source reads many as cheaply as one."""

_SCHEMA1: Final = frozenset((DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED))


class Sparse(NamedTuple):
    """A list that is copied without all that it names."""

    digest: Digest
    named: int
    """How many distinct manifests it names."""
    left_out: tuple[str, ...]
    """Those that the selection did not take, as the list writes them."""
    missing: tuple[Digest, ...]
    """Those that were wanted and that nobody supplied."""


class Signed(NamedTuple):
    """A manifest's signatures."""

    instance: Digest | None
    """None for the top."""
    signatures: tuple[Signature, ...]


class Extra(NamedTuple):
    """An image that the top does not lead to."""

    manifest: Manifest
    platform: Platform | None


@dataclass(frozen=True, slots=True)
class Cargo:
    """All that is written, in groups that are written one after another.

    Attributes:
        layers: Layers of all images, each once, in the order met.
        configs: Configs of all images, each once; none of them is a layer too.
        tiers: Manifests but for the top; what a list names is in an earlier tier.
        signed: Signatures, the top's first.
        top: The manifest that makes all visible.
        platform: The platform of the top, where a list that was left behind told it.
        extras: Images, in `tiers` as well, that the top does not lead to.
        sparse: Lists with holes.
        unlisted: Requested manifests that nobody supplied and that none of these lists names.
    """

    layers: tuple[Descriptor, ...]
    configs: tuple[Descriptor, ...]
    tiers: tuple[tuple[Manifest, ...], ...]
    signed: tuple[Signed, ...]
    top: Manifest
    platform: Platform | None
    extras: tuple[Extra, ...]
    sparse: tuple[Sparse, ...]
    unlisted: tuple[Digest, ...]

    @property
    def missing(self) -> tuple[Digest, ...]:
        """All that was wanted and that nobody supplied."""
        listed = (digest for sparse in self.sparse for digest in sparse.missing)
        return tuple(dict.fromkeys((*listed, *self.unlisted)))

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """Every manifest, the top last."""
        return (*(manifest for tier in self.tiers for manifest in tier), self.top)

    @property
    def size(self) -> int | None:
        """Bytes of all blobs, None if the size of one is not known."""
        sizes = [blob.size for blob in (*self.layers, *self.configs)]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None


async def read_cargo(
    source: Source, selection: Selection, *, extras: bool = False, concurrency: int = 1
) -> Cargo:
    """Read all manifests that a copy needs, and see that they can be copied.

    Args:
        source: Where from; it stays open.
        selection: `AllImages`: all that the default manifest leads to, through nested lists.
            `SpecificImages`: of that only the requested ones, and the lists they are in.
            `SystemImage`: the one image, which becomes the top.
        extras: Whether images come along that only the supplements of a group have; of a
            specific selection, the requested ones. Lists of supplements never do.
        concurrency: Requests side by side, at least 1.

    Raises:
        InstanceNotFoundError: A selected manifest is not there, or a requested one is not named
            by any list on the way from the top, and `extras` are not wanted.
        PlatformNotFoundError: No image fits the platform.
        UnsupportedManifestError: A manifest is of schema 1, which is never written.
        UnsupportedOperationError: The source serves layers under other digests than the manifest
            names (rule K-06).
        SizeMismatchError: Two manifests tell different sizes of one blob.
        LimitExceededError: Too many manifests, too large, or nested too deep (rule X-15).
        SupplementedError: The source failed.
    """
    reader = _Reader(source, selection, concurrency)
    default = await source.get_manifest()
    if isinstance(selection, SystemImage):
        top, platform = await reader.choose_image(default, selection)
    else:
        top, platform = default, None
    await reader.read_below(top)
    beside = reader.find_extras(extras=extras)
    await reader.add_extras(beside)
    layers, configs = await reader.read_blobs(default)
    return Cargo(
        layers=layers,
        configs=configs,
        tiers=reader.sort_into_tiers(top),
        signed=await reader.read_signatures(top, default),
        top=top,
        platform=platform,
        extras=tuple(Extra(reader.found[digest], platform) for digest, platform in beside.items()),
        sparse=tuple(reader.sparse),
        unlisted=reader.find_unlisted(),
    )


@dataclass(slots=True)
class _Reader:
    """Reads level by level, from the top down."""

    source: Source
    selection: Selection
    concurrency: int
    found: dict[Digest, Manifest] = field(default_factory=dict[Digest, "Manifest"])
    """Everything to copy, in the order met."""
    below: dict[Digest, tuple[Digest, ...]] = field(
        default_factory=dict[Digest, tuple[Digest, ...]]
    )
    """A list to what it names and is copied."""
    sparse: list[Sparse] = field(default_factory=list[Sparse])
    holes: frozenset[Digest] = field(init=False)
    """What a group was resolved without."""
    total: int = 0
    """Bytes of all manifests."""

    def __post_init__(self) -> None:
        source = self.source
        missing = source.resolution.missing if isinstance(source, SupplementedSource) else ()
        self.holes = frozenset(hole.digest for hole in missing)

    # Manifests

    async def choose_image(
        self, manifest: Manifest, selection: SystemImage
    ) -> tuple[Manifest, Platform | None]:
        """The one image for a platform, lists within lists included, and what runs it."""
        platform: Platform | None = None
        for _ in range(MAX_NESTING + 1):
            parsed = manifest.parse()
            if not isinstance(parsed, Index):
                return manifest, platform
            [entry] = choose(selection, parsed)
            platform = entry.platform or platform
            manifest = await self.source.get_manifest(Digest(entry.digest))
        raise self._too_deep()

    async def read_below(self, top: Manifest) -> None:
        """Read all that the selection takes, from `top` down."""
        self._admit([top])
        level, depth = [top], 0
        while lists := [manifest for manifest in level if manifest.is_index]:
            depth += 1
            if depth > MAX_NESTING:
                raise self._too_deep()
            named = dict.fromkeys(d for manifest in lists for d in self._enter(manifest))
            level = await self._fetch([digest for digest in named if digest not in self.found])

    def find_extras(self, *, extras: bool) -> dict[Digest, Platform | None]:
        """Images to copy that the top does not lead to, each with its platform.

        Raises:
            InstanceNotFoundError: A requested manifest is not among what is copied.
        """
        others: dict[Digest, Platform | None] = {}
        if extras and isinstance(self.source, SupplementedSource):
            others = {
                instance.digest: instance.platform
                for instance in self.source.instances()
                if not instance.is_index and instance.digest not in self.found
            }
        if not isinstance(self.selection, SpecificImages):
            return others
        requested = self.selection.digests
        known = self.found.keys() | others.keys() | self.holes
        absent = [digest for digest in requested if digest not in known]
        if absent:
            remedy = "" if extras else "; extras come along only if they are asked for"
            message = f"the lists of the top do not name the requested {', '.join(absent)}{remedy}"
            raise InstanceNotFoundError(
                message, reference=self.source.reference, digests=tuple(absent)
            )
        return {digest: others[digest] for digest in requested if digest in others}

    def find_unlisted(self) -> tuple[Digest, ...]:
        """Requested holes that no list names: nobody knows them at all."""
        if not isinstance(self.selection, SpecificImages):
            return ()
        listed = {digest for sparse in self.sparse for digest in sparse.missing}
        return tuple(d for d in self.selection.digests if d in self.holes and d not in listed)

    async def add_extras(self, extras: Iterable[Digest]) -> None:
        """Read images beside what the top leads to."""
        await self._fetch(list(extras))

    def _enter(self, manifest: Manifest) -> tuple[Digest, ...]:
        """What is copied of a list's entries."""
        index = manifest.parse_index()
        chosen = dict.fromkeys(Digest(entry.digest) for entry in choose(self.selection, index))
        missing = tuple(digest for digest in chosen if digest in self.holes)
        taken = tuple(digest for digest in chosen if digest not in self.holes)
        named = dict.fromkeys(entry.digest for entry in index.manifests)
        if len(taken) < len(named):
            left_out = tuple(text for text in named if text not in chosen)
            self.sparse.append(Sparse(manifest.digest, len(named), left_out, missing))
        self.below[manifest.digest] = taken
        return taken

    async def _fetch(self, digests: Sequence[Digest]) -> list[Manifest]:
        if len(self.found) + len(digests) > MAX_INSTANCES:
            message = f"the lists name more than {MAX_INSTANCES} manifests"
            raise LimitExceededError(message, limit=MAX_INSTANCES, reference=self.source.reference)
        fetched: dict[Digest, Manifest] = {}

        async def fetch(digest: Digest) -> None:
            fetched[digest] = manifest = await self.source.get_manifest(digest)
            self._count(manifest)

        async def fetch_batch(batch: Sequence[Digest]) -> None:
            outcomes = await self.source.get_manifests(batch)
            for digest, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, SupplementedError):
                    raise outcome.locate(reference=self.source.reference, digest=digest)
                fetched[digest] = outcome
                self._count(outcome)

        if self.source.batched:
            await for_each(list(_batches(digests)), fetch_batch, limit=1)
        else:
            await for_each(digests, fetch, limit=self.concurrency)
        return self._admit([fetched[digest] for digest in digests])

    def _count(self, manifest: Manifest) -> None:
        self.total += manifest.size
        if self.total > MAX_MANIFESTS_TOTAL:
            message = f"the manifests exceed {MAX_MANIFESTS_TOTAL} bytes in all"
            raise LimitExceededError(
                message, limit=MAX_MANIFESTS_TOTAL, reference=self.source.reference
            )

    def _admit(self, manifests: list[Manifest]) -> list[Manifest]:
        for manifest in manifests:
            if manifest.media_type in _SCHEMA1:
                message = "a schema 1 manifest is read but never written; convert the image first"
                raise UnsupportedManifestError(
                    message, reference=self.source.reference, digest=manifest.digest
                )
            self.found[manifest.digest] = manifest
        return manifests

    def _too_deep(self) -> LimitExceededError:
        message = f"lists are nested more than {MAX_NESTING} deep"
        return LimitExceededError(message, limit=MAX_NESTING, reference=self.source.reference)

    def sort_into_tiers(self, top: Manifest) -> tuple[tuple[Manifest, ...], ...]:
        """All but the top, what a list names in an earlier tier than the list."""
        sorter = TopologicalSorter({digest: self.below.get(digest, ()) for digest in self.found})
        try:
            sorter.prepare()
        except CycleError as error:
            message = "lists name each other in a circle"
            raise MalformedManifestError(
                message, reference=self.source.reference, digest=top.digest
            ) from error
        tiers: list[tuple[Manifest, ...]] = []
        while sorter.is_active():
            ready = sorter.get_ready()
            sorter.done(*ready)
            tiers.append(tuple(self.found[d] for d in ready if d != top.digest))
        return tuple(filter(None, tiers))

    # What belongs to them

    async def read_blobs(
        self, default: Manifest
    ) -> tuple[tuple[Descriptor, ...], tuple[Descriptor, ...]]:
        """Layers and configs of all images, each once."""
        layers: dict[str, Descriptor] = {}
        configs: dict[str, Descriptor] = {}
        for manifest in self.found.values():
            image = manifest.parse()
            if not isinstance(image, ImageManifest):
                continue
            asked = None if manifest.digest == default.digest else manifest.digest
            served = await self.source.layers_for_copy(asked)
            for layer in _checked_layers(manifest, image, served):
                _add(layers, layer)
            if image.config is not None and image.config.digest:
                _add(configs, image.config)
        for digest in [digest for digest in configs if digest in layers]:
            _add(layers, configs.pop(digest))
        return tuple(layers.values()), tuple(configs.values())

    async def read_signatures(self, top: Manifest, default: Manifest) -> tuple[Signed, ...]:
        """The signatures of all manifests, the top's first."""
        found: dict[Digest, tuple[Signature, ...]] = {}

        async def read(digest: Digest) -> None:
            asked = None if digest == default.digest else digest
            found[digest] = await self.source.get_signatures(asked)

        await for_each(self.found, read, limit=self.concurrency)
        return tuple(
            Signed(None if digest == top.digest else digest, found[digest])
            for digest in self.found
            if found[digest]
        )


def _checked_layers(
    manifest: Manifest, image: ImageManifest, served: Sequence[Descriptor] | None
) -> Sequence[Descriptor]:
    """The layers to ask for, which must be those that the manifest names (rule K-06)."""
    if served is None:
        return image.layers
    if [layer.digest for layer in served] != [layer.digest for layer in image.layers]:
        message = (
            "this source has the layers only in another form than the manifest names; copying "
            "would change the manifest, so let another member serve this image"
        )
        raise UnsupportedOperationError(message, digest=manifest.digest)
    return served


def _add(blobs: dict[str, Descriptor], blob: Descriptor) -> None:
    """Take a blob once, by the description that tells its size."""
    digest = Digest(blob.digest)
    known = blobs.get(digest)
    if known is None or known.size is None:
        blobs[digest] = blob
    elif blob.size is not None and blob.size != known.size:
        message = f"two manifests tell different sizes of a blob: {known.size} and {blob.size}"
        raise SizeMismatchError(message, digest=digest, expected=known.size, actual=blob.size)


def _batches(digests: Sequence[Digest]) -> Iterable[Sequence[Digest]]:
    waiting = iter(digests)
    while batch := tuple(islice(waiting, BATCH)):
        yield batch
