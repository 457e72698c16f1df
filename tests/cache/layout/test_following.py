"""One fetch for several processes: who leads, who follows, and who takes over."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.locks import acquire_lock
from asupplemented.aio.retry import CLOCK
from asupplemented.blobs.blob_file import open_blob_file
from asupplemented.blobs.stream import VerifiedStream
from asupplemented.cache.layout import fetch_lock as leads
from asupplemented.cache.layout.fetch_lock import FetchLock, FollowedFile, FollowState
from asupplemented.cache.layout.following import PATIENCE, CachedSpool
from asupplemented.cache.layout.layout_cache import LayoutCache
from asupplemented.errors import SourceError
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.session import Session
from tests.cache.driving import (
    CHUNK,
    Events,
    Scoped,
    chunks_of,
    fill,
    get,
    held,
    in_the_making,
    read_all,
)
from tests.candidates import Ledger, Wire, describe
from tests.clocks import FakeClock
from tests.suspending import cancel_at_every_await, count_open_files, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented.abc import Spool

LARGE = random.Random(13).randbytes(6_000_000)
DIGEST = Digest.of(LARGE)
LIMIT = 50_000_000


@pytest.fixture
async def session(events: Events) -> AsyncIterator[Session]:
    async with Session(hooks=[events]) as session:
        yield session


@pytest.fixture
def caches(path: Path) -> tuple[LayoutCache, LayoutCache, LayoutCache]:
    """What three processes would make; locks between files are the same within one."""
    return LayoutCache(path, LIMIT), LayoutCache(path, LIMIT), LayoutCache(path, LIMIT)


async def claim(cache: LayoutCache, context: object, data: bytes = LARGE) -> CachedSpool:
    spool = await cache.claim(context, describe(data))  # type: ignore[arg-type]
    assert isinstance(spool, CachedSpool)
    return spool


class Reading:
    """What comes from the one candidate of a spool, read in the background."""

    def __init__(self, spool: Spool, start: int = 0) -> None:
        [self.candidate] = spool.candidates
        self.start = start
        self.data = b""
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self.candidate.open(self.start) as raw:
            async for chunk in raw:
                self.data += chunk

    async def until(self, length: int) -> None:
        await wait_until(lambda: len(self.data) >= length or self.task.done())
        assert len(self.data) == length


async def test_the_first_leads_and_the_others_follow(
    caches: tuple[LayoutCache, ...], session: Session, path: Path
) -> None:
    async with await claim(caches[0], session) as leader, await claim(caches[1], session) as other:
        assert list(leader.candidates) == []
        [candidate] = other.candidates
        assert candidate.reference == f"oci:{path}@{describe(LARGE).digest}"
        assert candidate.member is None
        assert await candidate.open_file() is None
        reading = Reading(other)
        await leader.append(LARGE[:1_000_000])
        await reading.until(1_000_000)
        await fill(leader, LARGE[1_000_000:])
        await leader.commit()
        await reading.task
        assert reading.data == LARGE
        await fill(other, LARGE)
        await other.commit()
    assert await get(caches[2], session, DIGEST) == LARGE
    assert in_the_making(path) == []


async def test_whoever_comes_later_reads_from_where_it_is(
    caches: tuple[LayoutCache, ...], session: Session
) -> None:
    async with await claim(caches[0], session) as leader, await claim(caches[1], session) as other:
        await leader.append(LARGE[:3_000_000])
        reading = Reading(other, 2_000_000)
        await reading.until(1_000_000)
        await fill(leader, LARGE[3_000_000:])
        await leader.commit()
        await reading.task
        assert reading.data == LARGE[2_000_000:]


async def test_a_range_ends_where_it_was_asked_to(
    caches: tuple[LayoutCache, ...], session: Session
) -> None:
    async with await claim(caches[0], session) as leader, await claim(caches[1], session) as other:
        await leader.append(LARGE[:3_000_000])
        [candidate] = other.candidates
        async with candidate.open(1000, 1_500_000) as raw:
            assert (raw.start, raw.size, raw.etag) == (1000, len(LARGE), None)
            assert b"".join([chunk async for chunk in raw]) == LARGE[1000:1_500_000]


async def test_without_a_size_the_end_is_where_the_blob_ends(
    caches: tuple[LayoutCache, ...], session: Session
) -> None:
    unknown = Descriptor(digest=DIGEST)
    leader = await caches[0].claim(session, unknown)
    other = await caches[1].claim(session, unknown)
    assert leader is not None
    assert other is not None
    async with leader, other:
        reading = Reading(other)
        await fill(leader, LARGE)
        await leader.commit()
        await reading.task
        assert reading.data == LARGE


async def test_when_the_leader_is_gone_one_follower_leads_and_the_others_follow_it(
    caches: tuple[LayoutCache, ...], session: Session, path: Path
) -> None:
    leader = await claim(caches[0], session)
    async with await claim(caches[1], session) as second, await claim(caches[2], session) as third:
        readings = {second: Reading(second), third: Reading(third)}
        await leader.append(LARGE[:2_000_000])
        for reading in readings.values():
            await reading.until(2_000_000)
        await leader.aclose()
        await wait_until(lambda: any(reading.task.done() for reading in readings.values()))
        [heir] = [spool for spool, reading in readings.items() if reading.task.done()]
        [rest] = {second, third} - {heir}
        with pytest.raises(SourceError, match="is gone; this one fetches the rest"):
            await readings[heir].task
        for chunk in chunks_of(LARGE):  # What came by following, and the rest from upstream.
            await heir.append(chunk)
        await wait_until(lambda: len(readings[rest].data) > 5_000_000)
        await heir.commit()
        await readings[rest].task
        assert readings[rest].data == LARGE
        assert held(path) == {DIGEST}


async def test_what_came_since_it_was_looked_for_is_not_fetched_again(
    caches: tuple[LayoutCache, ...], session: Session
) -> None:
    async with await claim(caches[0], session) as leader:
        await fill(leader, LARGE)
        await leader.commit()
    async with await claim(caches[1], session) as late:
        reading = Reading(late)
        await reading.task
        assert reading.data == LARGE


async def test_whoever_leads_has_nobody_to_follow(
    caches: tuple[LayoutCache, ...], session: Session
) -> None:
    leader = await claim(caches[0], session)
    async with await claim(caches[1], session) as other:
        await leader.aclose()
        for _ in range(2):
            reading = Reading(other)
            with pytest.raises(SourceError, match="is gone"):
                await reading.task
            assert reading.data == b""
            await other.append(LARGE[:1_000_000])  # It does not follow itself.


async def test_a_leader_that_adds_nothing_is_given_up(
    caches: tuple[LayoutCache, ...],
) -> None:
    clock = FakeClock()
    async with Session() as session:
        session.resource(CLOCK, lambda: clock.clock)
        async with await claim(caches[0], session) as leader:
            await leader.append(LARGE[:1_000_000])
            async with await claim(caches[1], session) as other:
                reading = Reading(other)
                with pytest.raises(SourceError, match="added nothing for 20 s"):
                    await reading.task
                assert reading.data == LARGE[:1_000_000]
                assert PATIENCE <= sum(clock.slept) < PATIENCE + 1
                assert max(clock.slept) <= 0.05


async def test_a_leader_whose_disk_is_full_lets_others_lead(
    caches: tuple[LayoutCache, ...],
    session: Session,
    events: Events,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with await claim(caches[0], session) as leader, await claim(caches[1], session) as other:
        reading = Reading(other)
        await leader.append(LARGE[:1_000_000])
        await reading.until(1_000_000)
        fill_disk(monkeypatch, leader._fetch_lock.file.path)
        await fill(leader, LARGE[1_000_000:])
        with pytest.raises(SourceError, match="this one fetches the rest"):
            await reading.task
        await leader.commit()
        assert await read_all(leader) == LARGE
        assert held(path) == set()
        await fill(other, LARGE)
        await other.commit()
    assert held(path) == {DIGEST}
    assert len(events.messages) == 1


def fill_disk(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """No write to one file succeeds any more."""
    real, inode = os.pwrite, path.stat().st_ino

    def pwrite(fd: int, data: bytes, start: int) -> int:
        if os.fstat(fd).st_ino == inode:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data, start)

    monkeypatch.setattr(os, "pwrite", pwrite)


async def test_SEC_13_nobody_follows_for_another_principal(
    caches: tuple[LayoutCache, ...], session: Session, path: Path
) -> None:
    ann, bob = Scoped(session, "ann"), Scoped(session, "bob")
    async with await claim(caches[0], ann) as leader, await claim(caches[1], bob) as other:
        assert list(other.candidates) == []
        async with await claim(caches[2], bob) as follower:
            reading = Reading(follower)
            await fill(leader, LARGE)
            await leader.commit()
            await other.append(LARGE[:1_000_000])
            await reading.until(1_000_000)  # The whole blob is there, but it is Ann's.
            await fill(other, LARGE[1_000_000:])
            await other.commit()
            await reading.task
            assert reading.data == LARGE
    assert held(path) == {DIGEST}


async def test_what_another_process_wrote_is_not_believed(
    caches: tuple[LayoutCache, ...], session: Session, path: Path
) -> None:
    small = LARGE[:3_000_000]
    async with await claim(caches[0], session, small) as leader:
        await leader.append(b"x" * len(small))
        async with await claim(caches[1], session, small) as other:
            ledger = Ledger()
            candidates = (*other.candidates, Wire(small, ledger, "upstream"))
            async with VerifiedStream(describe(small), candidates, session) as stream:
                async for chunk in stream:
                    await other.append(chunk)
            assert ledger.names == ["upstream"]
            await other.commit()
    assert await get(caches[2], session, Digest.of(small)) == small


@pytest.mark.parametrize(
    "content",
    [b"", b"../../etc/passwd", b".asupplemented-" + b"0" * 17, b"\xff" * 31, b"x" * 100_000],
)
def test_SEC_01_a_lead_file_names_a_file_in_its_directory_or_none(
    tmp_path: Path, content: bytes
) -> None:
    lead = tmp_path / ".asupplemented-lead"
    holder, follower = FetchLock(tmp_path, lead), FetchLock(tmp_path, lead)
    assert holder.try_acquire()
    lead.write_bytes(content)
    followed = FollowedFile(follower, lead, tmp_path, lambda: None)
    assert followed.look(0) is FollowState.WAIT
    followed.close()
    follower.close()
    holder.close()


def test_what_came_between_two_looks_is_read_and_the_lead_given_back(tmp_path: Path) -> None:
    lead, whole = tmp_path / ".asupplemented-lead", tmp_path / "whole"
    whole.write_bytes(b"all of it")
    looks = [None, open_blob_file(whole)]
    lock = FetchLock(tmp_path, lead)
    followed = FollowedFile(lock, lead, tmp_path, lambda: looks.pop(0))
    assert followed.look(4) == b"of it"
    assert looks == []
    assert not lock.held
    assert followed.look(9) is FollowState.END
    followed.close()
    lock.close()


def test_a_claim_that_was_dropped_takes_no_lead(tmp_path: Path) -> None:
    before = count_open_files()
    lock = FetchLock(tmp_path, tmp_path / ".asupplemented-lead")
    lock.close()
    lock.close()
    assert not lock.try_acquire()
    assert list(tmp_path.iterdir()) == []
    assert count_open_files() == before


async def test_leader_and_follower_cancelled_at_every_await_leave_nothing(
    caches: tuple[LayoutCache, ...], session: Session, path: Path
) -> None:
    await (await claim(caches[0], session)).aclose()
    await (await claim(caches[1], session)).aclose()
    before = count_open_files()

    async def lead() -> None:
        async with await claim(caches[0], session) as leader:
            for chunk in chunks_of(LARGE[: 5 * CHUNK]):
                await leader.append(chunk)
            async with await claim(caches[1], session) as other:
                [candidate] = other.candidates
                async with candidate.open(0) as raw:
                    assert await anext(aiter(raw))

    async def check() -> None:
        await wait_until(lambda: in_the_making(path) == [])
        await wait_until(lambda: not any((path / ".asupplemented" / "leads").iterdir()))
        await wait_until(lambda: count_open_files() == before)

    assert await cancel_at_every_await(lead, check) >= 6
    await check()


async def test_a_follower_whose_leader_is_cancelled_at_any_await_gets_the_blob(
    caches: tuple[LayoutCache, ...], session: Session, path: Path
) -> None:
    data = LARGE[:400_000]

    async def lead() -> None:
        async with await claim(caches[0], session, data) as leader:
            await fill(leader, data)
            await leader.commit()

    async def follow() -> None:
        async with await claim(caches[1], session, data) as other:
            candidates = (*other.candidates, Wire(data, Ledger(), "upstream"))
            async with VerifiedStream(describe(data), candidates, session) as stream:
                assert b"".join([chunk async for chunk in stream]) == data

    async def check() -> None:
        await follow()
        (path / "blobs" / "sha256" / Digest.of(data).encoded).unlink(missing_ok=True)

    assert await cancel_at_every_await(lead, check) >= 4


async def test_who_only_sweeps_does_not_lead(
    caches: tuple[LayoutCache, ...], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lead file that another process looks at just now is locked, but nobody has signed it."""
    looks = 0

    def take(path: Path) -> int | None:
        nonlocal looks
        looks += 1
        if looks == 1:
            path.touch()
            return None
        return acquire_lock(path)

    monkeypatch.setattr(leads, "acquire_lock", take)
    async with await claim(caches[0], session) as leader:
        assert list(leader.candidates) == []
        async with await claim(caches[1], session) as other:
            assert len(other.candidates) == 1
    assert looks == 3
