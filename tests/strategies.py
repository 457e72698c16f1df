"""Random worlds for the resolver, and the building stones of hand-made ones.

The manifests here are fakes in one respect: their digests are not those of their bytes but
names, so that a world may lie. In such worlds a list can name itself, and two members can hold
different content under one digest. What is right in such worlds is right in honest ones.
"""

from __future__ import annotations

import json
from itertools import pairwise, product
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from asupplemented.errors import (
    DigestMismatchError,
    ForbiddenError,
    ImageNotFoundError,
    InstanceNotFoundError,
    LayoutError,
    MalformedManifestError,
    ManifestNotFoundError,
    NetworkError,
    PermissionDeniedError,
    PlatformNotFoundError,
    ServerError,
    SourceTimeoutError,
    TooManyRequestsError,
    TruncatedError,
    UnauthorizedError,
)
from asupplemented.model.digest import Digest
from asupplemented.model.index import AllImages, SpecificImages, SystemImage
from asupplemented.model.manifest import Manifest
from asupplemented.model.media_type import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
)
from asupplemented.model.platform import Platform
from tests.serial_model import Request, World

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asupplemented.errors import SupplementedError
    from asupplemented.model.index import Selection
    from tests.serial_model import Outcome

# Building stones


def named(name: str) -> Digest:
    """A digest that can be told from others at a glance: the name in hex."""
    return Digest("sha256:" + name.encode().hex().rjust(64, "0"))


def image(name: str, *layers: str, config: str | None = None, kind: str = OCI_MANIFEST) -> Manifest:
    """An image. Blobs are given by name, or by digest where it has a colon.

    Args:
        name: Its digest is `named` after it.
        layers: Base layer first.
        config: None for one that no other image has; "" for a config without a digest.
        kind: Media type.
    """
    if kind == DOCKER_SCHEMA1:
        return _manifest(name, kind, _schema1([layer for layer in layers if ":" not in layer]))
    docker = kind == DOCKER_MANIFEST
    text = f"config of {name}" if config is None else config
    return _manifest(
        name,
        kind,
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": _descriptor(text, DOCKER_CONFIG if docker else OCI_CONFIG),
            "layers": [_descriptor(x, DOCKER_LAYER if docker else OCI_LAYER) for x in layers],
        },
    )


def index(
    name: str,
    *entries: str,
    platforms: Iterable[str | None] = (),
    told: Iterable[Mapping[str, object]] = (),
    kind: str = OCI_INDEX,
) -> Manifest:
    """An index over instances, by name, or by digest where it has a colon.

    Args:
        name: Its digest is `named` after it.
        entries: In document order.
        platforms: For each entry ``os/architecture[/variant]`` or None; none for the rest.
        told: For each entry what else it says, like its size; nothing for the rest.
        kind: Media type.
    """
    manifests = [{"digest": _descriptor(entry, "")["digest"]} for entry in entries]
    for manifest, more in zip(manifests, told, strict=False):
        manifest.update(more)
    for manifest, platform in zip(manifests, platforms, strict=False):
        if platform is not None:
            parts = zip(("os", "architecture", "variant"), platform.split("/"), strict=False)
            manifest["platform"] = dict(parts)
    return _manifest(name, kind, {"schemaVersion": 2, "mediaType": kind, "manifests": manifests})


def renamed(manifest: Manifest, digest: Digest) -> Manifest:
    """The same content under a digest that is not its own."""
    return Manifest(manifest.raw, manifest.media_type, digest)


def group(*members: Iterable[Outcome]) -> World:
    """A world of members 0, 1, ...: first its default manifest, then the instances it holds."""
    world = World({})
    for number, held in enumerate(members):
        world.defaults[number], *rest = held
        for manifest in rest:
            assert isinstance(manifest, Manifest), "give failures to World.instances"
            world.instances[number, manifest.digest] = manifest
    return world


def _manifest(name: str, kind: str, document: dict[str, object]) -> Manifest:
    return Manifest(json.dumps(document).encode(), kind, named(name))


def _descriptor(text: str, media_type: str) -> dict[str, object]:
    digest = text if ":" in text or not text else named(text)
    return {"mediaType": media_type, "digest": digest, "size": len(text)}


def _schema1(layers: list[str]) -> dict[str, object]:
    ids = [f"{number:064x}" for number in range(len(layers), 0, -1)]
    history = [{"id": own, "parent": parent} for own, parent in pairwise([*ids, ""])]
    return {
        "schemaVersion": 1,
        "name": "x",
        "tag": "x",
        "architecture": "amd64",
        "fsLayers": [{"blobSum": named(layer)} for layer in reversed(layers)],
        "history": [{"v1Compatibility": json.dumps(entry)} for entry in history],
    }


# Random worlds

LISTS, IMAGES = "KLMN", "ABCDEF"
NAMES = LISTS + IMAGES
PLATFORMS = (None, "linux/amd64", "linux/arm64", "linux/arm/v7")
ENTRIES = tuple(product(NAMES, PLATFORMS))
LIST_KINDS = (*[OCI_INDEX] * 4, DOCKER_LIST)

CONTENTS: tuple[tuple[str, str | None, str], ...] = (
    ("u", None, OCI_MANIFEST),
    ("uv", None, OCI_MANIFEST),
    ("wu", None, OCI_MANIFEST),
    ("vwv", None, OCI_MANIFEST),
    ("x", "", OCI_MANIFEST),
    ("xv", "u", OCI_MANIFEST),
    ("uw", None, DOCKER_MANIFEST),
    ("vx", None, DOCKER_SCHEMA1),
)
"""Layers, config and kind of images: they share blobs, and one's layer is another's config."""

