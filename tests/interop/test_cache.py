"""The cache on disk, read by skopeo while it is in use."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from asupplemented.cache.layout.layout_cache import LayoutCache
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest
from tests.cache.driving import held, put, weigh
from tests.interop.programs import ProgramError
from tests.interop.reading import read_reference

if TYPE_CHECKING:
    from pathlib import Path

    import asupplemented as asup
    from tests.interop.busybox import Family
    from tests.interop.places import Places
    from tests.interop.programs import Skopeo

ROOM = 2_000_000
"""Bytes that the cache has beside what the family needs."""


def read_blob(family: Family, digest: str) -> bytes:
    algorithm, _, encoded = digest.partition(":")
    return (family.layout / "blobs" / algorithm / encoded).read_bytes()


async def fetch(cache: LayoutCache, session: asup.Session, family: Family) -> None:
    """What a proxy does when clients pull the family through it."""
    contents = family.contents()
    for digest, raw in contents.manifests.items():
        manifest = Manifest.verified(raw, None, Digest(digest))
        await cache.keep_manifest(session, manifest, top=digest == family.digest)
    for digest in contents.blobs:
        await put(cache, session, read_blob(family, digest))


def size_of(family: Family) -> int:
    contents = family.contents()
    return sum(map(len, contents.manifests.values())) + sum(contents.blobs.values())


@pytest.fixture
def cache(tmp_path: Path, family: Family) -> LayoutCache:
    return LayoutCache(tmp_path / "cache", size_of(family) + ROOM)


def name_of(cache: LayoutCache, digest: Digest) -> str:
    return f"oci:{cache.path}:{digest}"


async def test_skopeo_reads_what_is_cached_by_its_digest(
    cache: LayoutCache, session: asup.Session, family: Family, skopeo: Skopeo, places: Places
) -> None:
    await fetch(cache, session, family)
    top = name_of(cache, family.digest)
    assert skopeo.read_raw(top) == family.index
    for platform, image in family.images.items():
        told = skopeo.inspect(top, platform=platform)
        assert told["Labels"] == {"org.example.platform": platform}
        assert told["Layers"] == [*image.blobs][1:]
    pushed = places.find("docker", "pushed")
    skopeo.copy(top, pushed, "--all", "--preserve-digests")
    assert skopeo.read_raw(pushed) == family.index
    assert await read_reference(pushed, session) == family.contents()
    assert await read_reference(top, session) == family.contents()


async def test_skopeo_reads_the_cache_while_it_is_in_use(
    cache: LayoutCache, session: asup.Session, family: Family, skopeo: Skopeo, places: Places
) -> None:
    await cache.pin_digests(session, family.digest)
    await fetch(cache, session, family)
    top = name_of(cache, family.digest)
    copies = [places.find("oci", f"copy{number}") for number in range(3)]
    done = asyncio.Event()
    pulled = 0

    async def use(seed: int) -> None:
        nonlocal pulled
        dice = random.Random(seed)
        while not done.is_set():
            await put(cache, session, dice.randbytes(dice.randrange(300_000)))
            pulled += 1

    async def look() -> None:
        try:
            for copy in copies:
                await asyncio.to_thread(skopeo.copy, top, copy, "--all", "--preserve-digests")
                assert await asyncio.to_thread(skopeo.read_raw, top) == family.index
        finally:
            done.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(look())
        for seed in range(3):
            group.create_task(use(seed))
    assert pulled > 20
    assert weigh(cache.path) <= cache.max_bytes
    for copy in copies:
        assert await read_reference(copy, session) == family.contents()


async def test_what_lost_a_blob_is_not_offered_any_more(
    cache: LayoutCache, session: asup.Session, family: Family, skopeo: Skopeo
) -> None:
    await fetch(cache, session, family)
    top = name_of(cache, family.digest)
    assert skopeo.read_raw(top) == family.index
    await put(cache, session, bytes(ROOM + 1))
    assert len(held(cache.path)) > 1
    with pytest.raises(ProgramError, match="no descriptor found for reference"):
        skopeo.read_raw(top)
