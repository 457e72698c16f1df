"""Sessions with a cache: what was read once is not asked for again, and nothing is given away."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

import asupplemented as asup
from asupplemented.cache.layout.layout_cache import LayoutCache
from asupplemented.cache.sharing import SHARING
from asupplemented.events import BlobCopied, BlobReused, CopyPlanned, CopyProgress
from asupplemented.limits import MIB, SMALL_BLOB
from asupplemented.model import digest as digests
from asupplemented.testing import (
    Cut,
    FakeRegistry,
    Status,
    build_image,
    build_index,
    write_layout,
)
from tests.suspending import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

AMD64 = build_image("linux/amd64", [b"base", b"amd64" * 1000])
ARM64 = build_image("linux/arm64", [b"base", b"arm64" * 1000])
INDEX = build_index([AMD64, ARM64])
LARGE = build_image("linux/amd64", [bytes(range(256)) * ((SMALL_BLOB + MIB) // 256)])


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        registry.add("team/app", INDEX, tag="1")
        registry.add("team/large", LARGE, tag="1")
        yield registry


@pytest.fixture
def cache(tmp_path: Path) -> LayoutCache:
    return LayoutCache(tmp_path / "cache", 64 * MIB)


def new_session(cache: LayoutCache | None, **options: object) -> asup.Session:
    return asup.Session(tls_verify=False, cache=cache, **options)  # type: ignore[arg-type]


async def read(image: asup.Source, digest: asup.Digest | str) -> bytes:
    async with image.open_blob(digest) as blob:
        return await blob.read_all(1 << 30)


async def test_a_blob_that_was_read_is_a_file_for_all_who_come_later(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    reference = registry.reference("team/large", "1")
    digest = LARGE.layers[0]
    async with new_session(cache) as session, await open_image(reference, session) as image:
        assert await read(image, digest) == LARGE.blobs[digest]
        await settled(session)
        async with image.open_blob(digest) as blob:
            path = blob.take_path()
            assert path is not None
            assert path.read_bytes() == LARGE.blobs[digest]
            assert blob.verified is True
        async with image.open_blob(digest, start=5, end=9) as part:
            assert await part.read_all(4) == LARGE.blobs[digest][5:9]
        assert part.verified is True
    assert registry.count("*/blobs/*") == 1
    async with new_session(cache) as session, await open_image(reference, session) as image:
        assert await read(image, digest) == LARGE.blobs[digest]
    assert registry.count("*/blobs/*") == 1


async def test_a_blob_that_is_kept_is_a_file_even_while_the_first_reader_is_slow(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    digest = LARGE.layers[0]
    async with (
        new_session(cache) as session,
        await open_image(registry.reference("team/large", "1"), session) as image,
        image.open_blob(digest) as slow,
    ):
        await anext(slow)
        fetch = next(iter(session.resource(SHARING, pytest.fail)._running))
        await wait_until(lambda: fetch.whole)
        async with image.open_blob(digest) as blob:
            assert blob.take_path() is not None
        assert registry.count("*/blobs/*") == 1


async def open_image(reference: str, session: asup.Session) -> asup.Source:
    return await asup.parse_reference(reference).open(session)


async def settled(session: asup.Session) -> None:
    """Wait until what was read is kept."""
    sharing = session.resource(SHARING, pytest.fail)
    await wait_until(lambda: repr(sharing).startswith("<Sharing: 0 fetches"))


async def test_manifests_are_found_by_digest_and_tags_are_asked_for_again(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    group = asup.supplement(registry.reference("team/app", "1"))
    for _ in range(2):
        async with new_session(cache) as session, group.open(session) as image:
            assert image.resolution.top == INDEX.digest
    assert registry.count("*/manifests/1") == 2
    assert registry.count(f"*/manifests/{AMD64.digest}") == 1
    assert registry.count(f"*/manifests/{ARM64.digest}") == 1


async def test_an_image_by_digest_needs_no_registry_once_it_is_kept(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    reference = registry.reference("team/app", INDEX.digest)
    async with new_session(cache) as session, await open_image(reference, session) as image:
        await image.prefetch()
    await registry.aclose()
    async with new_session(cache) as session, await open_image(reference, session) as image:
        manifest = await image.get_manifest(ARM64.digest)
        assert manifest.raw == ARM64.raw
        for layer in ARM64.layers:
            assert await read(image, layer) == ARM64.blobs[layer]


async def test_a_manifest_that_was_spoiled_on_disk_is_fetched_again(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    reference = registry.reference("team/app", INDEX.digest)
    for _ in range(2):
        async with new_session(cache) as session, await open_image(reference, session) as image:
            assert (await image.get_manifest()).raw == INDEX.raw
        path = cache.path / "blobs" / "sha256" / INDEX.digest.encoded
        path.chmod(0o600)
        path.write_bytes(path.read_bytes().replace(b"linux", b"Linux"))
    assert registry.count(f"*/manifests/{INDEX.digest}") == 2


async def test_a_manifest_in_the_cache_is_hashed_once(
    registry: FakeRegistry, cache: LayoutCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = registry.reference("team/app", "1")
    for _ in range(2):  # The second time, the cache reads what the index references.
        async with new_session(cache) as session, await open_image(reference, session) as image:
            await image.get_manifest(ARM64.digest)
    hashed: list[bytes] = []

    def count(data: bytes = b"") -> Any:
        hashed.append(data)
        return hashlib.sha256(data)

    monkeypatch.setitem(digests._CONSTRUCTORS, "sha256", count)
    async with new_session(cache) as session, await open_image(reference, session) as image:
        hashed.clear()
        assert (await image.get_manifest(ARM64.digest)).raw == ARM64.raw
    assert hashed.count(ARM64.raw) == 1
    assert registry.count(f"*/manifests/{ARM64.digest}") == 1


async def test_prefetch_brings_everything_and_says_so(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    told: list[CopyProgress] = []
    group = asup.supplement(registry.reference("team/app", "1"))
    async with new_session(cache) as session, group.open(session) as image:
        report = await image.prefetch(progress=told.append)
        blobs = {**AMD64.blobs, **ARM64.blobs}
        assert (report.digest, report.manifests, report.blobs) == (INDEX.digest, 3, len(blobs))
        assert report.bytes == sum(map(len, blobs.values()))
        assert (report.reused_blobs, report.missing) == (0, ())
        assert told[0] == CopyPlanned(3, len(blobs), report.bytes)
        assert sum(isinstance(each, BlobCopied) for each in told) == len(blobs)
        again = await image.prefetch(progress=told.append)
        assert (again.blobs, again.reused_blobs) == (0, len(blobs))
        assert isinstance(told[-1], BlobReused)
    listed = json.loads((cache.path / "index.json").read_bytes())["manifests"]
    assert [entry["digest"] for entry in listed] == [INDEX.digest]


async def test_prefetch_takes_what_a_selection_takes(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    reference = registry.reference("team/app", "1")
    async with new_session(cache) as session, await open_image(reference, session) as image:
        platform = asup.Platform.parse("linux/arm64")
        report = await image.prefetch(selection=asup.SystemImage(platform))
    assert (report.manifests, report.blobs) == (2, len(ARM64.blobs))
    assert registry.count(f"*/blobs/{AMD64.config}") == 0
    group = asup.supplement(reference, selection=asup.SystemImage(platform))
    async with new_session(cache) as session, group.open(session) as grouped:
        assert (await grouped.prefetch()).reused_blobs == len(ARM64.blobs)


async def test_prefetch_leaves_what_is_in_files_where_it_is(
    registry: FakeRegistry, cache: LayoutCache, tmp_path: Path
) -> None:
    write_layout(tmp_path / "layout", AMD64, name="x")
    group = asup.supplement(registry.reference("team/app", "1"), f"oci:{tmp_path}/layout:x")
    async with new_session(cache) as session, group.open(session) as image:
        report = await image.prefetch()
    shared = set(AMD64.blobs) & set(ARM64.blobs)
    assert report.reused_blobs == len(AMD64.blobs) - len(shared)
    assert registry.count(f"*/blobs/{AMD64.config}") == 0


async def test_prefetch_without_a_cache_is_refused(registry: FakeRegistry) -> None:
    reference = registry.reference("team/app", "1")
    async with new_session(None) as session, await open_image(reference, session) as image:
        with pytest.raises(asup.ConfigurationError, match="cache"):
            await image.prefetch()


async def test_prefetch_of_nothing_at_a_time_is_refused(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    reference = registry.reference("team/app", "1")
    async with new_session(cache) as session, await open_image(reference, session) as image:
        with pytest.raises(asup.ConfigurationError, match="concurrency"):
            await image.prefetch(concurrency=0)


async def test_prefetch_tells_of_a_layer_that_is_somewhere_else(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    document = json.loads(AMD64.raw)
    foreign = AMD64.layers[1]
    document["layers"][1]["urls"] = ["https://example.test/layer"]
    raw = json.dumps(document).encode()
    registry.add("team/foreign", AMD64, tag=None, omit=[foreign])
    registry.put_manifest("team/foreign", raw, AMD64.media_type, tag="1")
    reference = registry.reference("team/foreign", "1")
    async with new_session(cache) as session, await open_image(reference, session) as image:
        report = await image.prefetch()
    assert report.missing == (foreign,)


async def test_a_reader_that_leaves_does_not_end_what_the_cache_wants(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    digest = LARGE.layers[0]
    reference = registry.reference("team/large", "1")
    async with new_session(cache) as session:
        async with await open_image(reference, session) as image, image.open_blob(digest) as blob:
            await anext(blob)
        await settled(session)
        async with await open_image(reference, session) as image, image.open_blob(digest) as blob:
            assert blob.take_path() is not None
    assert registry.count("*/blobs/*") == 1


async def test_what_breaks_off_is_kept_whole_all_the_same(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    digest = LARGE.layers[0]
    registry.script(f"/v2/team/large/blobs/{digest}", Cut(3 * MIB, "rst"))
    reference = registry.reference("team/large", "1")
    async with new_session(cache) as session, await open_image(reference, session) as image:
        assert await read(image, digest) == LARGE.blobs[digest]
        await settled(session)
        async with image.open_blob(digest) as blob:
            assert blob.take_path() is not None


async def test_SEC13_what_one_principal_brought_is_not_there_for_another(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    digest = LARGE.layers[0]
    reference = asup.parse_reference(registry.reference("team/large", "1"))
    async with new_session(cache) as session:
        for count, principal in enumerate(("alice", "bob"), start=1):
            for _ in range(2):
                async with await reference.open(session.scoped(principal)) as image:
                    assert await read(image, digest) == LARGE.blobs[digest]
                await settled(session)
            assert registry.count(f"*/blobs/{digest}") == count


async def test_SEC13_principals_share_the_cache_as_the_caller_says(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    digest = LARGE.layers[0]
    reference = asup.parse_reference(registry.reference("team/large", "1"))

    def share(principal: str | None, blob: asup.Descriptor, members: object, /) -> bool:
        assert members == (str(reference),)
        return blob.digest == digest and principal != "mallory"

    async with new_session(cache, share=share) as session:
        for principal in ("alice", "bob", "mallory"):
            async with await reference.open(session.scoped(principal)) as image:
                assert await read(image, digest) == LARGE.blobs[digest]
            await settled(session)
    assert registry.count(f"*/blobs/{digest}") == 2


async def test_many_sessions_at_once_over_one_directory(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    digest = LARGE.layers[0]
    reference = registry.reference("team/large", "1")

    async def work() -> bytes:
        own = LayoutCache(cache.path, 1 << 30)  # room for what each of them has in the making
        async with new_session(own) as session, await open_image(reference, session) as image:
            return await read(image, digest)

    assert await asyncio.gather(*(work() for _ in range(8))) == [LARGE.blobs[digest]] * 8
    assert registry.count(f"*/blobs/{digest}") == 1


async def test_a_pinned_image_is_fetched_and_stays(registry: FakeRegistry, tmp_path: Path) -> None:
    told: list[CopyProgress] = []
    cache = LayoutCache(tmp_path / "cache", 6 * MIB)
    app = asup.supplement(registry.reference("team/app", "1"))
    large = asup.supplement(registry.reference("team/large", "1"))
    async with new_session(cache) as session:
        report = await cache.pin(app, session, progress=told.append)
        assert (report.digest, report.missing) == (INDEX.digest, ())
        assert isinstance(told[0], CopyPlanned)
        for _ in range(2):
            async with large.open(session) as image:
                await image.prefetch()
        again = await cache.pin(app, session)
        assert again.reused_blobs == len({**AMD64.blobs, **ARM64.blobs})
        await cache.unpin(session, INDEX.digest)


async def test_what_could_not_be_fetched_stays_pinned(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    reference = asup.parse_reference(registry.reference("team/app", "1"))
    blob = f"/v2/team/app/blobs/{AMD64.layers[1]}"
    registry.script(blob, Status(403))
    async with new_session(cache) as session:
        with pytest.raises(asup.ForbiddenError):
            await cache.pin(reference, session)
        report = await cache.pin(reference, session)
        assert report.missing == ()


async def test_a_cache_pins_for_its_own_sessions_only(
    registry: FakeRegistry, cache: LayoutCache
) -> None:
    reference = asup.parse_reference(registry.reference("team/app", "1"))
    async with new_session(None) as session:
        with pytest.raises(asup.ConfigurationError, match="Session\\(cache"):
            await cache.pin(reference, session)
