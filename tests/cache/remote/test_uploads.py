"""Uploads in the background: few at a time, not too many, and none is left behind."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from asupplemented.abc import AsyncResource
from asupplemented.aio.threads import Workers
from asupplemented.blobs.blob_file import open_blob_file
from asupplemented.cache.remote.uploads import AT_ONCE, BUDGET, FileReader, Uploads
from asupplemented.limits import MIB
from tests.suspending import count_open_files

if TYPE_CHECKING:
    from pathlib import Path


class Thing(AsyncResource):
    """Something that an upload needs."""

    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1


class Work:
    """Uploads that last until they are let go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = self.peak = self.done = 0

    async def __call__(self) -> None:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await self.gate.wait()
            self.done += 1
        finally:
            self.running -= 1


def fail() -> None:
    pytest.fail("an upload was dropped")


async def test_few_run_at_a_time_and_closing_waits_for_all() -> None:
    work, things = Work(), [Thing() for _ in range(20)]
    uploads = Uploads(patience=60)
    assert all(uploads.start(work, [thing], weight=1, dropped=fail) for thing in things)
    closing = asyncio.create_task(uploads.aclose())
    await anyio.wait_all_tasks_blocked()
    assert repr(uploads) == "<Uploads: 20 wait or run>"
    assert not closing.done()
    work.gate.set()
    await closing
    assert (work.peak, work.done) == (AT_ONCE, 20)
    assert repr(uploads) == "<Uploads: 0 wait or run>"
    assert {thing.closed for thing in things} == {1}


async def test_too_much_is_refused_until_there_is_room() -> None:
    work, thing = Work(), Thing()
    async with Uploads(patience=60) as uploads:
        assert uploads.start(work, weight=BUDGET - 1, dropped=fail)
        assert uploads.start(work, weight=1, dropped=fail)
        assert not uploads.start(work, [thing], weight=1, dropped=fail)
        assert thing.closed == 0, "it is the caller's still"
        work.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert uploads.start(work, [thing], weight=BUDGET, dropped=fail)
        assert not uploads.start(work, weight=BUDGET + 1, dropped=fail)
    assert thing.closed == 1


@pytest.mark.parametrize("cancelled", [False, True])
async def test_patience_ends_and_then_all_of_them_end(cancelled: bool) -> None:  # noqa: FBT001
    work, things = Work(), [Thing() for _ in range(20)]
    dropped: list[Thing] = []
    uploads = Uploads(patience=60 if cancelled else 0)
    for thing in things:
        uploads.start(work, [thing], weight=1, dropped=partial(dropped.append, thing))
    closing = asyncio.create_task(uploads.aclose())
    if cancelled:
        await asyncio.sleep(0)
        closing.cancel()
    outcome = await asyncio.gather(closing, return_exceptions=True)
    assert isinstance(outcome[0], asyncio.CancelledError) is cancelled
    assert (work.running, work.done) == (0, 0)
    assert repr(uploads) == "<Uploads: 0 wait or run>"
    assert len(dropped) == len(things)
    assert {thing.closed for thing in things} == {1}
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_nothing_begins_once_it_is_closed() -> None:
    uploads = Uploads(patience=60)
    await uploads.aclose()
    await uploads.aclose()
    assert not uploads.start(Work(), weight=1, dropped=fail)


async def test_a_file_is_read_in_blocks_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(data := os.urandom(2 * MIB))
    before = count_open_files()
    async with Workers() as workers:
        reader = FileReader(workers, open_blob_file(path))
        assert await reader.read(MIB - 3, 5) == data[MIB - 3 : MIB + 2]
        assert await reader.read(0, len(data)) == data[:MIB], "one block at most"
        readings = [partial(reader.read, at, 1000) for at in range(0, 8000, 1000)]
        assert b"".join(await asyncio.gather(*(each() for each in readings))) == data[:8000]
        await reader.aclose()
        await reader.aclose()
    assert count_open_files() == before
