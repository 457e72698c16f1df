"""Spools: written by one, read by many, and nothing half there."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import random
import sys
import threading
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.aio.files import SharedFile
from asupplemented.aio.retry import CLOCK
from asupplemented.cache.spool import (
    AREA,
    BEHIND,
    FEW,
    MANY_CHUNKS,
    RECENT,
    SMALL_WRITE,
    SPOOL_MEMORY,
    WRITE,
    FileSpool,
    MemorySpool,
    SpoolMemory,
    TemporarySpool,
    make_spool,
)
from asupplemented.errors import ClosedError, SourceError, TruncatedError, UsageError
from asupplemented.limits import KIB, MIB, SMALL_BLOB
from asupplemented.session import Session
from tests.cache.driving import chunks_of, read_all
from tests.clocks import FakeClock
from tests.suspending import cancel_at_every_await, count_open_files, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented.abc import Spool

CONTENT = random.Random(7).randbytes(3 * RECENT)


@pytest.fixture
async def session(session: Session) -> Session:
    """A session without memory for what is fetched, unless a test gives it some."""
    session.resource(SPOOL_MEMORY, lambda: SpoolMemory(0))
    return session


def give_memory(session: Session, size: int) -> SpoolMemory:
    memory = session.resource(SPOOL_MEMORY, SpoolMemory)
    memory.free = size
    return memory


@pytest.fixture(params=[None, 0, RECENT + 12_345, 10 * RECENT])
async def spool(request: pytest.FixtureRequest, session: Session) -> AsyncIterator[Spool]:
    """In memory, because it is small; in a file; first in memory, then in a file; in memory."""
    memory = give_memory(session, request.param or 0)
    async with MemorySpool() if request.param is None else TemporarySpool(session) as spool:
        yield spool
    assert memory.free == (request.param or 0)


class Full(SharedFile):
    """A file on a disk that has no more room."""

    room = 0

    def write(self, start: int, *chunks: bytes) -> None:
        data = b"".join(chunks)
        super().write(start, data[: max(0, self.room - start)])
        if start + len(data) > self.room:
            raise SourceError("full")


async def test_small_blobs_stay_in_memory(session: Session) -> None:
    assert type(make_spool(session, SMALL_BLOB)) is MemorySpool
    assert type(make_spool(session, SMALL_BLOB + 1)) is TemporarySpool
    assert type(make_spool(session, None)) is TemporarySpool


@pytest.mark.parametrize("size", [1024, 16 * 1024, 100_001, RECENT])
async def test_what_was_appended_can_be_read_at_every_length(spool: Spool, size: int) -> None:
    for chunk in chunks_of(CONTENT, size):
        await spool.append(chunk)
        last = spool.length - len(chunk)
        assert await spool.read(last, len(chunk)) == chunk
        assert await spool.read(0, 10) == CONTENT[:10]
    await spool.commit()
    assert spool.length == len(CONTENT)
    assert await read_all(spool, 77_777) == CONTENT


@pytest.mark.parametrize("start", [-1, 3, 4])
async def test_nothing_is_read_where_there_is_nothing(spool: Spool, start: int) -> None:
    await spool.append(b"abc")
    with pytest.raises(UsageError, match="a spool of 3 bytes has none at"):
        await spool.read(start, 1)


async def test_a_closed_spool_says_so(spool: Spool) -> None:
    await spool.append(CONTENT)
    await spool.aclose()
    await spool.aclose()
    with pytest.raises(ClosedError):
        await spool.append(b"x")
    with pytest.raises(ClosedError):
        await spool.read(0, 1)


async def test_many_readers_follow_one_writer(spool: Spool) -> None:
    grown = asyncio.Condition()

    async def follow(step: int, start: int) -> bytes:
        data = bytearray()
        while (at := start + len(data)) < len(CONTENT):
            async with grown:
                await grown.wait_for(lambda at=at: spool.length > at)
            data += await spool.read(at, step)
        return bytes(data)

    wanted = [(1000, len(CONTENT) - 5000), (RECENT, 0), (333_333, 17), (64 * KIB, RECENT)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow(*reader)) for reader in wanted]
        for chunk in chunks_of(CONTENT, 64 * KIB):
            await spool.append(chunk)
            async with grown:
                grown.notify_all()
    assert [task.result() for task in tasks] == [CONTENT[start:] for _, start in wanted]


async def test_what_is_recent_is_read_without_a_thread(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with TemporarySpool(session) as spool:
        for chunk in chunks_of(CONTENT, 64 * KIB):
            await spool.append(chunk)
            with monkeypatch.context() as patch:
                patch.setattr(SharedFile, "read", None)
                assert await spool.read(spool.length - len(chunk), RECENT) == chunk


@pytest.mark.parametrize("size", [1, 100, 64 * KIB, RECENT])
async def test_little_stays_in_memory(session: Session, size: int) -> None:
    async with TemporarySpool(session) as spool:
        for chunk in chunks_of(CONTENT, size)[:5000]:
            await spool.append(chunk)
            assert len(spool._tail) <= MANY_CHUNKS + 1
            assert sum(map(len, spool._tail)) <= RECENT + BEHIND + size
        assert await read_all(spool) == CONTENT[: spool.length]


async def test_a_small_blob_never_makes_its_file(session: Session) -> None:
    def refuse() -> SharedFile:
        raise AssertionError

    async with FileSpool(session, refuse) as spool:
        await spool.append(b"x" * (WRITE - 1))
        assert await spool.read(1, 2) == b"xx"


async def test_many_spools_write_in_small_batches(session: Session) -> None:
    async with AsyncExitStack() as scope:
        spools = [await scope.enter_async_context(TemporarySpool(session)) for _ in range(FEW + 1)]
        for spool in spools:
            await spool.append(CONTENT[:SMALL_WRITE])
        assert [len(spool._parts) for spool in spools] == [0] * FEW + [1]
        for spool in spools[:2]:
            await spool.aclose()
            await spool.aclose()  # it is discounted once
        again = [await scope.enter_async_context(TemporarySpool(session)) for _ in range(2)]
        for spool in again:
            await spool.append(CONTENT[:SMALL_WRITE])
        assert [len(spool._parts) for spool in again] == [0, 1]


async def test_what_others_wait_for_is_written_in_small_batches(session: Session) -> None:
    async with FileSpool(session, SharedFile.temporary, delay=3600) as spool:
        await spool.append(CONTENT[:SMALL_WRITE])
        assert len(spool._parts) == 1


async def test_others_see_the_file_grow_when_the_delay_is_over(tmp_path: Path) -> None:
    path, clock = tmp_path / "file", FakeClock()

    def make() -> SharedFile:
        return SharedFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC), path)

    async with Session() as session:
        session.resource(CLOCK, lambda: clock.clock)
        async with FileSpool(session, make, delay=0.1) as spool:
            await spool.append(b"a")
            clock.time += 0.1
            await spool.append(b"b")
            assert path.read_bytes() == b"ab"
            await spool.append(b"c")
            assert path.read_bytes() == b"ab"


async def test_it_lies_where_it_is_told_to_and_has_no_name(
    session: Session, tmp_path: Path
) -> None:
    before = count_open_files()
    async with TemporarySpool(session, tmp_path) as spool:
        await spool.append(CONTENT)
        assert list(tmp_path.iterdir()) == []
        assert count_open_files() == before + 1
    assert count_open_files() == before


async def test_a_directory_that_is_not_there_is_named(session: Session, tmp_path: Path) -> None:
    async with TemporarySpool(session, tmp_path / "gone") as spool:
        await spool.append(b"before")
        with pytest.raises(SourceError, match=r"cannot write .*gone"):
            await spool.append(CONTENT)
        assert await read_all(spool) == b"before"


@pytest.mark.parametrize("room", range(0, 2 * WRITE, WRITE // 3))
async def test_a_full_disk_takes_only_the_newest_chunk(
    session: Session, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    real = os.pwrite

    def pwrite(fd: int, data: bytes, start: int) -> int:
        if start >= room:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[: room - start], start)

    monkeypatch.setattr(os, "pwrite", pwrite)
    kept = bytearray()
    async with TemporarySpool(session) as spool:
        for chunk in chunks_of(CONTENT, 40_000)[:20]:
            try:
                await spool.append(chunk)
            except SourceError as error:
                assert "make room" in str(error)  # noqa: PT017 - some chunks do fit
            else:
                kept += chunk
            assert spool.length == len(kept)
            assert await read_all(spool, 12_345) == kept
        monkeypatch.undo()
        await spool.append(CONTENT)
        assert await read_all(spool) == bytes(kept) + CONTENT


@pytest.mark.parametrize("room", range(0, 2 * WRITE, WRITE // 3))
async def test_another_file_goes_on_where_one_is_full(session: Session, room: int) -> None:
    full = Full.temporary()
    full.room = room
    async with FileSpool(session, lambda: full, SharedFile.temporary) as spool:
        for chunk in chunks_of(CONTENT, 40_000):
            await spool.append(chunk)
            assert await read_all(spool, 300_000) == CONTENT[: spool.length]
        await spool._flush()
        assert len(spool._parts) == 2
        assert await read_all(spool, 12_345) == CONTENT


async def test_a_file_that_was_cut_off_is_no_endless_loop(session: Session) -> None:
    async with TemporarySpool(session) as spool:
        for chunk in chunks_of(CONTENT, RECENT):
            await spool.append(chunk)
        await spool._flush()
        [(_, file)] = spool._parts
        with file.use() as fd:
            assert fd is not None
            os.truncate(fd, 0)
        with pytest.raises(TruncatedError, match="truncated the file"):
            await spool.read(0, 1)


async def test_cancelled_at_every_await_it_keeps_its_place(session: Session) -> None:
    before = count_open_files()
    spool = TemporarySpool(session)

    async def run() -> None:
        nonlocal spool
        spool = TemporarySpool(session)
        for chunk in chunks_of(CONTENT, RECENT):
            await spool.append(chunk)
        await spool._flush()
        await spool.read(0, 1)

    async def check() -> None:
        done = spool.length
        for chunk in chunks_of(CONTENT[done:], 100_000):
            await spool.append(chunk)
        assert await read_all(spool) == CONTENT
        await spool.aclose()

    assert await cancel_at_every_await(run, check) >= 3
    await spool.aclose()
    assert count_open_files() == before


async def append_and_flush(spool: FileSpool) -> None:
    await spool.append(CONTENT)
    await spool._flush()


async def test_closed_while_a_thread_works_with_the_file(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = count_open_files()
    spool = TemporarySpool(session)
    await append_and_flush(spool)
    real = os.pwrite

    def pwrite(fd: int, data: bytes, start: int) -> int:
        asyncio.run_coroutine_threadsafe(spool.aclose(), loop)  # which waits for this call
        assert closed.wait(30)
        assert count_open_files() > before
        return real(fd, data, start)

    closed, close = threading.Event(), SharedFile.close

    def note_close(file: SharedFile) -> None:
        close(file)
        closed.set()

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(SharedFile, "close", note_close)
    with pytest.raises(ClosedError):
        await append_and_flush(spool)
    assert count_open_files() == before


async def test_closed_while_its_file_is_made(session: Session) -> None:
    before = count_open_files()
    loop = asyncio.get_running_loop()

    def make() -> SharedFile:
        asyncio.run_coroutine_threadsafe(spool.aclose(), loop).result(10)
        return SharedFile.temporary()

    spool = FileSpool(session, make)
    with pytest.raises(ClosedError):
        await spool.append(CONTENT)
    assert count_open_files() == before


async def test_an_unclosed_spool_warns(session: Session) -> None:
    spools = [TemporarySpool(session)]
    await spools[0].append(CONTENT)
    with pytest.warns(ResourceWarning, match=r"unclosed <TemporarySpool of \d+ bytes, open>"):
        spools.clear()
    gc.collect()


@given(
    st.lists(st.binary(min_size=1, max_size=2000), min_size=1),
    st.integers(0, 20_000),
    st.data(),
)
def test_any_read_gives_what_was_appended_there(
    chunks: list[bytes], memory: int, data: st.DataObject
) -> None:
    async def run() -> None:
        async with Session() as session:
            session.resource(SPOOL_MEMORY, lambda: SpoolMemory(memory))
            await check(TemporarySpool(session))

    async def check(opened: TemporarySpool) -> None:
        async with opened as spool:
            whole = b""
            for chunk in chunks:
                await spool.append(chunk)
                whole += chunk
                start = data.draw(st.integers(0, len(whole) - 1))
                size = data.draw(st.integers(1, 3000))
                block = await spool.read(start, size)
                assert block
                assert block == whole[start : start + len(block)]

    asyncio.run(run())


async def test_blobs_share_the_memory_of_the_session(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SharedFile, "temporary", lambda _: pytest.fail("there is memory"))
    memory = give_memory(session, 5 * RECENT)
    async with TemporarySpool(session) as first, TemporarySpool(session) as second:
        await first.append(CONTENT)
        await second.append(CONTENT[: 2 * RECENT])
        assert memory.free == 0
        assert await read_all(first) == CONTENT  # from the first byte on
        await first.aclose()
        assert memory.free == 3 * RECENT
        await second.append(CONTENT[2 * RECENT :])
        assert await read_all(second) == CONTENT
    assert memory.free == 5 * RECENT


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("memory", [AREA, AREA + 12_345, 4 * AREA])
async def test_what_all_have_read_is_copied_and_its_chunks_are_freed(
    session: Session, monkeypatch: pytest.MonkeyPatch, memory: int, *, mapped: bool
) -> None:
    if not mapped:
        monkeypatch.setattr("mmap.mmap", fail_to_map)
    free = give_memory(session, memory)
    content = CONTENT * (2 * AREA // len(CONTENT) + 1)
    chunks = list(chunks_of(content, 700_001))  # areas end within chunks
    async with TemporarySpool(session) as spool:
        for number, chunk in enumerate(chunks):
            spool.read_by_all(spool.length - 1)  # the last chunk is not read to its end
            await spool.append(chunk)
            if number:
                assert await spool.read(spool.length - len(chunk), MIB) is chunk
            assert await spool.read(0, len(chunk)) == chunks[0][: len(chunk)]
        spool.read_by_all(spool.length)
        if memory > len(content) and sys.platform == "linux":
            assert (await spool.read(0, MIB) is chunks[0]) is not mapped
        assert await read_all(spool, 77_777) == content
    assert free.free == memory


def fail_to_map(*_: object, **__: object) -> None:
    raise OSError(errno.ENOMEM, "no memory")


async def test_what_exceeds_the_memory_is_written_behind_the_fetch(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = give_memory(session, 2 * RECENT)
    writing, go_on = threading.Event(), threading.Event()
    real = SharedFile.write

    def write(file: SharedFile, start: int, *chunks: bytes) -> None:
        writing.set()
        assert go_on.wait(30)
        real(file, start, *chunks)

    monkeypatch.setattr(SharedFile, "write", write)
    async with TemporarySpool(session) as spool:
        appended = b""
        while len(appended) < 2 * RECENT + BEHIND:  # none of these waits for the thread
            await spool.append(CONTENT[:RECENT])
            appended += CONTENT[:RECENT]
        assert await asyncio.to_thread(writing.wait, 30)
        assert memory.free == 0
        assert await read_all(spool) == appended
        waiting = asyncio.create_task(spool.append(CONTENT))
        await settle()
        assert not waiting.done()
        go_on.set()
        await waiting
        assert memory.free == 2 * RECENT
        assert await read_all(spool) == appended + CONTENT


async def test_a_write_behind_that_fails_is_repeated_and_loses_nothing(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = SharedFile.write, [SourceError("full")] * 2

    def write(file: SharedFile, start: int, *chunks: bytes) -> None:
        if failures:
            raise failures.pop()
        real(file, start, *chunks)

    monkeypatch.setattr(SharedFile, "write", write)
    async with TemporarySpool(session) as spool:
        await spool.append(CONTENT)
        assert spool._backlog is not None
        await spool._backlog.settle()
        assert spool._backlog.failure is not None
        with pytest.raises(SourceError, match="full"):
            await spool.append(b"lost" * RECENT)
        assert await read_all(spool) == CONTENT
        await spool.append(b"kept" * RECENT)
        await spool._flush()
        assert spool._tail_start > 0
        assert await read_all(spool) == CONTENT + b"kept" * RECENT
