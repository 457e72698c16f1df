"""What umoci, skopeo and docker-registry write, we read."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

import asupplemented as asup
from asupplemented.model import media_type as kinds
from tests.interop.busybox import PLATFORMS, find_entry
from tests.interop.places import TRANSPORTS, at_digest
from tests.interop.reading import read_contents, read_reference

if TYPE_CHECKING:
    from tests.interop.busybox import Family
    from tests.interop.places import Places
    from tests.interop.programs import Skopeo, Umoci

EMPTY_LAYER = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"
"""What schema 1 has where a step of the history left no layer (rule C-06)."""


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_OC04_a_tag_by_umoci_is_read(
    family: Family, session: asup.Session, platform: str
) -> None:
    assert await read_reference(family.reference(platform), session) == family.contents(platform)


async def test_OC04_an_index_among_tags_by_umoci_is_read(
    family: Family, session: asup.Session
) -> None:
    assert await read_reference(family.reference(), session) == family.contents()


async def test_I01_the_history_of_umoci_is_ours(
    family: Family, umoci: Umoci, session: asup.Session
) -> None:
    image = asup.supplement(family.reference("linux/arm64")).open_image(session)
    async with image as opened:
        told = umoci.stat(f"{family.layout}:arm64")["history"]
        assert [layer.digest for layer in opened.layers] == [
            entry["layer"]["digest"] for entry in told if entry["layer"] is not None
        ]
        assert list(opened.config.diff_ids) == [
            entry["diff_id"] for entry in told if entry["layer"] is not None
        ]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_list_that_skopeo_copied_is_read(
    family: Family, places: Places, skopeo: Skopeo, session: asup.Session, transport: str
) -> None:
    place = places.find(transport)
    skopeo.copy(family.reference(), place, "--all")
    contents = await read_reference(place, session)
    assert contents == family.contents()
    assert next(iter(contents.manifests.values())) == skopeo.read_raw(place)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_image_that_skopeo_copied_is_read(
    family: Family,
    places: Places,
    skopeo: Skopeo,
    session: asup.Session,
    transport: str,
    platform: str,
) -> None:
    place = places.find(transport)
    skopeo.copy(family.reference(), place, platform=platform)
    contents = await read_reference(place, session)
    assert contents == family.contents(platform)
    assert list(contents.manifests.values()) == [skopeo.read_raw(place)]


@pytest.mark.parametrize("transport", ["dir", "docker"])
async def test_P10_a_docker_list_that_skopeo_made_is_read(
    family: Family, places: Places, skopeo: Skopeo, session: asup.Session, transport: str
) -> None:
    place = places.find(transport)
    skopeo.copy(family.reference(), place, "--all", "--format=v2s2")
    async with asup.parse_reference(place).open(session) as source:
        top = await source.get_manifest()
        contents = await read_contents(source)
    assert top.media_type == kinds.DOCKER_LIST
    assert top.raw == skopeo.read_raw(place)
    listed = json.loads(top.raw)["manifests"]
    assert list(contents.manifests) == [top.digest, *(entry["digest"] for entry in listed)]
    assert contents.blobs == family.contents().blobs  # only the manifests were written anew


@pytest.mark.parametrize("transport", ["dir", "docker"])
async def test_P06_a_docker_image_that_skopeo_made_is_read(
    family: Family, places: Places, skopeo: Skopeo, session: asup.Session, transport: str
) -> None:
    place = places.find(transport)
    skopeo.copy(family.reference("linux/arm64"), place, "--format=v2s2")
    async with asup.parse_reference(place).open(session) as source:
        manifest = await source.get_manifest()
        contents = await read_contents(source)
    assert manifest.media_type == kinds.DOCKER_MANIFEST
    assert manifest.raw == skopeo.read_raw(place)
    assert contents.blobs == family.contents("linux/arm64").blobs


@pytest.mark.parametrize("transport", ["dir", "docker"])
async def test_DG02_signed_schema_1_has_the_digest_of_its_payload(
    family: Family, places: Places, skopeo: Skopeo, session: asup.Session, transport: str
) -> None:
    image, place = places.find("docker", "image"), places.find(transport, "schema1")
    skopeo.copy(family.reference("linux/amd64"), image)
    skopeo.copy(image, place, "--format=v2s1")
    async with asup.parse_reference(place).open(session) as source:
        manifest = await source.get_manifest()
        contents = await read_contents(source)
    assert manifest.media_type == kinds.DOCKER_SCHEMA1_SIGNED
    assert manifest.digest == skopeo.inspect(place)["Digest"]
    # a registry signs anew whenever it is asked: the bytes differ, the payload does not
    assert manifest.digest != f"sha256:{hashlib.sha256(manifest.raw).hexdigest()}"
    _config, *layers = family.images["linux/amd64"].blobs
    assert set(layers) <= set(contents.blobs) <= {*layers, EMPTY_LAYER}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("platform", PLATFORMS)
async def test_I01_inspecting_a_list_tells_what_skopeo_tells(
    family: Family,
    places: Places,
    skopeo: Skopeo,
    session: asup.Session,
    transport: str,
    platform: str,
) -> None:
    place = places.find(transport)
    skopeo.copy(family.reference(), place, "--all")
    told = skopeo.inspect(place, platform=platform)
    async with asup.supplement(place).open_image(session, platform=platform) as image:
        ours = image.inspect().to_dict()
        assert await image.read_config() == skopeo.read_config(place, platform=platform)
    common = ("Created", "DockerVersion", "Labels", "Architecture", "Os", "Layers", "Env")
    assert {key: ours[key] for key in common} == {key: told[key] for key in common}
    assert image.digest == family.images[platform].digest


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_RES05_ranges_are_those_of_the_content(
    family: Family, places: Places, skopeo: Skopeo, session: asup.Session, transport: str
) -> None:
    place = places.find(transport)
    skopeo.copy(family.reference(), place, "--all", platform="linux/amd64")
    digest, size = max(family.contents().blobs.items(), key=lambda item: item[1])
    whole = (family.layout / "blobs" / digest.replace(":", "/")).read_bytes()
    async with asup.supplement(place).open(session) as image:
        for start, end in ((0, 1), (1, 70_000), (size - 1, size), (500_000, None)):
            async with image.open_blob(digest, start=start, end=end) as blob:
                assert await blob.read_all(limit=size) == whole[start:end]
                assert blob.size == size


async def test_a_registry_is_asked_by_digest(
    family: Family, places: Places, skopeo: Skopeo, session: asup.Session
) -> None:
    place = places.find("docker")
    skopeo.copy(family.reference(), place, "--all")
    image = family.images["linux/arm/v7"]
    by_digest = at_digest(place, image.digest)
    contents = await read_reference(by_digest, session)
    assert contents == family.contents("linux/arm/v7")


async def test_what_a_registry_does_not_have_is_not_found(
    family: Family, places: Places, skopeo: Skopeo, session: asup.Session
) -> None:
    place = places.find("docker")
    with pytest.raises(asup.ImageNotFoundError) as unknown_repository:
        await asup.parse_reference(place).open(session)
    skopeo.copy(family.reference("linux/amd64"), place)
    with pytest.raises(asup.ImageNotFoundError) as unknown_tag:
        await asup.parse_reference(f"{place}.0").open(session)
    assert unknown_repository.value.reference == place
    assert unknown_tag.value.reference == f"{place}.0"
    absent = asup.Digest.of(b"absent")
    async with asup.parse_reference(place).open(session) as source:
        with pytest.raises(asup.ManifestNotFoundError) as unknown_manifest:
            await source.get_manifest(absent)
        with pytest.raises(asup.BlobNotFoundError) as unknown_blob:
            async with source.open_blob(asup.Descriptor(digest=absent, size=6)):
                pass
    assert unknown_manifest.value.digest == unknown_blob.value.digest == absent


async def test_OC04_a_tag_that_umoci_removed_is_not_found(
    family: Family, session: asup.Session
) -> None:
    with pytest.raises(asup.ImageNotFoundError):
        await asup.parse_reference(f"oci:{family.layout}:base").open(session)
    assert find_entry(family.layout, "amd64")
