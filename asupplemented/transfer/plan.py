"""What a copy or a prefetch consists of, read and checked before anything is written.

Theory of operation. `ManifestWalker` starts at a manifest and reads, level by level, every
manifest that the selection takes from the lists on the way. A level is read as a whole before the
next one begins, in batches where the source reads many manifests as cheaply as one. A prefetch
needs no more.

A copy needs a closed set: every blob that its manifests name is part of the plan, and every
instance that its lists name is either part of it or known to be left out. `plan_copy` therefore
adds the extras of a group, the blobs, the signatures, and the order of writing. `CopyPlan.levels`
is a topological order: an instance is written before the lists that name it, so that no reader of
the destination follows a list to a manifest that is not there yet.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.abc import GroupSource
from asupplemented.aio.concurrency import for_each
from asupplemented.aio.slots import BlobSlots
from asupplemented.aio.threads import run_by_size
from asupplemented.errors import (
    InstanceNotFoundError,
    LimitExceededError,
    MalformedManifestError,
    NotFoundError,
    SizeMismatchError,
    SupplementedError,
    UnsupportedManifestError,
    UnsupportedOperationError,
)
from asupplemented.limits import (
    BLOBS_AT_ONCE,
    MAX_INSTANCES,
    MAX_MANIFESTS_TOTAL,
    MAX_NESTING,
)
from asupplemented.model.digest import Digest
from asupplemented.model.index import SpecificImages, SystemImage, choose
from asupplemented.model.manifest import ImageManifest, Index
from asupplemented.model.media_type import SCHEMA1

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from asupplemented.abc import Context, Source
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.index import Selection
    from asupplemented.model.manifest import Manifest, UnreadManifest
    from asupplemented.model.platform import Platform
    from asupplemented.model.signature import Signature

__all__ = (
    "CopyPlan",
    "Extra",
    "ManifestWalker",
    "Signed",
    "Sparse",
    "for_each_blob",
    "plan_copy",
    "sum_sizes",
)

MANY: Final = 2000
"""Layers after which the event loop gets a turn."""

BATCH: Final = 64
"""Manifests asked for at once where the source reads many as cheaply as one."""


class Sparse(NamedTuple):
    """A list that is copied without some of the instances it names."""

    digest: Digest
    named: int
    """Number of distinct instances that it names."""
    left_out: tuple[str, ...]
    """Instances that the selection does not take, as the list writes them."""
    missing: tuple[str, ...]
    """Instances that the selection takes and that no member of the group supplies."""


class Signed(NamedTuple):
    """The signatures of one manifest."""

    instance: Digest | None
    """None for the top."""
    signatures: tuple[Signature, ...]


class Extra(NamedTuple):
    """An image that the top does not lead to."""

    manifest: Manifest
    platform: Platform | None


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """Everything that a copy writes, in the order of writing.

    Attributes:
        layers: Layers of all images, each once, in the order of the manifests.
        configs: Configs of all images, each once; none of them is a layer too.
        levels: Manifests without the top; an instance is in an earlier level than its lists.
        signed: Signatures, those of the top first.
        top: The manifest that is written last and makes everything visible.
        platform: Platform of the top, if the list that it was chosen from names one.
        extras: Images that the top does not lead to; they are in `levels` as well.
        sparse: Lists that are copied without some of their instances.
        unlisted: Requested instances that no member supplies and that no list here names.
    """

    layers: tuple[Descriptor, ...]
    configs: tuple[Descriptor, ...]
    levels: tuple[tuple[Manifest, ...], ...]
    signed: tuple[Signed, ...]
    top: Manifest
    platform: Platform | None
    extras: tuple[Extra, ...]
    sparse: tuple[Sparse, ...]
    unlisted: tuple[Digest, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Instances that the copy should contain and that no member supplies."""
        listed = (digest for sparse in self.sparse for digest in sparse.missing)
        return tuple(dict.fromkeys((*listed, *self.unlisted)))

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """Every manifest, the top last."""
        return (*(manifest for level in self.levels for manifest in level), self.top)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Layers and configs, in no order that matters."""
        return (*self.layers, *self.configs)

    @property
    def size(self) -> int | None:
        """Bytes of all blobs; None if a manifest does not give the size of one."""
        return sum_sizes(self.blobs)


def sum_sizes(blobs: Iterable[Descriptor]) -> int | None:
    """Bytes of some blobs; None if the size of one is not known."""
    total = 0
    for blob in blobs:
        if blob.size is None:
            return None
        total += blob.size
    return total


async def for_each_blob(
    blobs: Collection[Descriptor],
    action: Callable[[Descriptor], Awaitable[None]],
    *,
    limit: int | None,
) -> None:
    """Run an action for each blob, as `for_each` does, many at a time (rule SR-04).

    Args:
        blobs: The blobs; actions are started in their order.
        action: What to do.
        limit: How many at a time; None for six large ones, or up to 64 small ones.

    Raises:
        BaseException: See `for_each`.
    """
    slots = BlobSlots()

    async def act(blob: Descriptor) -> None:
        async with slots.hold(slots.weigh(blob.size)):
            await action(blob)

    if limit is None:
        await for_each(blobs, act, limit=BLOBS_AT_ONCE)
    else:
        await for_each(blobs, action, limit=limit)


async def plan_copy(
    source: Source,
    selection: Selection,
    session: Context,
    *,
    extras: bool = False,
    concurrency: int = 1,
) -> CopyPlan:
    """Read all manifests that a copy needs, and check that they can be copied.

    Args:
        source: The source to copy from; it stays open.
        selection: `AllImages`: everything that the default manifest leads to, through nested
            lists. `SpecificImages`: the requested ones among these, and the lists that they are
            in. `SystemImage`: the one image, which becomes the top.
        session: Its threads parse what is large.
        extras: Whether to copy images that only the supplements of a group have; with a specific
            selection, the requested ones among them. Lists of supplements are never copied.
        concurrency: Requests at the same time, at least 1.

    Raises:
        InstanceNotFoundError: A selected manifest does not exist, or a requested one is not named
            by any list on the way from the top, and `extras` is not set.
        PlatformNotFoundError: No image fits the platform.
        UnsupportedManifestError: A manifest is of schema 1, which is never written.
        UnsupportedOperationError: The source serves layers under other digests than the manifest
            names (rule K-06).
        SizeMismatchError: Two manifests give different sizes of one blob.
        LimitExceededError: Too many manifests, too large, or nested too deep (rule X-15).
        SupplementedError: The source failed.
    """
    walker = ManifestWalker(source, selection, session, concurrency)
    default = await source.get_manifest()
    if isinstance(selection, SystemImage):
        top, platform = await _choose_image(walker, default, selection)
    else:
        top, platform = default, None
    signatures: dict[Digest, tuple[Signature, ...]] = {}

    async def read_first_signatures() -> None:
        # Beside the manifests: it shows which kinds of signatures there are, which takes a request.
        signatures[default.digest] = await source.get_signatures()

    steps: list[Callable[[], Awaitable[None]]] = [partial(walker.walk, top)]
    if top is default:
        steps.append(read_first_signatures)
    await for_each(steps, lambda step: step(), limit=len(steps))
    beside = _find_extras(walker, extras=extras)
    await walker.read(list(beside))
    _check_writable(source, walker.found.values())
    layers, configs = await _read_blobs(walker, default)
    return CopyPlan(
        layers=layers,
        configs=configs,
        levels=_sort_into_levels(walker, top),
        signed=await _read_signatures(walker, top, default, signatures),
        top=top,
        platform=platform,
        extras=tuple(Extra(walker.found[digest], platform) for digest, platform in beside.items()),
        sparse=tuple(walker.sparse),
        unlisted=_find_unlisted(walker),
    )


# Manifests


@dataclass(slots=True)
class ManifestWalker:
    """Reads the manifests that a selection reaches, level by level, from the top down.

    Attributes:
        source: The source to read from.
        selection: What is taken from each list.
        session: Its threads parse what is large.
        concurrency: Requests at the same time, at least 1.
        skip_missing: Whether an instance that is not found is left out; otherwise it raises.
        found: Every manifest that was read, in the order of the lists.
        children: Digest of a list to the instances of it that were taken.
        sparse: Lists that name more than was taken.
        missing: Instances that were taken and that the source does not supply.
        absent: Instances that a group does not supply, known from its resolution.
        opaque: Whether what is of an unknown type is copied as it is: a group decided that.
    """

    source: Source
    selection: Selection
    session: Context
    concurrency: int
    skip_missing: bool = False
    found: dict[Digest, Manifest] = field(default_factory=dict[Digest, "Manifest"])
    children: dict[Digest, tuple[Digest, ...]] = field(
        default_factory=dict[Digest, tuple[Digest, ...]]
    )
    sparse: list[Sparse] = field(default_factory=list[Sparse])
    missing: dict[str, None] = field(default_factory=dict[str, None])
    named: dict[Digest, Descriptor] = field(default_factory=dict[Digest, "Descriptor"])
    """The first list entry of each instance."""
    absent: frozenset[str] = field(init=False)
    opaque: bool = field(init=False)
    _total: int = 0
    """Bytes of the manifests that were read."""

    def __post_init__(self) -> None:
        source = self.source
        self.opaque = isinstance(source, GroupSource)
        self.absent = source.list_missing() if isinstance(source, GroupSource) else frozenset()

    async def walk(self, top: Manifest) -> None:
        """Read everything that the selection takes, from `top` down.

        Raises:
            NotFoundError: A selected manifest does not exist, and `skip_missing` is not set.
            PlatformNotFoundError: A list has no image for the platform of the selection.
            LimitExceededError: Too many manifests, too large, or nested too deep (rule X-15).
            SupplementedError: The source failed.
        """
        self.found[top.digest] = top
        level, depth = [top], 0
        while lists := [manifest for manifest in level if manifest.is_index]:
            depth += 1
            if depth > MAX_NESTING:
                raise _too_deep(self.source)
            taken: dict[Digest, None] = {}
            for manifest in lists:
                taken.update(dict.fromkeys(await self._select(manifest)))
            level = await self.read([digest for digest in taken if digest not in self.found])

    async def read(self, digests: Sequence[Digest]) -> list[Manifest]:
        """Read some manifests, in batches if that is cheaper. The order is that of `digests`."""
        if len(self.found) + len(digests) > MAX_INSTANCES:
            message = f"the lists name more than {MAX_INSTANCES} manifests"
            raise LimitExceededError(message, limit=MAX_INSTANCES, reference=self.source.reference)
        read: dict[Digest, Manifest] = {}

        def take(digest: Digest, outcome: UnreadManifest | SupplementedError) -> None:
            if not isinstance(outcome, SupplementedError):
                self._count(outcome)
                read[digest] = outcome.read(self.named.get(digest), opaque=self.opaque)
            elif not self.skip_missing or not isinstance(outcome, NotFoundError):
                raise outcome.locate(reference=self.source.reference, digest=digest)

        async def read_one(digest: Digest) -> None:
            await read_batch([digest])

        async def read_batch(batch: Sequence[Digest]) -> None:
            outcomes = await self.source.fetch_manifests(batch)
            for digest, outcome in zip(batch, outcomes, strict=True):
                take(digest, outcome)

        if self.source.batched:
            await for_each(list(_batches(digests)), read_batch, limit=1)
        else:
            await for_each(digests, read_one, limit=self.concurrency)
        # Only now, in the order of the lists: requests finish in any order.
        found = {digest: read[digest] for digest in digests if digest in read}
        self.missing.update((digest, None) for digest in digests if digest not in read)
        self.found.update(found)
        return list(found.values())

    async def parse(self, manifest: Manifest) -> ImageManifest | Index | None:
        """Parse a manifest, a large one in a thread, and keep nothing; None if it is opaque."""
        if manifest.is_opaque:
            return None
        return await run_by_size(self.session, manifest.size, manifest.parse_once)

    async def _select(self, manifest: Manifest) -> tuple[Digest, ...]:
        """Apply the selection to a list; return the instances to read."""
        index = await self.parse(manifest)
        if not isinstance(index, Index):
            return ()
        chosen = {entry.digest: entry for entry in reversed(choose(self.selection, index))}
        chosen = dict(reversed(chosen.items()))
        missing = tuple(text for text in chosen if text in self.absent)
        taken = tuple(Digest(text) for text in chosen if text not in self.absent)
        for digest in taken:
            self.named.setdefault(digest, chosen[digest])
        named = dict.fromkeys(entry.digest for entry in index.manifests)
        if len(taken) < len(named):
            left_out = tuple(text for text in named if text not in chosen)
            self.sparse.append(Sparse(manifest.digest, len(named), left_out, missing))
        self.missing.update(dict.fromkeys(missing))
        self.children[manifest.digest] = taken
        return taken

    def _count(self, manifest: UnreadManifest) -> None:
        self._total += manifest.size
        if self._total > MAX_MANIFESTS_TOTAL:
            message = f"the manifests exceed {MAX_MANIFESTS_TOTAL} bytes in all"
            raise LimitExceededError(
                message, limit=MAX_MANIFESTS_TOTAL, reference=self.source.reference
            )


def _batches(digests: Sequence[Digest]) -> Iterable[Sequence[Digest]]:
    waiting = iter(digests)
    while batch := tuple(islice(waiting, BATCH)):
        yield batch


async def _choose_image(
    walker: ManifestWalker, manifest: Manifest, selection: SystemImage
) -> tuple[Manifest, Platform | None]:
    """The one image for a platform, lists within lists included, and its platform."""
    platform: Platform | None = None
    for _ in range(MAX_NESTING + 1):
        parsed = await walker.parse(manifest)
        if not isinstance(parsed, Index):
            return manifest, platform
        [entry] = choose(selection, parsed)
        platform = entry.platform or platform
        manifest = await walker.source.get_named(entry, opaque=walker.opaque)
    raise _too_deep(walker.source)


def _too_deep(source: Source) -> LimitExceededError:
    message = f"lists are nested more than {MAX_NESTING} deep"
    return LimitExceededError(message, limit=MAX_NESTING, reference=source.reference)


def _find_extras(walker: ManifestWalker, *, extras: bool) -> Mapping[Digest, Platform | None]:
    """Images to copy that the top does not lead to, each with its platform.

    Raises:
        InstanceNotFoundError: A requested manifest is not part of the copy.
    """
    source, selection = walker.source, walker.selection
    others: dict[Digest, Platform | None] = {}
    if extras and isinstance(source, GroupSource):
        images = source.list_images().items()
        others = {digest: platform for digest, platform in images if digest not in walker.found}
    if not isinstance(selection, SpecificImages):
        return others
    known = walker.found.keys() | others.keys() | walker.absent
    unknown = [digest for digest in selection.digests if digest not in known]
    if unknown:
        remedy = "" if extras else "; extras come along only if they are asked for"
        message = f"the lists of the top do not name the requested {', '.join(unknown)}{remedy}"
        raise InstanceNotFoundError(message, reference=source.reference, digests=tuple(unknown))
    return {digest: others[digest] for digest in selection.digests if digest in others}


def _find_unlisted(walker: ManifestWalker) -> tuple[Digest, ...]:
    """Requested instances that no member supplies and no list names."""
    if not isinstance(walker.selection, SpecificImages):
        return ()
    requested = walker.selection.digests
    return tuple(d for d in requested if d in walker.absent and d not in walker.missing)


def _check_writable(source: Source, manifests: Iterable[Manifest]) -> None:
    for manifest in manifests:
        if manifest.media_type in SCHEMA1:
            message = "a schema 1 manifest is read but never written; convert the image first"
            raise UnsupportedManifestError(
                message, reference=source.reference, digest=manifest.digest
            )


def _sort_into_levels(walker: ManifestWalker, top: Manifest) -> tuple[tuple[Manifest, ...], ...]:
    """All manifests but the top, each in an earlier level than the lists that name it."""
    sorter = TopologicalSorter({d: walker.children.get(d, ()) for d in walker.found})
    try:
        sorter.prepare()
    except CycleError as error:
        message = "lists name each other in a circle"
        raise MalformedManifestError(
            message, reference=walker.source.reference, digest=top.digest
        ) from error
    levels: list[tuple[Manifest, ...]] = []
    while sorter.is_active():
        ready = sorter.get_ready()
        sorter.done(*ready)
        levels.append(tuple(walker.found[d] for d in ready if d != top.digest))
    return tuple(filter(None, levels))


# Blobs and signatures


async def _read_blobs(
    walker: ManifestWalker, default: Manifest
) -> tuple[tuple[Descriptor, ...], tuple[Descriptor, ...]]:
    """Layers and configs of all images, each once."""
    layers: dict[str, Descriptor] = {}
    configs: dict[str, Descriptor] = {}
    for manifest in walker.found.values():
        image = await walker.parse(manifest)
        if not isinstance(image, ImageManifest):
            continue
        asked = None if manifest.digest == default.digest else manifest.digest
        served = await walker.source.layers_for_copy(asked)
        for number, layer in enumerate(_checked_layers(manifest, image, served), start=1):
            _add(layers, layer)
            if number % MANY == 0:
                await asyncio.sleep(0)  # Others must not wait for all layers of large images.
        if image.config is not None and image.config.digest:
            _add(configs, image.config)
    # No blob is written twice.
    for digest in [digest for digest in configs if digest in layers]:
        _add(layers, configs.pop(digest))
    return tuple(layers.values()), tuple(configs.values())


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
    """Add a blob once, under a descriptor that gives its size if there is one."""
    digest = Digest(blob.digest)
    known = blobs.get(digest)
    if known is None or known.size is None:
        blobs[digest] = blob
    elif blob.size is not None and blob.size != known.size:
        message = f"two manifests give different sizes of a blob: {known.size} and {blob.size}"
        raise SizeMismatchError(message, digest=digest, expected=known.size, actual=blob.size)


async def _read_signatures(
    walker: ManifestWalker,
    top: Manifest,
    default: Manifest,
    found: dict[Digest, tuple[Signature, ...]],
) -> tuple[Signed, ...]:
    """The signatures of all manifests, those of the top first.

    Args:
        walker: Its manifests.
        top: What the copy makes the top.
        default: The default manifest of the source.
        found: Those that were read before; the others are added.
    """

    async def read(digest: Digest) -> None:
        asked = None if digest == default.digest else digest
        found[digest] = await walker.source.get_signatures(asked)

    missing = [digest for digest in walker.found if digest not in found]
    await for_each(missing, read, limit=walker.concurrency)
    return tuple(
        Signed(None if digest == top.digest else digest, found[digest])
        for digest in walker.found
        if found[digest]
    )
