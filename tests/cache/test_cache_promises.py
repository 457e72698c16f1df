"""What a cache promises: it changes no answer, spoils no pull, and says what it holds."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asupplemented as asup
from asupplemented.cache.layout.layout_cache import CacheStats, LayoutCache
from asupplemented.cache.layout.paths import CachePaths
from asupplemented.cache.manifests import settle_manifests
from asupplemented.cache.sharing import SHARING, settle
from asupplemented.events import (
    BlobCopied,
    BlobFinished,
    BlobServed,
    BlobStarted,
    Event,
    ManifestFetched,
)
from asupplemented.limits import MIB
from asupplemented.model import media_type as kinds
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest
from asupplemented.testing import (
    Corrupt,
    Cut,
    FakeRegistry,
    Hold,
    Slow,
    Status,
    build_image,
    build_index,
    write_layout,
)
from asupplemented.transports.memory import MemoryReference
from tests.cache.driving import weigh, weigh_files
from tests.suspending import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

DICE = random.Random(9)
IMAGE = build_image("linux/amd64", [DICE.randbytes(6 * MIB)], gzip=False)
LAYER = IMAGE.layers[0]
DATA = IMAGE.blobs[LAYER]
SMALL = [
    build_image(f"linux/{name}", [DICE.randbytes(300)]) for name in ("amd64", "arm64", "s390x")
]


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


def new_session(cache: LayoutCache | None, **options: Any) -> asup.Session:
    return asup.Session(tls_verify=False, cache=cache, **options)


async def read(image: asup.Source, digest: Digest = LAYER) -> bytes:
    async with image.open_blob(digest) as blob:
        return await blob.read_all(1 << 30)


async def settled(session: asup.Session) -> None:
    await settle(session)
    await settle_manifests(session)


def kept_file(cache: LayoutCache, digest: Digest = LAYER) -> Path:
    return cache.path / "blobs" / digest.algorithm / digest.encoded


# A cache never changes the answer of a resolution


@settings(max_examples=25)
@given(data=st.data())
def test_a_resolution_is_the_same_cold_warm_and_without_a_cache(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Random groups over the same images, of which members hold some; others were read before."""
    members = [
        (
            data.draw(st.lists(st.sampled_from(SMALL), min_size=1, max_size=3, unique_by=id)),
            data.draw(st.sets(st.sampled_from([image.digest for image in SMALL]))),
        )
        for _ in range(data.draw(st.integers(1, 3)))
    ]
    root = tmp_path_factory.mktemp("world")

    async def resolve(group: Any, cache: LayoutCache | None) -> object:
        async with new_session(cache) as session:
            try:
                async with group.open(session) as image:
                    answer = image.resolution.to_json()
            except asup.SupplementedError as error:
                return type(error), error.message, error.digest, error.member
            await settled(session) if cache else None
            return answer

    async def run() -> None:
        async with FakeRegistry() as registry:
            whole = registry.add("whole", build_index(SMALL))
            names = [
                registry.add(f"member{number}", build_index(listed), omit=sorted(omit))
                for number, (listed, omit) in enumerate(members)
            ]
            for missing in ("raise", "fallback", "skip"):
                group = asup.supplement(*names, missing=missing)
                cache = LayoutCache(root / missing, 1 << 30)
                answers = [await resolve(group, None), await resolve(group, cache)]
                async with new_session(cache) as session, asup.supplement(whole).open(session) as i:
                    await i.prefetch()
                for name in names:
                    await resolve(asup.supplement(name, missing="skip"), cache)
                answers.append(await resolve(group, cache))
                assert answers[1:] == answers[:1] * 2

    asyncio.run(run())
    shutil.rmtree(root)