NO_DIGESTS = ("sha256:../../etc/passwd", "sha256:abc", "x:", ":", "md5:" + "0" * 32)
"""Texts with a colon that are no digest; the last one is one, of an unknown algorithm."""

TOLD: tuple[Mapping[str, object], ...] = (
    *({},) * 6,
    {"size": -1},
    {"size": 7},
    {"mediaType": OCI_MANIFEST},
    {"mediaType": OCI_INDEX},
    {"mediaType": "application/x"},
)
"""What an entry may say of an instance, true or not."""

MISSES = (ManifestNotFoundError, InstanceNotFoundError, ImageNotFoundError)

FAILURES = (
    PermissionDeniedError,
    ForbiddenError,
    DigestMismatchError,
    LayoutError,
    MalformedManifestError,
    NetworkError,
    PlatformNotFoundError,
    ServerError,
    SourceTimeoutError,
    TooManyRequestsError,
    TruncatedError,
    UnauthorizedError,
)

LIES, BREAKS = "lies", "breaks"

FAULTS = {
    "calm": (),
    "gappy": MISSES,
    "rough": (*MISSES * 4, *FAILURES, LIES, LIES, BREAKS),
}
"""Weather -> what may become of a read; an error class is raised."""


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to four members that hold, miss, refuse or spoil what they and others list."""
    weather = draw(st.sampled_from(sorted(FAULTS)))
    odd = weather == "rough" and draw(st.integers(0, 3)) == 3
    truth = {named(name): draw(manifests(name)) for name in NAMES}
    if odd:
        name = draw(st.sampled_from(NAMES))
        truth[named(name)] = draw(manifests(name, odd=True))
    members = (0, *sorted(draw(st.sets(st.integers(1, 5), max_size=3))))
    world = World({})
    for member in members:
        world.defaults[member] = truth[named(draw(st.sampled_from(LISTS * 2 + IMAGES)))]
        world.instances |= {(member, digest): held for digest, held in truth.items()}
    if FAULTS[weather]:
        places = st.tuples(st.sampled_from(members), st.sampled_from((None, *NAMES)))
        faults = st.dictionaries(places, st.sampled_from(FAULTS[weather]), min_size=1, max_size=12)
        for (member, name), fault in draw(faults).items():
            spoil(world, member, None if name is None else named(name), fault)
    return world


@st.composite
def manifests(draw: st.DrawFn, name: str, *, odd: bool = False) -> Manifest:
    """An image or a list under a name, with blobs and instances that others have too.

    Args:
        draw: Of Hypothesis.
        name: One of `NAMES`; its digest is `named` after it.
        odd: Whether it names something by a text that is no digest, or says what may be wrong.
    """
    extra = (draw(st.sampled_from(NO_DIGESTS)),) if odd else ()
    if name in LISTS:
        fewest = 0 if name == LISTS[-1] else 2
        entries = draw(st.lists(st.sampled_from(ENTRIES), min_size=fewest, max_size=8))
        platforms = (platform for _, platform in entries)
        kind = draw(st.sampled_from(LIST_KINDS))
        told = draw(st.lists(st.sampled_from(TOLD), max_size=len(entries))) if odd else ()
        names = (x for x, _ in entries)
        return index(name, *names, *extra, platforms=platforms, told=told, kind=kind)
    layers, config, kind = draw(st.sampled_from(CONTENTS))
    return image(name, *layers, *extra, config=config, kind=kind)


def spoil(
    world: World, member: int, digest: Digest | None, fault: str | type[SupplementedError]
) -> None:
    """Let something else become of one read.

    Of two defaults with one digest neither lies: the last contribution of a digest is kept for
    both, which is the same thing in worlds where a digest names its content.
    """
    truth = world.read(member, digest)
    assert isinstance(truth, Manifest)
    if digest is None and list(world.defaults.values()).count(truth) > 1 and fault == LIES:
        return
    outcome: Outcome
    if fault == LIES:
        other = index("lie", "A", truth.digest, "K") if truth.is_index else image("lie", "z")
        outcome = renamed(other, truth.digest)
    elif fault == BREAKS:
        outcome = Manifest(b'{"schemaVersion":2,"layers":7}', OCI_MANIFEST, truth.digest)
    else:
        assert isinstance(fault, type)
        outcome = fault("out of order")
    if digest is None:
        world.defaults[member] = outcome
    else:
        world.instances[member, digest] = outcome


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A selection, policies, and now and then caps that a random world may exceed."""
    request = Request(
        draw(selections()),
        missing=draw(st.sampled_from(("raise", "fallback", "skip"))),
        unavailable=draw(st.sampled_from(("raise", "skip"))),
        unknown=draw(st.sampled_from(("raise", "opaque"))),
    )
    match draw(st.integers(0, 15)):
        case 15:
            request.max_instances = draw(st.integers(1, len(NAMES)))
        case 14:
            request.max_entries = draw(st.integers(0, 12))
        case 13:
            request.max_nesting = draw(st.integers(0, 3))
        case 12:
            request.max_bytes = draw(st.integers(0, 5000))
        case _:
            pass
    return request


def selections() -> st.SearchStrategy[Selection]:
    """Mostly all images, because that reads most."""
    everything = st.just(AllImages())
    platforms = st.sampled_from(PLATFORMS[1:]).map(Platform.parse)
    digests = st.sets(st.sampled_from(NAMES).map(named)).map(sorted)
    return st.one_of(
        everything,
        everything,
        st.builds(SystemImage, platforms),
        st.builds(SpecificImages, digests),
    )
