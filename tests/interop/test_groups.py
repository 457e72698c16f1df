"""Groups over real places: a registry with holes, layouts and directories that fill them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import asupplemented as asup
from tests.interop.busybox import HELD, LOST
from tests.interop.places import at_digest
from tests.interop.reading import read_contents, read_reference
from tests.interop.servers import run_registry

if TYPE_CHECKING:
    from tests.interop.busybox import Family
    from tests.interop.places import Places
    from tests.interop.programs import Skopeo
    from tests.interop.servers import Registry


ONE_ATTEMPT = asup.RegistryOptions(retry=asup.RetryPolicy(attempts=1))


@pytest.mark.parametrize("lookahead", [0, 64])
async def test_X06_supplements_fill_the_holes_of_a_registry(
    family: Family, holey: str, supplements: tuple[str, str], lookahead: int
) -> None:
    digests = [family.images[platform].digest for platform in (HELD, *LOST)]
    async with (
        asup.Session(lookahead=lookahead, tls_verify=False) as session,
        asup.supplement(holey, *supplements).open(session) as image,
    ):
        assert dict(image.resolution.sources) == {
            family.digest: 0,
            digests[0]: 0,
            digests[1]: 1,
            digests[2]: 2,
        }
        assert image.resolution.defaults == (family.digest, digests[1], digests[2])
        found = {str(each.platform): each.member for each in image.instances() if each.platform}
        assert found == {HELD: 0, LOST[0]: 1, LOST[1]: 2}
        assert await read_contents(image) == family.contents()


async def test_X07_a_hole_that_nobody_fills_is_named(
    family: Family, holey: str, supplements: tuple[str, str], session: asup.Session
) -> None:
    with pytest.raises(asup.ManifestNotFoundError) as hole:
        await asup.supplement(holey, supplements[0]).open(session)
    assert hole.value.digest == family.images[LOST[1]].digest
    assert hole.value.member == 0
    assert hole.value.reference == holey


async def test_holes_are_recorded_if_they_may_be(
    family: Family, holey: str, supplements: tuple[str, str], session: asup.Session
) -> None:
    group = asup.supplement(holey, supplements[1], missing="skip")
    async with group.open(session) as image:
        [hole] = image.resolution.missing
        assert (hole.member, hole.digest) == (0, family.images[LOST[0]].digest)
        with pytest.raises(asup.InstanceNotFoundError):
            await image.get_manifest(hole.digest)


async def test_X06_supplements_are_preferred_where_the_registry_has_all(
    family: Family, places: Places, skopeo: Skopeo, session: asup.Session
) -> None:
    top, layout = places.find("docker"), places.find("oci")
    skopeo.copy(family.reference(), top, "--all")
    skopeo.copy(family.reference(), layout, "--all")
    async with asup.supplement(top, layout).open(session) as image:
        assert set(image.resolution.sources.values()) == {1}
        for blob in family.contents().blobs:
            assert image.resolution.explain(blob).member == 1
            async with image.open_blob(blob) as stream:
                await stream.read_all(limit=10_000_000)
                assert stream.member == 1


async def test_one_instance_of_a_registry_with_holes(
    family: Family, holey: str, supplements: tuple[str, str], session: asup.Session
) -> None:
    wanted = family.images[LOST[1]].digest
    selection = asup.SpecificImages([wanted])
    with pytest.raises(asup.ManifestNotFoundError):
        await asup.supplement(holey, selection=selection).open(session)
    group = asup.supplement(holey, supplements[1], selection=selection)
    async with group.open(session) as image:
        assert dict(image.resolution.sources) == {family.digest: 0, wanted: 1}
    system = asup.SystemImage(asup.Platform.parse(LOST[1]))
    async with group.with_options(selection=system).open_image(session) as chosen:
        assert chosen.digest == wanted
        assert chosen.labels == {"org.example.platform": LOST[1]}


async def test_a_supplement_that_is_gone_may_be_left_out(
    family: Family, places: Places, skopeo: Skopeo
) -> None:
    top = places.find("docker")
    skopeo.copy(family.reference(), top, "--all")
    with run_registry(places.directory / "gone") as gone:
        lost = gone.reference("app:1")
    async with asup.Session(tls_verify=False, settings=[ONE_ATTEMPT]) as session:
        with pytest.raises(asup.NetworkError) as failure:
            await asup.supplement(top, lost).open(session)
        assert (failure.value.reference, failure.value.member) == (lost, 1)
        async with asup.supplement(top, lost, unavailable="skip").open(session) as image:
            assert isinstance(image.resolution.unavailable[1], asup.NetworkError)
            assert await read_contents(image) == family.contents()


async def test_a_cache_of_a_registry_is_a_member_like_any_other(
    family: Family,
    places: Places,
    registry: Registry,
    skopeo: Skopeo,
    session: asup.Session,
) -> None:
    top = places.find("docker")
    skopeo.copy(family.reference(), top, "--all")
    with run_registry(places.directory / "cache", upstream=registry) as cache:
        cached = top.replace(registry.address, cache.address)
        assert await read_reference(cached, session) == family.contents()
        async with asup.supplement(top, cached).open(session) as image:
            assert set(image.resolution.sources.values()) == {1}
            assert await read_contents(image) == family.contents()


async def test_RES06_a_cache_that_has_to_fetch_a_blob_first_may_ignore_the_range(
    family: Family,
    places: Places,
    registry: Registry,
    skopeo: Skopeo,
    session: asup.Session,
) -> None:
    place = places.find("docker")
    skopeo.copy(family.reference(LOST[0]), place)
    layer = max(family.images[LOST[0]].blobs.items(), key=lambda blob: blob[1])[0]
    whole = (family.layout / "blobs" / layer.replace(":", "/")).read_bytes()
    with run_registry(places.directory / "cold", upstream=registry) as cache:
        reference = asup.parse_reference(place.replace(registry.address, cache.address))
        async with reference.open(session) as source:
            for _ in range(2):  # the second time the cache may have it
                async with source.open_blob(layer, start=1000, end=3000) as blob:
                    assert await blob.read_all(2000) == whole[1000:3000]


async def test_a_blob_that_a_registry_swept_away_comes_from_a_supplement(
    family: Family, places: Places, skopeo: Skopeo, session: asup.Session
) -> None:
    with run_registry(places.directory / "swept") as swept:
        place = swept.reference("app:1")
        skopeo.copy(family.reference(), place, "--all")
        lost = family.images[LOST[0]]
        skopeo.delete(at_digest(place, lost.digest))
        swept.collect_garbage()
        config = next(iter(lost.blobs))
        async with asup.parse_reference(place).open(session) as source:
            with pytest.raises(asup.BlobNotFoundError):
                async with source.open_blob(asup.Descriptor(digest=config)):
                    pass
        group = asup.supplement(place, family.reference(LOST[0]))
        async with group.open(session) as image:
            assert await read_contents(image) == family.contents()