async def test_a_manifest_is_found_for_its_repository_only(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    cache = LayoutCache(tmp_path / "cache", 1 << 30)
    registry.add("a", SMALL[0], tag="1")
    registry.add("b", SMALL[1], tag="1")
    for name, error in (("a", None), ("a", None), ("b", asup.NotFoundError)):
        reference = asup.parse_reference(registry.reference(name, SMALL[0].digest))
        async with new_session(cache) as session:
            if error is None:
                async with reference.open(session) as image:
                    assert (await image.get_manifest()).raw == SMALL[0].raw
            else:
                with pytest.raises(error):
                    await reference.open(session)
    assert registry.count(f"/v2/a/manifests/{SMALL[0].digest}") == 1


# Nothing about a digest is remembered under another's media type

BARE = b'{"schemaVersion":2,"config":{"mediaType":"%s","digest":"%s","size":2},"layers":[]}' % (
    kinds.OCI_CONFIG.encode(),
    Digest.of(b"{}").encode(),
)
"""A manifest that does not say its own media type, and so is what its source calls it."""


async def test_SEC18_a_media_type_belongs_to_the_source_that_gave_it(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    """F2: whoever writes last does not decide what another source's manifest is read as."""
    types = {"good": kinds.OCI_MANIFEST, "evil": kinds.DOCKER_LIST, "other": kinds.DOCKER_MANIFEST}
    for name, media_type in types.items():
        registry.put_manifest(name, BARE, media_type, tag="1")
    cache = LayoutCache(tmp_path / "cache", 1 << 30)
    for name in (*types, *reversed(types)):
        reference = asup.parse_reference(registry.reference(name, Digest.of(BARE)))
        async with new_session(cache) as session:
            image = await reference.open(session)
            async with image:
                assert (await image.get_manifest()).media_type == types[name]
            await settled(session)


async def test_a_media_type_belongs_to_the_principal_that_was_given_it(tmp_path: Path) -> None:
    cache = LayoutCache(tmp_path / "cache", 1 << 30)
    types = {"ann": kinds.OCI_MANIFEST, "bob": kinds.DOCKER_MANIFEST, "eve": kinds.OCI_INDEX}
    async with new_session(cache) as session:
        for who, media_type in types.items():
            manifest = Manifest(BARE, media_type, Digest.of(BARE))
            await cache.keep_manifest(session.scoped(who), manifest, top=True, source="s")
        for who, media_type in types.items():
            found = await cache.find_manifest(session.scoped(who), Digest.of(BARE), source="s")
            assert found is not None
            assert found.media_type == media_type


@pytest.mark.parametrize("wrong", [kinds.OCI_INDEX, kinds.DOCKER_LIST, kinds.DOCKER_MANIFEST])
@pytest.mark.parametrize("first", [True, False])
async def test_an_image_that_misnames_another_moves_neither_its_pin_nor_its_listing(
    tmp_path: Path, wrong: str, *, first: bool
) -> None:
    """F5: an index of another image gives the pinned manifest a type that it does not have."""
    honest, index = SMALL[0], build_index([SMALL[0]])
    lying = index.raw.replace(honest.media_type.encode(), wrong.encode(), 1)
    lying = lying if lying != index.raw else index.raw.replace(b'"size"', b' "size"', 1)
    liar = Manifest.verified(lying, None, None)
    named = Manifest.verified(honest.raw, None, honest.digest)
    cache = LayoutCache(tmp_path / "cache", 20_000)
    async with new_session(cache) as session:
        top = MemoryReference.of("app", honest.raw, blobs=honest.blobs.values())
        for step in range(2):
            if (step == 0) is first:
                await cache.keep_manifest(session, liar, top=True)
                await cache.keep_manifest(
                    session, Manifest(honest.raw, wrong, honest.digest), top=True
                )
            else:
                report = await cache.pin(top, session)
                assert not report.not_kept
        for _ in range(12):
            other = build_image(layers=[DICE.randbytes(4000)], gzip=False)
            async with MemoryReference.of("x", other.raw, blobs=other.blobs.values()).open(
                session
            ) as i:
                await i.prefetch()
        await settled(session)
        for digest in (honest.digest, *honest.blobs):
            assert kept_file(cache, digest).exists()
        assert named.media_type in (cache.path / "index.json").read_text()


# Local members


def damage(path: Path, how: str) -> None:
    if how == "removed":
        path.unlink()
    elif how == "truncated":
        os.truncate(path, 100)
    elif how == "flipped":
        with path.open("r+b") as file:
            file.seek(1000)
            file.write(b"?")


@pytest.mark.parametrize("how", ["removed", "truncated", "flipped"])
@pytest.mark.parametrize("prefer", ["manifest", "supplements"])
async def test_a_local_member_with_a_broken_blob_switches_nothing_off(
    registry: FakeRegistry, tmp_path: Path, how: str, prefer: Any
) -> None:
    """E1: prefetch keeps what no local file holds; then no request is made for it again."""
    top = registry.add("app", IMAGE)
    local = write_layout(tmp_path / "lay", IMAGE, name="1")
    damage(tmp_path / "lay" / "blobs" / "sha256" / LAYER.encoded, how)
    group = asup.supplement(top, local, prefer=prefer)
    cache = LayoutCache(tmp_path / "cache", 1 << 30)
    async with new_session(cache) as session, group.open(session) as image:
        report = await image.prefetch()
        assert LAYER in report.kept
        assert not report.not_kept
        assert report.blobs == 1
    assert kept_file(cache).read_bytes() == DATA
    count = registry.count(f"*/blobs/{LAYER}")
    if how != "flipped":  # A large file that is flipped is found out at its end only.
        async with new_session(cache) as session, group.open(session) as image:
            assert await read(image) == DATA
    assert registry.count(f"*/blobs/{LAYER}") == count


async def test_readers_share_what_a_local_member_lacks(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    top = registry.add("app", IMAGE)
    layouts = [write_layout(tmp_path / name, IMAGE, name="1") for name in "ab"]
    for name in "ab":
        damage(tmp_path / name / "blobs" / "sha256" / LAYER.encoded, "removed")
    inner = asup.supplement(layouts[0], top)
    for group in (asup.supplement(top, *layouts), asup.supplement(layouts[1], inner)):
        before = registry.count(f"*/blobs/{LAYER}")
        async with new_session(None) as session, group.open(session) as image:
            assert await asyncio.gather(*(read(image) for _ in range(8))) == [DATA] * 8
        assert registry.count(f"*/blobs/{LAYER}") == before + 1


async def test_a_part_fills_the_cache_although_a_local_member_comes_first(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    top = registry.add("app", IMAGE)
    local = write_layout(tmp_path / "lay", IMAGE, name="1")
    damage(tmp_path / "lay" / "blobs" / "sha256" / LAYER.encoded, "removed")
    cache = LayoutCache(tmp_path / "cache", 1 << 30, fills=True)
    async with new_session(cache) as session, asup.supplement(top, local).open(session) as image:
        async with image.open_blob(LAYER, start=5, end=9) as part:
            assert await part.read_all(4) == DATA[5:9]
        sharing = session.resource(SHARING, pytest.fail)
        for fetch in list(sharing._running):
            await asyncio.wait((fetch._task,))
    assert kept_file(cache).read_bytes() == DATA


async def test_a_cache_without_room_says_what_it_does_not_keep(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    top = asup.parse_reference(registry.add("app", IMAGE))
    cache = LayoutCache(tmp_path / "cache", MIB)
    async with new_session(cache) as session, top.open(session) as image:
        report = await image.prefetch()
    assert report.not_kept == (LAYER,)
    assert set(report.kept) == {IMAGE.digest, IMAGE.config}


@pytest.mark.parametrize("transport", ["oci", "dir", "memory", "docker"])
async def test_a_pin_keeps_everything_whatever_the_transport_of_the_top(
    registry: FakeRegistry, tmp_path: Path, transport: str
) -> None:
    """E2: the cache holds the top too, so it knows what the pin protects."""
    index = build_index(SMALL[:2])
    supplements = [registry.add(f"app{n}", image) for n, image in enumerate(SMALL[:2])]
    if transport == "docker":
        top: Any = registry.add("index", index)
    elif transport == "memory":
        top = MemoryReference.of("index", index.raw)
    else:
        top = write_layout(tmp_path / "lay", index, name="1", include=[])
    if transport == "dir":
        (tmp_path / "dir").mkdir()
        (tmp_path / "dir" / "manifest.json").write_bytes(index.raw)
        top = f"dir:{tmp_path}/dir"
    cache = LayoutCache(tmp_path / "cache", 20_000)
    async with new_session(cache) as session:
        await cache.pin(asup.supplement(top, *supplements), session)
        for _ in range(12):
            other = build_image(layers=[DICE.randbytes(4000)], gzip=False)
            async with MemoryReference.of("x", other.raw, blobs=other.blobs.values()).open(
                session
            ) as i:
                await i.prefetch()
    for image in SMALL[:2]:
        for digest in (image.digest, *image.blobs):
            assert kept_file(cache, digest).exists()


# Fetches of others

FAULTS = {
    "404": Status(404),
    "403": Status(403),
    "wrong": Corrupt(at=7),
    "late": Corrupt(at=len(DATA) - 1),
    "cut": Cut(MIB, "rst"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("apart", [False, True])
async def test_the_trouble_of_another_image_is_not_mine(
    tmp_path: Path, fault: str, *, apart: bool
) -> None:
    """E4: a fetch that another image or principal began fails, and one's own source has it."""
    async with FakeRegistry() as theirs, FakeRegistry() as mine:
        bad, good = theirs.add("app", IMAGE), mine.add("app", IMAGE)
        gate = asyncio.Event()
        theirs.script(LAYER, (Hold(gate), FAULTS[fault]), forever=True)
        cache = LayoutCache(tmp_path / "cache", 1 << 30)
        async with new_session(cache, share=lambda *_: True) as session:
            a = await asup.parse_reference(bad).open(session.scoped("a") if apart else session)
            b = await asup.parse_reference(good).open(session.scoped("b") if apart else session)
            async with a, b:
                first = asyncio.create_task(read(a))
                await wait_until(lambda: theirs.count(f"*/blobs/{LAYER}") == 1)
                others = [asyncio.create_task(read(b)) for _ in range(4)]
                for _ in range(20):
                    await asyncio.sleep(0)
                gate.set()
                assert await asyncio.gather(*others) == [DATA] * 4
                [outcome] = await asyncio.gather(first, return_exceptions=True)
                # The first reader fails, unless it finds by then what the others had cached.
                assert outcome == DATA or isinstance(outcome, asup.SupplementedError)
            await settled(session)
        # Resumed often enough, a fetch that is cut again and again may come to its end.
        asked = mine.count(f"*/blobs/{LAYER}")
        assert asked == 1 or (asked == 0 and fault == "cut" and outcome == DATA)
        assert kept_file(cache).read_bytes() == DATA


# Files that change


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(3 * MIB)
        file.write(b"?")


CHANGES: dict[str, Callable[[Path], object]] = {
    "unlink": os.unlink,
    "truncate": lambda path: os.truncate(path, MIB),
    "to nothing": lambda path: os.truncate(path, 0),
    "flip": flip,
    "grow": lambda path: os.truncate(path, 7 * MIB),
    "chmod": lambda path: path.chmod(0o640),
    "replace": lambda path: (path.rename(path.with_suffix(".x")), path.write_bytes(b"x")),
    "rm -r": lambda path: shutil.rmtree(path.parents[2]),
    "touch": os.utime,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("at", [0, 1, 4])
async def test_RES09_a_kept_file_that_changes_in_mid_read_fails_no_pull(
    registry: FakeRegistry, tmp_path: Path, change: str, at: int
) -> None:
    """E5. The changed file is not served later either."""
    reference = asup.parse_reference(registry.add("app", IMAGE))
    cache = LayoutCache(tmp_path / "cache", 1 << 30)
    async with new_session(cache) as session, reference.open(session) as image:
        await image.prefetch()
        received = b""
        async with image.open_blob(LAYER) as blob:
            for _ in range(at):
                received += await anext(blob)
            CHANGES[change](kept_file(cache))
            async for chunk in blob:
                received += chunk
        assert (received == DATA, blob.verified) == (True, True)
        assert await read(image) == DATA
    again = LayoutCache(cache.path, 1 << 30)
    async with new_session(again) as session, reference.open(session) as image:
        assert await read(image) == DATA


@pytest.mark.parametrize("change", ["truncate", "to nothing", "flip", "grow"])
@pytest.mark.parametrize("old", [False, True])
async def test_a_file_that_differs_from_the_record_is_hashed_before_it_is_served(
    registry: FakeRegistry, tmp_path: Path, change: str, *, old: bool
) -> None:
    """Also with a descriptor without a size, and in caches of versions without records."""
    reference = asup.parse_reference(registry.add("app", IMAGE))
    cache = LayoutCache(tmp_path / "cache", 1 << 30)
    async with new_session(cache) as session, reference.open(session) as image:
        await image.prefetch()
    CHANGES[change](kept_file(cache))
    if old:
        CachePaths(cache.path).identity(LAYER).unlink()
    again = LayoutCache(cache.path, 1 << 30)
    async with (
        new_session(again) as session,
        reference.open(session) as image,
        image.open_blob(asup.Descriptor(digest=LAYER)) as blob,
    ):
        assert await blob.read_all(1 << 30) == DATA
    assert registry.count(f"*/blobs/{LAYER}") == 2


# Nothing outlives a session


async def test_nothing_outlives_a_session(registry: FakeRegistry, tmp_path: Path) -> None:
    """E8: fetches and manifests that a cache keeps are waited for, and errors are retrieved."""

    class Failing(LayoutCache):
        async def keep_manifest(self, *_: object, **__: object) -> None:
            message = "a cache that breaks its promise"
            raise RuntimeError(message)

    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    before = asyncio.all_tasks()
    reference = asup.parse_reference(registry.add("app", IMAGE))
    registry.script(LAYER, Cut(2 * MIB, "rst"), forever=True)
    for kind in (LayoutCache, Failing):
        cache = kind(tmp_path / kind.__name__, 1 << 30)
        async with (
            new_session(cache) as session,
            reference.open(session) as image,
            image.open_blob(LAYER) as blob,
        ):
            await anext(blob)
        assert asyncio.all_tasks() <= before | {
            task for task in asyncio.all_tasks() if "server" in repr(task).lower()
        }
    del session, image, blob
    await asyncio.sleep(0)
    assert told == []
    loop.set_exception_handler(None)


# Disk


async def test_what_is_being_fetched_counts_in_the_limit(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    """F8: however many blobs come at once, announced or not, the directory keeps its limit."""
    images = [build_image(layers=[DICE.randbytes(MIB)], gzip=False) for _ in range(6)]
    names = [registry.add(f"app{n}", image) for n, image in enumerate(images)]
    cache = LayoutCache(tmp_path / "cache", 3 * MIB)
    permits = [asyncio.Semaphore(1) for _ in images]
    for permit, image in zip(permits, images, strict=True):
        registry.script(image.layers[0], Slow(MIB // 2, permits=permit))
    async with new_session(cache) as session:

        async def fetch(name: str, sized: bool, number: int) -> bytes:  # noqa: FBT001
            digest = images[number].layers[0]
            async with asup.parse_reference(name).open(session) as image:
                blob = asup.Descriptor(digest=digest, size=MIB if sized else None)
                async with image.open_blob(blob) as stream:
                    return await stream.read_all(2 * MIB)

        tasks = [asyncio.create_task(fetch(name, bool(n % 2), n)) for n, name in enumerate(names)]
        await wait_until(lambda: registry.count("*/blobs/*") == len(images))
        ingest = CachePaths(cache.path).ingest
        for permit in permits:
            await asyncio.sleep(0)
            stored = weigh(cache.path)  # first: a file that is published meanwhile counts once
            assert stored + weigh_files(ingest.iterdir()) <= 3 * MIB
            permit.release()
        assert await asyncio.gather(*tasks) == [image.blobs[image.layers[0]] for image in images]
        await settled(session)
    assert weigh(cache.path) <= 3 * MIB
    assert list(CachePaths(cache.path).reservations.iterdir()) == []
    assert int(CachePaths(cache.path).quota.read_text()) == weigh(cache.path)


async def test_a_size_that_is_only_announced_evicts_nothing(tmp_path: Path) -> None:
    cache = LayoutCache(tmp_path / "cache", 64 * MIB)
    honest = MemoryReference.of("app", IMAGE.raw, blobs=IMAGE.blobs.values())
    async with new_session(cache) as session:
        async with honest.open(session) as image:
            await image.prefetch()
        lie = asup.Descriptor(digest=Digest.of(b"a lie"), size=64 * MIB)
        spool = await cache.claim(session, lie)
        assert spool is not None
        async with spool:
            await spool.append(b"a lie")
    assert kept_file(cache).exists()
    assert cache.stats().bytes == sum(map(len, (IMAGE.raw, *IMAGE.blobs.values())))


# What is told


async def test_a_byte_is_counted_once_and_a_hit_says_so(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    """G2: one end for each reader, one part for each byte of upstream."""
    told: list[Event] = []
    reference = asup.parse_reference(registry.add("app", IMAGE))
    cache = LayoutCache(tmp_path / "cache", 1 << 30)

    def bytes_of(kind: type[BlobServed | BlobFinished]) -> list[tuple[int, bool]]:
        served = [event for event in told if isinstance(event, kind)]
        return [
            (e.end - e.start if isinstance(e, BlobServed) else e.received, e.cached) for e in served
        ]

    async with new_session(cache, hooks=[told.append]) as session, reference.open(session) as image:
        assert await read(image) == DATA
        assert bytes_of(BlobFinished) == bytes_of(BlobServed) == [(len(DATA), False)]
        await settled(session)
        told.clear()
        assert await read(image) == DATA
        assert bytes_of(BlobFinished) == bytes_of(BlobServed) == [(len(DATA), True)]
        assert [event.cached for event in told if isinstance(event, BlobStarted)] == [True]
        told.clear()
        async with image.open_blob(LAYER) as blob:
            assert blob.take_path() is not None
            assert blob.received == len(DATA)
        assert bytes_of(BlobFinished) == bytes_of(BlobServed) == [(len(DATA), True)]
    assert cache.stats() == CacheStats(
        bytes=len(DATA) + len(IMAGE.raw), entries=2, pins=0, hits=2, misses=1, limit=1 << 30
    )
    told.clear()
    by_digest = asup.parse_reference(registry.reference("app", IMAGE.digest))
    async with new_session(cache, hooks=[told.append]) as session, by_digest.open(session):
        assert [event.cached for event in told if isinstance(event, ManifestFetched)] == [True]
    assert not any(isinstance(event, BlobCopied) for event in told)
