"""The cache on disk: what comes in is found again, by whom it may be, within the limit."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING

import pytest

from asupplemented.cache import shared_fetch
from asupplemented.cache.layout.layout_cache import LayoutCache
from asupplemented.cache.sharing import open_stream
from asupplemented.errors import ClosedError, ConfigurationError, InvalidDigestError
from asupplemented.events import BlobEvicted
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.session import Session
from asupplemented.testing import build_image
from tests.cache.driving import (
    Events,
    Scoped,
    chunks_of,
    fill,
    get,
    held,
    in_the_making,
    put,
    read,
    read_all,
    weigh,
)
from tests.candidates import Ledger, Wire, describe, drain
from tests.suspending import cancel_at_every_await, count_open_files, wait_until
from tests.worlds import manifest_of

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented.events import Event
    from tests.clocks import FakeClock

DICE = random.Random(11)
SMALL = DICE.randbytes(1000)
LARGE = DICE.randbytes(600_000)
LIMIT = 10_000_000


@pytest.fixture
def cache(path: Path) -> LayoutCache:
    return LayoutCache(path, LIMIT)


def blobs(count: int, size: int) -> list[bytes]:
    return [random.Random(number).randbytes(size) for number in range(count)]


# In and out


@pytest.mark.parametrize("data", [b"", b"x", SMALL, LARGE], ids=len)
@pytest.mark.parametrize("size", ["known", "unknown"])
async def test_a_blob_that_came_is_found(
    cache: LayoutCache, session: Session, path: Path, data: bytes, size: str
) -> None:
    before = count_open_files()
    assert await get(cache, session, Digest.of(data)) is None
    assert await put(cache, session, data, len(data) if size == "known" else None)
    file = await cache.find(session, describe(data))
    assert file is not None
    assert file.path == path / "blobs" / "sha256" / Digest.of(data).encoded
    assert (file.offset, file.size, read(file)) == (0, len(data), data)
    file.close()
    assert in_the_making(path) == []
    assert list((path / ".asupplemented" / "leads").iterdir()) == []
    assert count_open_files() == before


async def test_sha512_has_its_own_directory(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    blob = describe(SMALL, algorithm="sha512")
    spool = await cache.claim(session, blob)
    assert spool is not None
    async with spool:
        await fill(spool, SMALL)
        await spool.commit()
    assert await get(cache, session, Digest(blob.digest)) == SMALL
    assert held(path) == {blob.digest}


async def test_nothing_is_written_before_it_is_used(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    assert await get(cache, session, Digest.of(SMALL)) is None
    assert not path.exists()


async def test_its_directory_is_for_one_user_and_a_layout_from_the_start(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    spool = await cache.claim(session, describe(SMALL))
    assert spool is not None
    await spool.aclose()
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0"}'
    assert (path / "index.json").read_bytes() == b'{"manifests":[],"schemaVersion":2}'


async def test_a_directory_that_is_there_stays_as_it_is(session: Session, path: Path) -> None:
    path.mkdir(mode=0o755)
    (path / "index.json").write_text('{"schemaVersion":2,"manifests":[],"annotations":{"a":"b"}}')
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    before = (path / "index.json").read_bytes()
    assert await put(LayoutCache(path, LIMIT), session, SMALL)
    assert (path / "index.json").read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o755


async def test_nothing_partial_is_ever_found(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    spool = await cache.claim(session, describe(LARGE))
    assert spool is not None
    async with spool:
        for chunk in chunks_of(LARGE):
            await spool.append(chunk)
            assert held(path) == set()
            assert await get(cache, session, Digest.of(LARGE)) is None
    assert held(path) == set()
    assert in_the_making(path) == []


async def test_a_spool_is_read_while_it_grows_and_after_it_was_kept(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    spool = await cache.claim(session, describe(LARGE))
    assert spool is not None
    async with spool:
        for chunk in chunks_of(LARGE):
            await spool.append(chunk)
            assert await spool.read(spool.length - 5, 100) == chunk[-5:]
        await spool.commit()
        await spool.commit()
        assert held(path) == {Digest.of(LARGE)}
        assert await read_all(spool) == LARGE
        assert await get(LayoutCache(path, LIMIT), session, Digest.of(LARGE)) == LARGE
    assert await get(cache, session, Digest.of(LARGE)) == LARGE


async def test_another_cache_and_session_find_it(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    await put(cache, session, SMALL)
    async with Session() as other:
        assert await get(LayoutCache(path, LIMIT), other, Digest.of(SMALL)) == SMALL


async def test_a_cache_is_used_by_several_event_loops(path: Path) -> None:
    cache = LayoutCache(path, LIMIT)
    wanted = blobs(8, 50_000)

    def use(mine: list[bytes]) -> None:
        async def run() -> None:
            async with Session() as session:
                for data in mine:
                    await put(cache, session, data)
                for data in mine:
                    assert await get(cache, session, Digest.of(data)) == data

        asyncio.run(run())

    await asyncio.gather(*(asyncio.to_thread(use, wanted[at::4]) for at in range(4)))
    assert held(path) == {Digest.of(data) for data in wanted}


async def test_closed_it_finds_and_keeps_nothing(cache: LayoutCache, session: Session) -> None:
    await put(cache, session, SMALL)
    image = build_image()
    await cache.keep_manifest(session, manifest_of(image), top=False)
    await cache.aclose()
    await cache.aclose()
    assert await get(cache, session, Digest.of(SMALL)) is None
    assert await cache.find_manifest(session, image.digest) is None
    assert await cache.claim(session, describe(LARGE)) is None
    await cache.keep_manifest(session, manifest_of(image), top=True)
    with pytest.raises(ClosedError, match="was closed; make another one"):
        await cache.pin_digests(session, Digest.of(SMALL))


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "1", None])
def test_CONF_a_limit_is_a_number_of_bytes(tmp_path: Path, limit: object) -> None:
    with pytest.raises(ConfigurationError, match="max_bytes is a number of bytes above 0"):
        LayoutCache(tmp_path, limit)  # type: ignore[arg-type]


def test_its_repr_tells_where_it_is(tmp_path: Path) -> None:
    assert repr(LayoutCache("/srv/cache", 5)) == "<LayoutCache '/srv/cache' of 5 bytes, open>"


async def test_SEC_01_what_is_no_digest_makes_no_path(cache: LayoutCache, session: Session) -> None:
    bad = Descriptor(digest="sha256:../../../etc/passwd")
    with pytest.raises(InvalidDigestError):
        await cache.find(session, bad)
    with pytest.raises(InvalidDigestError):
        await cache.claim(session, bad)


# In a session


async def test_what_was_read_to_its_end_is_kept_though_the_session_closes_at_once(
    cache: LayoutCache, path: Path
) -> None:
    data = DICE.randbytes(5_000_000)
    ledger = Ledger()
    async with Session(cache=cache) as session:
        stream = open_stream(describe(data), [Wire(data, ledger)], session)
        assert await drain(stream) == data
    assert held(path) == {Digest.of(data)}
    async with Session(cache=LayoutCache(path, LIMIT)) as session:
        async with open_stream(describe(data), [Wire(data, ledger)], session) as stream:
            assert stream.take_path() == stored(path, data)
        assert await drain(open_stream(describe(data), [Wire(data, ledger)], session)) == data
    assert len(ledger.asked) == 1


@pytest.mark.parametrize(
    ("fills", "start", "asked"),
    [(True, 10, [0]), (True, 50_000, [50_000, 0]), (False, 10, [10])],
    ids=["near the beginning", "far away", "without filling"],
)
async def test_a_part_of_a_blob_has_all_of_it_fetched_if_the_cache_fills(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: int,
    asked: list[int],
    *,
    fills: bool,
) -> None:
    monkeypatch.setattr(shared_fetch, "NEAR", 1000)
    end = start + 10
    ledger = Ledger()
    cache = LayoutCache(path, LIMIT, fills=fills)
    async with Session(cache=cache) as session:
        part = open_stream(describe(LARGE), [Wire(LARGE, ledger)], session, start=start, end=end)
        assert await drain(part) == LARGE[start:end]
        if fills:
            await wait_until(lambda: path.exists() and held(path) == {Digest.of(LARGE)})
    assert [first for _, first, _ in ledger.asked] == asked


# Cancellation


async def test_cancelled_at_every_await_nothing_stays(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    await put(cache, session, SMALL)
    before = count_open_files()

    async def run() -> None:
        spool = await cache.claim(session, describe(LARGE))
        assert spool is not None
        async with spool:
            await fill(spool, LARGE)
            await spool.read(0, 1)
            await spool.commit()
        await get(cache, session, Digest.of(LARGE))
        await cache.find_manifest(session, Digest.of(LARGE))

    async def check() -> None:
        async with Session() as other:  # whose threads are not behind those of the session
            assert await put(cache, session, SMALL)
            if Digest.of(LARGE) in held(path):
                assert await get(cache, other, Digest.of(LARGE)) == LARGE
                (path / "blobs" / "sha256" / Digest.of(LARGE).encoded).unlink()
        await wait_until(lambda: in_the_making(path) == [])
        await wait_until(lambda: not any((path / ".asupplemented" / "leads").iterdir()))
        await wait_until(lambda: count_open_files() == before)

    assert await cancel_at_every_await(run, check) >= 8


# Principals


async def test_SEC_13_each_principal_finds_what_it_has_fetched_itself(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    ann, bob = Scoped(session, "ann"), Scoped(session, "bob")
    digest = Digest.of(SMALL)
    await put(cache, ann, SMALL)
    assert await get(cache, ann, digest) == SMALL
    assert await get(cache, bob, digest) is None
    assert await get(cache, session, digest) is None
    assert await get(cache, bob, digest, shared=True) == SMALL
    await put(cache, bob, SMALL)
    assert await get(cache, bob, digest) == SMALL
    assert await get(cache, session, digest) is None
    await put(cache, session, SMALL)
    assert await get(cache, session, digest) == SMALL
    assert held(path) == {digest}
    names = " ".join(str(file) for file in path.rglob("*"))
    assert "ann" not in names
    assert "bob" not in names


async def test_SEC_13_manifests_too(cache: LayoutCache, session: Session) -> None:
    ann, bob = Scoped(session, "ann"), Scoped(session, "bob")
    image = build_image()
    await cache.keep_manifest(ann, manifest_of(image), top=True)
    assert await cache.find_manifest(ann, image.digest) == manifest_of(image)
    assert await cache.find_manifest(bob, image.digest) is None
    await cache.keep_manifest(bob, manifest_of(image), top=False)
    assert await cache.find_manifest(bob, image.digest) == manifest_of(image)


async def test_SEC_13_what_was_evicted_is_granted_to_nobody(session: Session, path: Path) -> None:
    ann, bob = Scoped(session, "ann"), Scoped(session, "bob")
    cache = LayoutCache(path, 1500)
    await put(cache, ann, SMALL)
    await put(cache, ann, b"y" * 1000)
    await put(cache, bob, SMALL)
    assert await get(cache, ann, Digest.of(SMALL)) is None
    assert await get(cache, bob, Digest.of(SMALL)) == SMALL


# The limit


async def test_evictions_are_told(clock: FakeClock, path: Path) -> None:
    told: list[BlobEvicted] = []

    def hook(event: Event) -> None:
        if isinstance(event, BlobEvicted):
            told.append(event)

    cache = LayoutCache(path, 3500)
    async with Session(settings=[clock.clock], hooks=[hook]) as session:
        for data in blobs(4, 1000):
            clock.time += 100
            await put(cache, session, data)
        assert [(event.digest, event.size) for event in told] == [
            (Digest.of(blobs(1, 1000)[0]), 1000)
        ]
        assert told[0].seconds_unused == pytest.approx(300, abs=2)
        await cache.claim(session, Descriptor(digest=Digest.of(b""), size=5000))
        assert len(told) == 1


async def test_the_least_recently_used_goes_first(
    session: Session, clock: FakeClock, path: Path
) -> None:
    cache = LayoutCache(path, 3500)
    one, two, three, four, five = blobs(5, 1000)
    for data in (one, two, three):
        await put(cache, session, data)
        clock.time += 100
    assert await get(cache, session, Digest.of(one)) == one
    clock.time += 100
    await put(cache, session, four)
    assert held(path) == {Digest.of(data) for data in (one, three, four)}
    clock.time += 100
    await put(cache, session, five)
    assert held(path) == {Digest.of(data) for data in (one, four, five)}


async def test_a_second_use_within_a_minute_is_not_written_down(
    cache: LayoutCache, session: Session, clock: FakeClock, path: Path
) -> None:
    await put(cache, session, SMALL)
    record = path / ".asupplemented" / "records" / "sha256" / Digest.of(SMALL).encoded
    came = record.stat().st_mtime
    assert came == clock.epoch
    clock.time += 59
    await get(cache, session, Digest.of(SMALL))
    assert record.stat().st_mtime == came
    clock.time += 1
    await get(cache, session, Digest.of(SMALL))
    assert record.stat().st_mtime == came + 60


async def test_a_hit_leaves_the_file_of_the_blob_alone(
    cache: LayoutCache, session: Session, clock: FakeClock, path: Path
) -> None:
    await put(cache, session, SMALL)
    file = path / "blobs" / "sha256" / Digest.of(SMALL).encoded
    before = file.stat()
    clock.time += 1000
    await get(cache, session, Digest.of(SMALL))
    assert file.stat() == before


@pytest.mark.parametrize(("size", "kept"), [(10_000, True), (10_001, False)])
@pytest.mark.parametrize("known", [True, False])
async def test_a_blob_above_the_limit_is_never_kept(
    session: Session, events: Events, path: Path, size: int, *, known: bool, kept: bool
) -> None:
    cache = LayoutCache(path, 10_000)
    await put(cache, session, SMALL)
    [data] = blobs(1, size)
    assert await put(cache, session, data, size if known else None) is (kept or not known)
    assert held(path) == ({Digest.of(data)} if kept else {Digest.of(SMALL)})
    assert len(events.messages) == (not kept and not known)


async def test_the_limit_holds_at_every_moment(session: Session, path: Path) -> None:
    cache, other = LayoutCache(path, 100_000), LayoutCache(path, 100_000)
    sizes = random.Random(5)
    most, done = 0, asyncio.Event()

    async def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, await asyncio.to_thread(weigh, path))
            await asyncio.sleep(0)

    async def add(cache: LayoutCache, seed: int) -> None:
        for number in range(25):
            data = random.Random(seed * 1000 + number).randbytes(sizes.randrange(1, 20_000))
            await put(cache, session, data)

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        async with asyncio.TaskGroup() as adding:
            for seed in range(8):
                adding.create_task(add((cache, other)[seed % 2], seed))
        done.set()
        await watching
    assert 50_000 < most <= 100_000
    assert 80_000 < weigh(path) <= 100_000
    ledger = path / ".asupplemented" / "ledger"
    assert int(ledger.read_text()) == weigh(path)


async def test_what_is_over_a_lower_limit_goes_at_first_use(
    cache: LayoutCache, session: Session, clock: FakeClock, path: Path
) -> None:
    for data in blobs(10, 1000):
        await put(cache, session, data)
        clock.time += 1
    await put(LayoutCache(path, 5000), session, SMALL)
    assert held(path) == {Digest.of(data) for data in (*blobs(10, 1000)[6:], SMALL)}


async def test_a_lost_ledger_is_counted_again(session: Session, path: Path) -> None:
    cache = LayoutCache(path, 5000)
    for data in blobs(4, 1000):
        await put(cache, session, data)
    for content in ("", "nonsense", "9" * 40):
        (path / ".asupplemented" / "ledger").write_text(content)
        await put(cache, session, content.encode() * 30 + b"x" * 1500)
        assert 2000 < weigh(path) <= 5000
        assert int((path / ".asupplemented" / "ledger").read_text()) == weigh(path)


async def test_files_that_others_took_away_make_room(session: Session, path: Path) -> None:
    cache = LayoutCache(path, 5000)
    for data in blobs(5, 1000):
        await put(cache, session, data)
    for file in (path / "blobs" / "sha256").iterdir():
        file.unlink()
    fresh = blobs(8, 900)
    for data in fresh:
        await put(LayoutCache(path, 5000), session, data)
    assert len(held(path)) == 5


# Readers


async def test_a_file_that_was_given_out_is_not_evicted(
    session: Session, events: Events, clock: FakeClock, path: Path
) -> None:
    cache = LayoutCache(path, 2500)
    one, two, three, four = blobs(4, 1000)
    await put(cache, session, one)
    await put(cache, session, two)
    file = await cache.find(session, describe(one))
    assert file is not None
    clock.time += 100
    await put(cache, session, three)
    assert held(path) == {Digest.of(one), Digest.of(three)}
    assert file.path.read_bytes() == one
    other = await LayoutCache(path, 2500).find(session, describe(three))
    assert other is not None
    await put(cache, session, four)
    assert held(path) == {Digest.of(one), Digest.of(three)}
    assert [message for message in events.messages if "has no room" in message]
    file.close()
    await put(cache, session, four)
    assert held(path) == {Digest.of(three), Digest.of(four)}
    other.close()


async def test_a_spool_that_was_kept_is_not_evicted_before_it_is_closed(
    session: Session, path: Path
) -> None:
    cache = LayoutCache(path, 1500)
    spool = await cache.claim(session, describe(SMALL))
    assert spool is not None
    async with spool:
        await fill(spool, SMALL)
        await spool.commit()
        await put(cache, session, b"y" * 1000)
        assert held(path) == {Digest.of(SMALL)}
    await put(cache, session, b"y" * 1000)
    assert held(path) == {Digest.of(b"y" * 1000)}


async def test_what_is_open_is_read_to_its_end_though_somebody_removed_it(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    await put(cache, session, LARGE)
    file = await cache.find(session, describe(LARGE))
    assert file is not None
    file.path.unlink()
    assert read(file) == LARGE
    file.close()
    assert await get(cache, session, Digest.of(LARGE)) is None


# Trust


def stored(path: Path, data: bytes) -> Path:
    return path / "blobs" / "sha256" / Digest.of(data).encoded


async def test_a_file_of_another_size_is_removed_and_not_there(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    await put(cache, session, SMALL)
    stored(path, SMALL).write_bytes(SMALL[:-1])
    assert await cache.find(session, describe(SMALL)) is None
    assert held(path) == set()
    assert await put(cache, session, SMALL)
    assert await get(cache, session, Digest.of(SMALL)) == SMALL


async def test_a_file_of_another_size_is_replaced(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    await put(cache, session, SMALL)
    stored(path, SMALL).write_bytes(SMALL[:-1])
    assert await put(cache, session, SMALL)
    assert await get(cache, session, Digest.of(SMALL)) == SMALL
    assert int((path / ".asupplemented" / "ledger").read_text()) <= weigh(path) + 1


async def test_a_descriptor_that_lies_about_the_size_costs_nobody_a_good_file(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    await put(cache, session, SMALL)
    lie = Descriptor(digest=Digest.of(SMALL), size=999)
    assert await cache.find(session, lie) is None
    assert await get(cache, session, Digest.of(SMALL)) == SMALL


async def test_a_hit_is_not_hashed_whatever_the_umask(
    session: Session, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asupplemented.cache.layout import lookup as finding

    monkeypatch.setattr(finding, "matches", None)
    before = os.umask(0)
    try:
        cache = LayoutCache(path, LIMIT)
        await put(cache, session, SMALL)
    finally:
        os.umask(before)
    assert await get(cache, session, Digest.of(SMALL)) == SMALL


OURS = ["", "blobs", "blobs/sha256", ".asupplemented", ".asupplemented/leads"]


@pytest.mark.parametrize("where", OURS)
@pytest.mark.parametrize("how", ["writable", "foreign", "linked"])
async def test_SEC20_a_cache_that_others_can_change_is_refused(
    session: Session, path: Path, tmp_path: Path, events: Events, where: str, how: str
) -> None:
    await put(LayoutCache(path, LIMIT), session, SMALL)
    directory = path / where
    if how == "foreign" and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    if how == "linked":
        if not where:
            pytest.skip("the directory itself may be a link")
        directory.symlink_to(directory.rename(tmp_path / "elsewhere"))
    elif how == "foreign":
        os.chown(directory, 65534, 65534)
    else:
        directory.chmod(0o775)
    before = held(path)
    assert not await put(LayoutCache(path, LIMIT), session, LARGE)
    assert held(path) == before
    words = {"writable": "chmod go-w", "foreign": "of your own", "linked": "replace it"}
    assert any(words[how] in message for message in events.messages)


async def test_SEC20_lock_files_are_out_of_reach_of_other_users(
    session: Session, path: Path
) -> None:
    for _ in range(2):
        cache = LayoutCache(path, LIMIT)
        spool = await cache.claim(session, describe(LARGE))
        assert spool is not None
        private = path / ".asupplemented"
        assert private.stat().st_mode & 0o777 == 0o700
        locks = [*(private / "leads").iterdir(), private / "ledger"]
        assert len(locks) == 2
        assert {file.stat().st_mode & 0o777 for file in locks} == {0o600}
        await spool.aclose()
        private.chmod(0o755)  # As an older version made it.


@pytest.mark.parametrize("where", ["", "blobs", "blobs/sha256"])
async def test_where_others_can_write_files_are_hashed(
    cache: LayoutCache, session: Session, path: Path, where: str
) -> None:
    await put(cache, session, SMALL)
    (path / where).chmod(0o777)
    assert await get(cache, session, Digest.of(SMALL)) == SMALL
    stored(path, SMALL).write_bytes(b"y" * len(SMALL))
    assert await get(cache, session, Digest.of(SMALL)) is None
    assert held(path) == set()


async def test_a_file_that_others_can_write_is_hashed(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    await put(cache, session, SMALL)
    stored(path, SMALL).chmod(0o664)
    assert await get(cache, session, Digest.of(SMALL)) == SMALL
    stored(path, SMALL).write_bytes(b"y" * len(SMALL))
    assert await get(cache, session, Digest.of(SMALL)) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_a_file_of_another_user_is_hashed(
    cache: LayoutCache, session: Session, path: Path
) -> None:
    await put(cache, session, SMALL)
    os.chown(stored(path, SMALL), 65534, 65534)
    assert await get(cache, session, Digest.of(SMALL)) == SMALL
    stored(path, SMALL).write_bytes(b"y" * len(SMALL))
    assert await get(cache, session, Digest.of(SMALL)) is None


@pytest.mark.parametrize("options", [{"verify_on_read": True}, {"durable": False}])
async def test_verifying_on_read_hashes_once_for_each_state_of_a_file(
    session: Session,
    clock: FakeClock,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, bool],
) -> None:
    from asupplemented.cache.layout import lookup as finding

    hashed: list[str] = []
    real = finding.matches
    monkeypatch.setattr(
        finding, "matches", lambda fd, digest: (hashed.append(digest), real(fd, digest))[1]
    )
    cache = LayoutCache(path, LIMIT, **options)
    await put(cache, session, SMALL)
    status = stored(path, SMALL).stat()
    clock.epoch = max(status.st_mtime, status.st_ctime) + 1
    assert await get(cache, session, Digest.of(SMALL)) == SMALL
    clock.epoch += 1.1
    assert await get(cache, session, Digest.of(SMALL)) == SMALL
    assert len(hashed) == 2  # The first time it was too young to be remembered.
    assert await get(cache, session, Digest.of(SMALL)) == SMALL
    assert len(hashed) == 2
    stored(path, SMALL).write_bytes(b"y" * len(SMALL))
    assert await get(cache, session, Digest.of(SMALL)) is None


@pytest.mark.parametrize("durable", [True, False])
async def test_durable_means_synced_before_it_is_named(
    session: Session, path: Path, monkeypatch: pytest.MonkeyPatch, *, durable: bool
) -> None:
    calls: list[str] = []
    real_sync, real_rename = os.fsync, os.rename
    cache = LayoutCache(path, LIMIT, durable=durable)
    await put(cache, session, SMALL)
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), real_sync(fd)))
    monkeypatch.setattr(
        os, "rename", lambda *a, **b: (calls.append("rename"), real_rename(*a, **b))
    )
    await put(cache, session, LARGE)
    assert calls == (["fsync", "rename"] if durable else ["rename"])


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
async def test_SEC_07_what_is_no_regular_file_is_not_read(
    cache: LayoutCache, session: Session, events: Events, path: Path, kind: str
) -> None:
    await put(cache, session, LARGE)
    place = stored(path, SMALL)
    match kind:
        case "link":
            place.symlink_to("/etc/passwd")
        case "directory":
            place.mkdir()
        case _:
            os.mkfifo(place)
    assert await get(cache, session, Digest.of(SMALL), shared=True) is None
    assert len(events.messages) == 1


# Left-overs


async def test_left_overs_of_dead_processes_go_and_those_of_the_living_stay(
    cache: LayoutCache, session: Session, clock: FakeClock, path: Path
) -> None:
    spool = await cache.claim(session, describe(LARGE))
    assert spool is not None
    async with spool:
        alive = in_the_making(path)
        private = path / ".asupplemented"
        dead = [private / kind / f".asupplemented-{'0' * 16}" for kind in ("ingest", "leads")]
        for file in dead:
            file.write_bytes(b"half a blob")
        lost = private / "records" / "sha256" / Digest.of(SMALL).encoded
        lost.mkdir(parents=True)
        (lost / "grant-default").touch()
        async with Session() as other:
            await put(LayoutCache(path, LIMIT), other, b"x")
        assert in_the_making(path) == alive
        assert not any(file.exists() for file in dead)
        assert not lost.exists()
        for file in dead:
            file.write_bytes(b"half a blob")
        await put(cache, session, SMALL)
        assert all(file.exists() for file in dead)
        clock.time += 600
        await put(cache, session, b"y")
        assert not any(file.exists() for file in dead)
        await fill(spool, LARGE)
        await spool.commit()
    assert await get(cache, session, Digest.of(LARGE)) == LARGE
