"""What we copy, skopeo reads and pushes, and umoci unpacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import asupplemented as asup
from asupplemented.model import media_type as kinds
from tests.interop.busybox import PLATFORMS, add_entry, read_index, read_tree
from tests.interop.places import at_digest
from tests.interop.programs import ProgramError
from tests.interop.reading import read_reference

if TYPE_CHECKING:
    from tests.interop.busybox import Family
    from tests.interop.places import Places
    from tests.interop.programs import Skopeo, Umoci

DESTINATIONS = ("dir", "oci")


@pytest.fixture
def group(holey: str, supplements: tuple[str, str]) -> asup.SupplementedReference:
    return asup.supplement(holey, *supplements)


def path_of(place: str) -> Path:
    return Path(place.split(":")[1])


@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_skopeo_reads_the_copy_of_a_group(
    family: Family,
    group: asup.SupplementedReference,
    places: Places,
    skopeo: Skopeo,
    session: asup.Session,
    destination: str,
) -> None:
    place = places.find(destination, "ours")
    report = await asup.copy(group, place, session)
    assert (report.digest, report.missing, report.warnings) == (family.digest, (), ())
    assert report.manifests == 1 + len(PLATFORMS)
    assert skopeo.read_raw(place) == family.index
    for platform, image in family.images.items():
        told = skopeo.inspect(place, platform=platform)
        assert told["Labels"] == {"org.example.platform": platform}
        assert told["Layers"] == [*image.blobs][1:]


@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_skopeo_pushes_the_copy_of_a_group(
    family: Family,
    group: asup.SupplementedReference,
    places: Places,
    skopeo: Skopeo,
    session: asup.Session,
    destination: str,
) -> None:
    ours, pushed = places.find(destination, "ours"), places.find("docker", "pushed")
    await asup.copy(group, ours, session)
    skopeo.copy(ours, pushed, "--all", "--preserve-digests")
    assert skopeo.read_raw(pushed) == family.index
    for image in family.images.values():
        assert skopeo.read_raw(at_digest(pushed, image.digest)) == image.raw
    assert await read_reference(pushed, session) == family.contents()


async def test_umoci_unpacks_the_images_of_a_copied_index(
    family: Family,
    group: asup.SupplementedReference,
    places: Places,
    umoci: Umoci,
    session: asup.Session,
) -> None:
    place = places.find("oci", "ours")
    await asup.copy(group, place, session)
    layout = path_of(place)
    for image in family.images.values():  # umoci knows no indexes: name what is in it
        add_entry(layout, image.digest, image.raw, image.tag, media_type=kinds.OCI_MANIFEST)
        root = umoci.unpack(f"{layout}:{image.tag}", places.directory / image.tag)
        assert read_tree(root) == image.tree
    assert umoci.list(layout) == sorted(["1", *(image.tag for image in family.images.values())])


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_umoci_unpacks_the_image_of_a_system(
    family: Family,
    group: asup.SupplementedReference,
    places: Places,
    skopeo: Skopeo,
    umoci: Umoci,
    session: asup.Session,
    platform: str,
) -> None:
    place = places.find("oci", "ours")
    selection = asup.SystemImage(asup.Platform.parse(platform))
    report = await asup.copy(group, place, session, selection=selection)
    image, layout = family.images[platform], path_of(place)
    assert report.digest == image.digest
    assert skopeo.read_raw(place) == image.raw
    assert skopeo.inspect(place)["Labels"] == {"org.example.platform": platform}
    assert umoci.list(layout) == ["1"]
    assert [
        entry["layer"]["digest"]
        for entry in umoci.stat(f"{layout}:1")["history"]
        if entry["layer"] is not None
    ] == [*image.blobs][1:]
    assert read_tree(umoci.unpack(f"{layout}:1", places.directory / "bundle")) == image.tree


async def test_umoci_works_on_in_a_layout_of_ours(
    family: Family, places: Places, umoci: Umoci, session: asup.Session
) -> None:
    place = places.find("oci", "ours")
    await asup.copy(family.reference("linux/amd64"), place, session)
    layout = path_of(place)
    root = umoci.unpack(f"{layout}:1", places.directory / "bundle")
    (root / "etc" / "motd").write_text("changed\n")
    umoci("repack", f"--image={layout}:2", str(root.parent))
    umoci("gc", f"--layout={layout}")
    first, second = [await read_reference(f"oci:{layout}:{tag}", session) for tag in "12"]
    assert first == family.contents("linux/amd64")
    assert len(second.blobs) == len(first.blobs) + 1


async def test_our_copies_lie_side_by_side_with_those_of_skopeo_and_umoci(
    family: Family, places: Places, skopeo: Skopeo, umoci: Umoci, session: asup.Session
) -> None:
    layout = places.directory / "shared"
    umoci("init", f"--layout={layout}")
    umoci("new", f"--image={layout}:umoci")
    skopeo.copy(family.reference("linux/amd64"), f"oci:{layout}:skopeo")
    report = await asup.copy(family.reference(), f"oci:{layout}:ours", session)
    assert report.reused_blobs == len(family.images["linux/amd64"].blobs)
    skopeo.copy(family.reference("linux/arm64"), f"oci:{layout}:later")
    assert umoci.list(layout) == ["later", "ours", "skopeo", "umoci"]
    assert skopeo.read_raw(f"oci:{layout}:ours") == family.index
    assert await read_reference(f"oci:{layout}:ours", session) == family.contents()


@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_a_second_copy_fetches_nothing(
    group: asup.SupplementedReference, places: Places, session: asup.Session, destination: str
) -> None:
    place = places.find(destination, "ours")
    first = await asup.copy(group, place, session)
    second = await asup.copy(group, place, session)
    assert (second.blobs, second.bytes) == (0, 0)
    assert (second.reused_blobs, second.reused_bytes) == (first.blobs, first.bytes)


@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_a_copy_to_where_skopeo_was_before_fetches_what_lacks(
    family: Family, places: Places, skopeo: Skopeo, session: asup.Session, destination: str
) -> None:
    place = places.find(destination)
    skopeo.copy(family.reference("linux/amd64"), place)
    report = await asup.copy(family.reference(), place, session)
    assert report.reused_blobs == len(family.images["linux/amd64"].blobs)
    assert skopeo.read_raw(place) == family.index
    assert await read_reference(place, session) == family.contents()


@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_a_sparse_copy_keeps_the_bytes_of_the_index(
    family: Family,
    group: asup.SupplementedReference,
    places: Places,
    skopeo: Skopeo,
    session: asup.Session,
    destination: str,
) -> None:
    place = places.find(destination, "ours")
    chosen = family.images["linux/arm64"]
    selection = asup.SpecificImages([chosen.digest])
    report = await asup.copy(group, place, session, selection=selection)
    [warning] = report.warnings
    assert "sparse" in warning
    assert report.manifests == 2
    assert skopeo.read_raw(place) == family.index
    assert skopeo.inspect(place, platform="linux/arm64")["Layers"] == [*chosen.blobs][1:]
    with pytest.raises(ProgramError, match=family.images["linux/amd64"].digest.encoded):
        skopeo.inspect(place, platform="linux/amd64")
    with pytest.raises(ProgramError):
        skopeo.copy(place, places.find("docker", "pushed"), "--all")
    async with asup.supplement(place, selection=selection).open(session) as image:
        assert set(image.resolution.sources) == {family.digest, chosen.digest}


async def test_extras_are_listed_in_a_layout_and_do_not_confuse_anybody(
    family: Family, places: Places, skopeo: Skopeo, umoci: Umoci, session: asup.Session
) -> None:
    place = places.find("oci", "ours")
    arm = family.images["linux/arm64"]
    group = asup.supplement(family.reference("linux/amd64"), family.reference("linux/arm64"))
    report = await asup.copy(group, place, session, extras=True)
    assert report.manifests == 2
    entries = read_index(path_of(place))["manifests"]
    assert {entry["digest"] for entry in entries} == {
        arm.digest,
        family.images["linux/amd64"].digest,
    }
    assert skopeo.read_raw(place) == family.images["linux/amd64"].raw
    assert umoci.list(path_of(place)) == ["1"]
    umoci("gc", f"--layout={path_of(place)}")  # keeps what index.json leads to
    async with asup.parse_reference(place).open(session) as source:
        assert (await source.get_manifest(arm.digest)).raw == arm.raw


async def test_docker_types_are_kept_and_skopeo_pushes_them_from_a_directory(
    family: Family, places: Places, skopeo: Skopeo, session: asup.Session
) -> None:
    top, ours, pushed = (
        places.find("docker", "top"),
        places.find("dir", "ours"),
        places.find("docker", "pushed"),
    )
    skopeo.copy(family.reference(), top, "--all", "--format=v2s2")
    report = await asup.copy(top, ours, session)
    assert (report.media_type, report.warnings) == (kinds.DOCKER_LIST, ())
    skopeo.copy(ours, pushed, "--all", "--preserve-digests")
    assert skopeo.read_raw(ours) == skopeo.read_raw(pushed) == skopeo.read_raw(top)
    assert await read_reference(pushed, session) == await read_reference(top, session)


async def test_docker_types_in_a_layout_come_with_a_warning_that_is_true(
    family: Family, places: Places, skopeo: Skopeo, session: asup.Session
) -> None:
    top, ours = places.find("docker", "top"), places.find("oci", "ours")
    skopeo.copy(family.reference(), top, "--all", "--format=v2s2")
    report = await asup.copy(top, ours, session)
    [warning] = report.warnings
    assert kinds.DOCKER_LIST in warning
    assert await read_reference(ours, session) == await read_reference(top, session)
    with pytest.raises(ProgramError, match="no descriptor found"):
        skopeo.read_raw(ours)
