"""Entries of unknown media type or digest algorithm (X-07b), and what lists say of entries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from asupplemented import (
    AmbiguousManifestError,
    ConfigurationError,
    Digest,
    InstanceNotFoundError,
    Resolution,
    Session,
    SizeMismatchError,
    SupplementedError,
    SystemImage,
    UnsupportedManifestError,
    UnsupportedOperationError,
    copy,
    open_image,
    supplement,
)
from asupplemented.abc import RawManifest
from asupplemented.model.media_type import DOCKER_CONFIG, OCI_INDEX, OCI_MANIFEST
from asupplemented.testing import FakeRegistry
from asupplemented.testing.images import build_image, build_index
from asupplemented.transports.memory import MemoryReference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from asupplemented.model.strict_json import Json
    from asupplemented.testing.images import BuiltIndex

AMD = build_image("linux/amd64")
ON_AMD: dict[str, Json] = {"platform": {"os": "linux", "architecture": "amd64"}}
NAMED: dict[str, Json] = {
    "mediaType": AMD.media_type,
    "digest": AMD.digest,
    "size": len(AMD.raw),
    **ON_AMD,
}
BLAKE = "blake3:" + "0" * 64

ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
UNKNOWN: dict[str, tuple[str | None, bytes]] = {
    "the retired artifact manifest": (ARTIFACT, b'{"mediaType":"%s"}' % ARTIFACT.encode()),
    "XML": ("application/xml", b"<xml/>"),
    "BuildKit": ("application/vnd.buildkit.cacheconfig.v0", b'{"layers":[],"records":[]}'),
    "a layer": ("application/vnd.oci.image.layer.v1.tar", b"\0\1\2"),
    "nothing": ("application/octet-stream", b""),
    "looks like a manifest": ("application/x", b'{"schemaVersion":2,"config":{},"layers":[]}'),
    "JSON that is no object": ("application/json", b"[1]"),
    "no type at all": (None, b"text"),
}


def entry(raw: bytes, kind: str | None, **more: Json) -> dict[str, Json]:
    named: dict[str, Json] = {"digest": Digest.of(raw), "size": len(raw), **more}
    return named if kind is None else {"mediaType": kind, **named}


def member(
    top: BuiltIndex, *others: bytes, types: Mapping[bytes, str] | None = None
) -> MemoryReference:
    kinds = types or {}
    manifests = [top.raw, AMD.raw, *others]
    return MemoryReference(
        "member",
        RawManifest(top.raw, None),
        {Digest.of(raw): RawManifest(raw, kinds.get(raw)) for raw in manifests},
        AMD.blobs,
    )


@pytest.mark.parametrize(("kind", "raw"), UNKNOWN.values(), ids=UNKNOWN)
async def test_X07b_an_unknown_type_is_served_and_copied_as_bytes(
    session: Session, tmp_path: Path, kind: str | None, raw: bytes
) -> None:
    digest = Digest.of(raw)
    top = build_index([NAMED, entry(raw, kind), {**NAMED, "digest": BLAKE}])
    group = supplement(member(top, raw), unknown="opaque")
    async with group.open(session) as image:
        plan = image.resolution
        assert plan.opaque == (digest,)
        assert [tuple(missing) for missing in plan.missing] == [(0, BLAKE)]
        assert set(plan.blobs) == set(AMD.blobs)
        assert Resolution.from_json(plan.to_json()) == plan
        assert plan.to_dict()["opaque"] == [digest]
        explained = plan.explain(digest)
        assert (explained.kind, explained.member) == ("opaque", 0)
        assert "served as bytes" in explained.rule
        assert plan.find("linux/amd64").digest == AMD.digest
        found = await image.get_manifest(digest)
        assert (found.raw, found.is_opaque) == (raw, True)
        with pytest.raises(UnsupportedManifestError):
            found.parse()
        report = await copy(image, f"oci:{tmp_path}:x", session)
    assert report.missing == (BLAKE,)
    assert (tmp_path / "blobs/sha256" / digest.encoded).read_bytes() == raw
    async with group.open(session, resolution=plan) as again:
        assert (await again.get_manifest(digest)).raw == raw
    copied = supplement(f"oci:{tmp_path}:x", unknown="opaque")
    assert (await copied.resolve(session)).opaque == (digest,)


@pytest.mark.parametrize(("kind", "raw"), UNKNOWN.values(), ids=UNKNOWN)
async def test_X07_an_unknown_type_fails_by_default_unless_it_is_not_chosen(
    session: Session, kind: str | None, raw: bytes
) -> None:
    group = supplement(member(build_index([NAMED, entry(raw, kind)]), raw))
    if kind == "application/x":
        assert (await group.resolve(session)).opaque == ()  # Go guesses that it is an image.
    else:
        with pytest.raises(SupplementedError):
            await group.resolve(session)
    chosen = group.with_options(selection=SystemImage("linux/amd64"))
    assert AMD.digest in (await chosen.resolve(session)).sources
    assert (await group.with_options(unknown="opaque").resolve(session)).opaque


async def test_X07b_what_says_of_itself_that_it_is_a_manifest_is_one(session: Session) -> None:
    top = build_index([entry(AMD.raw, "application/json")])
    plan = await supplement(member(top), unknown="opaque").resolve(session)
    assert plan.opaque == ()
    assert set(plan.blobs) == set(AMD.blobs)


async def test_X07b_what_is_damaged_is_not_opaque(session: Session) -> None:
    for raw in (b"<xml/>", b"[]"):
        group = supplement(member(build_index([entry(raw, OCI_MANIFEST)]), raw), unknown="opaque")
        with pytest.raises(SupplementedError):
            await group.resolve(session)


async def test_X07b_a_nested_group_keeps_what_is_opaque(session: Session) -> None:
    raw = b"<xml/>"
    inner = supplement(member(build_index([entry(raw, "application/xml")]), raw), unknown="opaque")
    plan = await supplement(inner, unknown="opaque").resolve(session)
    assert plan.opaque == (Digest.of(raw),)


async def test_X07b_the_option_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="unknown='skip'"):
        supplement("oci:/x", unknown="skip")  # type: ignore[arg-type]


# G-05: the type of the descriptor

BARE = json.dumps(
    {"schemaVersion": 2, "config": {"mediaType": DOCKER_CONFIG, "digest": "", "size": 0}}
).encode()
EMPTY = b'{"schemaVersion":2,"manifests":[]}'


@pytest.mark.parametrize("served", [None, "application/json", "application/vnd.oci.empty.v1+json"])
@pytest.mark.parametrize(("raw", "kind"), [(BARE, OCI_MANIFEST), (EMPTY, OCI_INDEX)])
async def test_G05_an_instance_has_the_type_that_its_list_says(
    session: Session, tmp_path: Path, raw: bytes, kind: str, served: str | None
) -> None:
    digest = Digest.of(raw)
    top = build_index([{**entry(raw, kind), **ON_AMD}])
    async with FakeRegistry() as registry:
        registry.put_manifest("a", raw, served or "text/plain")
        registry.put_manifest("a", top.raw, top.media_type, tag="latest")
        async with Session(tls_verify=False) as remote:
            for origin, reference in (("r", registry.reference("a")), ("m", member(top, raw))):
                async with supplement(reference).open(remote) as image:
                    assert (await image.get_manifest(digest)).media_type == kind
                    for number, to in enumerate(("oci:{}:x", "dir:{}")):
                        place = to.format(tmp_path / f"{origin}{number}")
                        await copy(image, place, remote)
                        plan = await supplement(place).resolve(remote)
                        assert plan.media_type(digest) == kind
                async with supplement(reference).open(remote) as image:
                    assert (await image.get_manifest(digest)).parse().media_type == kind


async def test_G05_the_list_is_believed_before_the_source(session: Session) -> None:
    from asupplemented.model.media_type import DOCKER_MANIFEST

    group = supplement(
        member(build_index([entry(BARE, OCI_MANIFEST)]), BARE, types={BARE: DOCKER_MANIFEST})
    )
    assert (await group.resolve(session)).media_type(Digest.of(BARE)) == OCI_MANIFEST


async def test_G05_a_list_that_contradicts_the_bytes_is_ambiguous(session: Session) -> None:
    group = supplement(member(build_index([entry(AMD.raw, OCI_INDEX)])))
    with pytest.raises(AmbiguousManifestError):
        await group.resolve(session)


async def test_G05_a_copy_that_could_not_be_read_back_is_refused(
    session: Session, tmp_path: Path
) -> None:
    group = supplement(member(build_index([{**entry(BARE, OCI_MANIFEST), **ON_AMD}]), BARE))
    system = group.with_options(selection=SystemImage("linux/amd64"))
    with pytest.raises(UnsupportedOperationError, match="keeps no media type"):
        await copy(system, f"dir:{tmp_path / 'dir'}", session)
    assert not (tmp_path / "dir" / "manifest.json").exists()
    await copy(system, f"oci:{tmp_path / 'oci'}:x", session)
    plan = await supplement(f"oci:{tmp_path / 'oci'}:x").resolve(session)
    assert plan.media_type(plan.top) == OCI_MANIFEST


# C-08: sizes


def sized(size: object, depth: int) -> MemoryReference:
    """An image under so many lists, with a size in the innermost one."""
    lists = [build_index([{**NAMED, "size": size}])]  # type: ignore[dict-item]
    for _ in range(depth):
        lists.append(build_index([{**entry(lists[-1].raw, OCI_INDEX), **ON_AMD}]))
    return member(lists[-1], *(each.raw for each in lists))


@pytest.mark.parametrize("depth", [0, 1, 3])
async def test_C08_a_wrong_size_is_refused_wherever_it_stands(
    session: Session, tmp_path: Path, depth: int
) -> None:
    reference = sized(len(AMD.raw) + 1, depth)
    with pytest.raises(SizeMismatchError):
        await supplement(reference).resolve(session)
    with pytest.raises(SizeMismatchError):
        await open_image(reference, session, platform="linux/amd64")
    with pytest.raises(SizeMismatchError):
        await copy(reference, f"oci:{tmp_path}:x", session)
    with pytest.raises(SizeMismatchError):
        await copy(reference, f"oci:{tmp_path}:x", session, selection=SystemImage("linux/amd64"))


@pytest.mark.parametrize("size", [-1, -7, -(2**70)])
async def test_C08_a_negative_size_is_unknown(session: Session, tmp_path: Path, size: int) -> None:
    for depth in (0, 2):
        reference = sized(size, depth)
        assert AMD.digest in (await supplement(reference).resolve(session)).sources
        await copy(reference, f"oci:{tmp_path}:x", session)


@pytest.mark.parametrize("size", [-1, 0, 7, 2**63, 2**90])
async def test_C08_the_size_of_a_neighbour_does_not_matter(session: Session, size: int) -> None:
    other = {**NAMED, "digest": Digest.of(b"absent"), "size": size}
    other["platform"] = {"os": "linux", "architecture": "arm64"}
    reference = member(build_index([other, NAMED]))
    system = supplement(reference, selection=SystemImage("linux/amd64"))
    assert AMD.digest in (await system.resolve(session)).sources
    async with open_image(reference, session, platform="linux/amd64") as image:
        assert image.digest == AMD.digest


# numbers of members


async def test_X19_errors_have_the_number_of_the_outermost_member(session: Session) -> None:
    arm = build_image("linux/arm64")
    absent = build_index([entry(arm.raw, OCI_MANIFEST)])
    inner = supplement("oci:/nowhere", member(absent))
    with pytest.raises(SupplementedError) as opening:
        await supplement(member(build_index([NAMED])), inner).resolve(session)
    assert opening.value.member == 1
    nested = supplement(member(build_index([NAMED])), supplement(member(absent)))
    outer = supplement(member(build_index([NAMED])), nested)
    with pytest.raises(SupplementedError) as resolving:
        await outer.resolve(session)
    assert resolving.value.member == 1
    whole = supplement(
        member(build_index([])), supplement(member(build_index([])), member(build_index([NAMED])))
    )
    async with whole.open(session) as image:
        with pytest.raises(InstanceNotFoundError):
            await image.get_manifest(arm.digest)
