"""Manifests in the cache: verified each time, and listed in index.json when they are whole."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asupplemented.cache.layout import index_json as tops
from asupplemented.cache.layout.layout_cache import LayoutCache
from asupplemented.model import media_type as kinds
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest
from asupplemented.oci_layout import LayoutStore, add_entry
from asupplemented.testing import build_image, build_index, write_layout
from tests.cache.driving import (
    Events,
    get,
    held,
    listed,
    put,
    put_image,
    weigh,
)
from tests.worlds import manifest_of

if TYPE_CHECKING:
    from asupplemented.session import Session
    from asupplemented.testing.images import Built
    from tests.clocks import FakeClock

DICE = random.Random(3)
AMD = build_image("linux/amd64", [DICE.randbytes(1000), DICE.randbytes(2000)])
ARM = build_image("linux/arm64", [DICE.randbytes(1500)])
INDEX = build_index([AMD, ARM])
DOCKER = build_image("linux/s390x", [DICE.randbytes(700)], docker=True)
LIMIT = 1_000_000


@pytest.fixture
def cache(path: Path) -> LayoutCache:
    return LayoutCache(path, LIMIT)


def waiting(path: Path) -> list[str]:
    return [file.name.replace("-", ":") for file in (path / ".asupplemented/waiting").glob("*/*")]


# Manifests


@pytest.mark.parametrize("built", [AMD, INDEX, DOCKER], ids=["image", "index", "docker"])
async def test_a_manifest_is_found_with_its_media_type(
    cache: LayoutCache, session: Session, built: Built
) -> None:
    assert await cache.find_manifest(session, built.digest) is None
    await cache.keep_manifest(session, manifest_of(built), top=False)
    assert await cache.find_manifest(session, built.digest) == manifest_of(built)
    assert await get(cache, session, built.digest) == built.raw


async def test_a_blob_is_no_manifest_whatever_it_says(cache: LayoutCache, session: Session) -> None:
    await put(cache, session, AMD.raw)
    assert await cache.find_manifest(session, AMD.digest) is None
    await cache.keep_manifest(session, manifest_of(AMD), top=False)
    assert await cache.find_manifest(session, AMD.digest) is not None


async def test_a_manifest_is_verified_each_time(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    await put_image(cache, session, AMD)
    assert listed(path) == [AMD.digest]
    (path / "blobs" / "sha256" / AMD.digest.encoded).write_bytes(AMD.raw.replace(b"a", b"b"))
    assert await cache.find_manifest(session, AMD.digest) is None
    assert AMD.digest not in held(path)
    assert listed(path) == []


async def test_schema_1_is_not_kept_because_a_layout_cannot_hold_it(
    cache: LayoutCache, session: Session, events: Events, path: Path
) -> None:
    old = Manifest(b"{}", kinds.DOCKER_SCHEMA1_SIGNED, Digest.of(b"{}"))
    await cache.keep_manifest(session, old, top=True)
    assert not path.exists()
    assert events.messages == []


async def test_manifests_count_as_bytes(session: Session, clock: FakeClock, path: Path) -> None:
    cache = LayoutCache(path, len(AMD.raw) + len(ARM.raw) - 1)
    await cache.keep_manifest(session, manifest_of(AMD), top=False)
    clock.time += 1
    await cache.keep_manifest(session, manifest_of(ARM), top=False)
    assert held(path) == {ARM.digest}


# Listing


@pytest.mark.parametrize("built", [AMD, INDEX, DOCKER], ids=["image", "index", "docker"])
async def test_a_whole_top_is_listed_with_its_digest_as_its_name(
    cache: LayoutCache, session: Session, path: Path, built: Built
) -> None:
    await put_image(cache, session, built)
    [entry] = json.loads((path / "index.json").read_bytes())["manifests"]
    assert entry == {
        "mediaType": built.media_type,
        "digest": built.digest,
        "size": len(built.raw),
        "annotations": {"org.opencontainers.image.ref.name": built.digest},
    }
    assert waiting(path) == []


async def test_a_top_is_listed_when_the_last_of_it_arrives_in_any_order(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    parts = [*INDEX.walk(), *INDEX.blobs.values()]
    dice = random.Random(1)
    for _ in range(6):
        dice.shuffle(parts)
        for number, part in enumerate(parts):
            if isinstance(part, bytes):
                await put(cache, session, part)
            else:
                await cache.keep_manifest(session, manifest_of(part), top=part is INDEX)
            assert listed(path) == ([INDEX.digest] if number == len(parts) - 1 else [])
        for file in (path / "blobs").glob("*/*"):
            file.unlink()
        (path / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')


@pytest.mark.parametrize("durable", [True, False])
async def test_durable_means_that_all_is_synced_before_it_is_listed(
    session: Session, path: Path, monkeypatch: pytest.MonkeyPatch, *, durable: bool
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        assert listed(path) == [] or synced[-1] == str(path)

    cache = LayoutCache(path, LIMIT, durable=durable)
    await put_image(cache, session, INDEX, top=False)
    monkeypatch.setattr(os, "fsync", fsync)
    await cache.keep_manifest(session, manifest_of(INDEX), top=True)
    assert listed(path) == [INDEX.digest]
    directory = path / "blobs" / "sha256"
    needed = {str(directory / built.digest.encoded) for built in INDEX.walk()} | {str(directory)}
    assert (needed <= set(synced)) is durable


async def test_any_process_completes_a_top(session: Session, path: Path) -> None:
    first, second = LayoutCache(path, LIMIT), LayoutCache(path, LIMIT)
    await first.keep_manifest(session, manifest_of(AMD), top=True)
    for number, data in enumerate(AMD.blobs.values()):
        assert listed(path) == []
        await put((second, first)[number % 2], session, data)
    assert listed(path) == [AMD.digest]


async def test_what_is_no_top_is_not_listed(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    await put_image(cache, session, INDEX, top=False)
    assert listed(path) == []
    await cache.keep_manifest(session, manifest_of(ARM), top=True)
    assert listed(path) == [ARM.digest]


async def test_layers_that_must_not_be_distributed_may_be_missing(
    cache: LayoutCache, session: Session, path: Path
) -> None:

    def variant(media_type: str, urls: list[str]) -> bytes:
        tree = json.loads(ARM.raw)
        tree["layers"][0] |= {"mediaType": media_type, "urls": urls}
        return json.dumps(tree).encode()

    elsewhere = ["https://other.example/layer"]
    foreign = kinds.OCI_NONDISTRIBUTABLE_LAYER_GZIP
    await put(cache, session, ARM.blobs[ARM.config])
    for raw, whole in (
        (variant(foreign, elsewhere), True),
        (variant(foreign, []), False),
        (variant(kinds.OCI_LAYER_GZIP, elsewhere), False),
    ):
        manifest = Manifest.verified(raw, kinds.OCI_MANIFEST, None)
        await cache.keep_manifest(session, manifest, top=True)
        assert (manifest.digest in listed(path)) is whole


async def test_a_top_that_names_no_digest_is_kept_and_never_listed(
    cache: LayoutCache, session: Session, events: Events, path: Path
) -> None:
    tree = json.loads(ARM.raw)
    tree["layers"][0]["digest"] = "sha256:zz"
    manifest = Manifest.verified(json.dumps(tree).encode(), kinds.OCI_MANIFEST, None)
    await cache.keep_manifest(session, manifest, top=True)
    assert await cache.find_manifest(session, manifest.digest) is not None
    assert listed(path) == []


async def test_SEC_lists_that_nest_too_deep_are_not_followed(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    nested = build_index([ARM])
    for _ in range(8):
        nested = build_index([nested])
    await put_image(cache, session, nested)
    assert listed(path) == []
    await put_image(cache, session, nested.members[0])
    assert listed(path) == [nested.members[0].digest]


async def test_the_oldest_entries_go_when_there_are_too_many(
    cache: LayoutCache, session: Session, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tops, "MAX_LISTED", 3)
    path.mkdir()
    foreign = write_layout(path, DOCKER, name="theirs")
    assert foreign.endswith(":theirs")
    images = [build_image(labels={"n": str(number)}) for number in range(5)]
    for image in images:
        await put_image(cache, session, image)
    entries = json.loads((path / "index.json").read_bytes())["manifests"]
    assert [entry["digest"] for entry in entries] == [
        DOCKER.digest,
        *(image.digest for image in images[2:]),
    ]


async def test_an_index_json_that_is_no_index_is_left_alone(
    cache: LayoutCache, session: Session, events: Events, path: Path
) -> None:
    await put(cache, session, b"first")
    (path / "index.json").write_text("{nonsense")
    await put_image(cache, session, AMD)
    assert (path / "index.json").read_text() == "{nonsense"
    assert await cache.find_manifest(session, AMD.digest) == manifest_of(AMD)
    for digest, data in AMD.blobs.items():
        assert await get(cache, session, digest) == data
    assert len(events.messages) == 1
    (path / "index.json").unlink()
    await put_image(cache, session, AMD)
    assert listed(path) == [AMD.digest]


# Evicting


async def test_an_entry_goes_before_any_of_its_blobs(
    session: Session, clock: FakeClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = LayoutCache(path, sum(map(len, [AMD.raw, *AMD.blobs.values()])))
    await put_image(cache, session, AMD)
    assert listed(path) == [AMD.digest]
    real = Path.unlink
    gone: list[str] = []

    def unlink(self: Path, *, missing_ok: bool = False) -> None:
        if self.parent.parent.name == "blobs":
            assert listed(path) == []
            gone.append(self.name)
        real(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    clock.time += 1
    await put(cache, session, b"one more byte")
    assert len(gone) >= 1


async def test_a_top_that_lost_a_blob_is_listed_again_when_it_returns(
    session: Session, clock: FakeClock, path: Path
) -> None:
    room = sum(map(len, [AMD.raw, *AMD.blobs.values()]))
    cache = LayoutCache(path, room + 1000)
    await put_image(cache, session, AMD)
    layers = [AMD.blobs[digest] for digest in AMD.layers]
    for digest in (AMD.digest, AMD.config, Digest.of(layers[1])):
        clock.time += 100
        await get(cache, session, digest)
    await put(cache, session, b"y" * 1500)
    assert Digest.of(layers[0]) not in held(path)
    assert listed(path) == []
    assert waiting(path) == [AMD.digest]
    (path / "blobs" / "sha256" / Digest.of(b"y" * 1500).encoded).unlink()
    await put(LayoutCache(path, room + 1000), session, layers[0])
    assert listed(path) == [AMD.digest]
    assert waiting(path) == []


async def test_what_other_tools_listed_goes_from_the_list_too(
    session: Session, clock: FakeClock, path: Path
) -> None:
    path.mkdir()
    write_layout(path, DOCKER, name="theirs")
    cache = LayoutCache(path, weigh(path) + 100)
    clock.epoch = (path / "index.json").stat().st_mtime + 10
    await put(cache, session, b"y" * 500)
    assert listed(path) == []


async def test_while_index_json_cannot_be_read_nothing_listed_is_evicted(
    session: Session, clock: FakeClock, events: Events, path: Path
) -> None:
    cache = LayoutCache(path, sum(map(len, [AMD.raw, *AMD.blobs.values()])))
    await put_image(cache, session, AMD)
    before = held(path)
    (path / "index.json").write_text("{nonsense")
    clock.time += 100
    await put(cache, session, b"y")
    assert held(path) == before
    assert len(events.messages) == 1


# Pins


async def test_what_a_pinned_top_reaches_stays(
    session: Session, clock: FakeClock, path: Path
) -> None:
    everything = {INDEX.digest, AMD.digest, ARM.digest, *INDEX.blobs}
    room = sum(map(len, [*(one.raw for one in INDEX.walk()), *INDEX.blobs.values()]))
    cache = LayoutCache(path, room + 1000)
    await cache.pin_digests(session, INDEX.digest)
    await put_image(cache, session, INDEX)
    other = LayoutCache(path, room + 1000)
    for number in range(8):
        clock.time += 100
        await put(other, session, bytes([number]) * 400)
    assert held(path) >= everything
    assert listed(path) == [INDEX.digest]
    assert weigh(path) <= room + 1000
    await other.unpin(session, INDEX.digest)
    await put(cache, session, b"y" * room)
    assert held(path) == {Digest.of(b"y" * room)} | (held(path) - everything)
    assert listed(path) == []


async def test_a_pinned_blob_stays_and_unpinned_goes(
    session: Session, clock: FakeClock, events: Events, path: Path
) -> None:
    cache = LayoutCache(path, 2000)
    one, two, three = (bytes([number]) * 900 for number in range(3))
    await put(cache, session, one)
    await cache.pin_digests(session, Digest.of(one), Digest.of(two))
    await put(cache, session, two)
    clock.time += 100
    await put(cache, session, three)
    assert held(path) == {Digest.of(one), Digest.of(two)}
    assert "pinned" in events.messages[0]
    await cache.unpin(session, Digest.of(two), Digest.of(three))
    await put(cache, session, three)
    assert held(path) == {Digest.of(one), Digest.of(three)}


async def test_nothing_is_evicted_for_what_would_not_fit_beside_the_pins(
    session: Session, path: Path
) -> None:
    cache = LayoutCache(path, 2000)
    pinned, other = b"p" * 1500, b"o" * 400
    await put(cache, session, pinned)
    await put(cache, session, other)
    await cache.pin_digests(session, Digest.of(pinned))
    await put(cache, session, b"n" * 600)
    assert held(path) == {Digest.of(pinned), Digest.of(other)}


async def test_a_copy_into_the_cache_by_others_is_seen(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    await put(cache, session, b"first")
    entry = Descriptor(digest=DOCKER.digest, media_type=DOCKER.media_type, size=len(DOCKER.raw))
    await LayoutStore.at(path).update_index(session, lambda tree: add_entry(tree, entry))
    await put_image(cache, session, AMD)
    entries = json.loads((path / "index.json").read_bytes())["manifests"]
    assert [entry["digest"] for entry in entries] == [DOCKER.digest, AMD.digest]
