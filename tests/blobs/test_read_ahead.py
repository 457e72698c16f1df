"""Reading ahead: every block in order, threads shared fairly, and what was verified remembered."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.files import SharedFile
from asupplemented.aio.retry import Clock
from asupplemented.aio.threads import MAX_WORKERS, WORKERS, Workers
from asupplemented.blobs import read_ahead
from asupplemented.blobs.blob_file import (
    FileIdentity,
    identify,
    open_blob_file,
    share_blob_file,
)
from asupplemented.blobs.read_ahead import ReadAhead, VerifiedFiles
from asupplemented.errors import ClosedError, SourceError
from asupplemented.limits import BLOCK
from asupplemented.model.digest import Digest
from asupplemented.session import Session
from tests.suspending import count_open_files, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented.model.digest import Hasher

BLOCKS = 20
DATA = b"".join(bytes((n,)) * BLOCK for n in range(BLOCKS)) + b"the end"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "blob"
    path.write_bytes(DATA)
    return path


class Watched(SharedFile):
    """Counts what is read, and waits where it is told to."""

    def __init__(self, path: Path, wait_at: int | None = None) -> None:
        super().__init__(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path)
        self.reads: list[int] = []
        self.go_on = threading.Event()
        self.wait_at = wait_at

    def read(self, start: int, size: int) -> bytes:
        self.reads.append(size)
        if start == self.wait_at:
            assert self.go_on.wait(60)
        return super().read(start, size)


def start(
    session: Session,
    reader: SharedFile,
    begin: int = 0,
    end: int = len(DATA),
    hasher: Hasher | None = None,
) -> ReadAhead:
    return ReadAhead(session, reader, begin, end, hasher)


async def drain(blocks: ReadAhead) -> list[bytes]:
    found: list[bytes] = []
    while block := await blocks.read():
        found.append(block)
    return found


@pytest.mark.parametrize(
    ("begin", "end"), [(0, len(DATA)), (5, BLOCK), (BLOCK - 1, 9 * BLOCK + 1), (7, 7), (0, 1)]
)
async def test_blocks_come_in_order_and_are_hashed(
    session: Session, path: Path, begin: int, end: int
) -> None:
    hasher = hashlib.sha256()
    blocks = start(session, share_blob_file(open_blob_file(path)), begin, end, hasher)
    found = await drain(blocks)
    assert b"".join(found) == DATA[begin:end]
    assert all(len(block) == BLOCK for block in found[:-1])
    assert hasher.digest() == hashlib.sha256(DATA[begin:end]).digest()
    assert await blocks.read() == b""
    blocks.close()


async def test_the_thread_stays_a_few_blocks_ahead_and_no_more(
    session: Session, path: Path
) -> None:
    reader = Watched(path)
    blocks = start(session, reader)
    for taken in range(1, 6):
        await blocks.read()
        await wait_until(lambda taken=taken: len(reader.reads) >= taken + read_ahead.AHEAD - 1)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(reader.reads) <= taken + read_ahead.AHEAD
    blocks.close()


async def test_many_files_are_read_in_small_blocks(session: Session, path: Path) -> None:
    crowd = [start(session, share_blob_file(open_blob_file(path))) for _ in range(read_ahead.FEW)]
    reader = Watched(path)
    late = start(session, reader)
    assert b"".join(await drain(late)) == DATA
    assert set(reader.reads[:-1]) == {read_ahead.SMALL_BLOCK}
    for blocks in (*crowd, late):
        blocks.close()
        blocks.close()
    again = Watched(path)
    alone = start(session, again)
    await alone.read()
    assert again.reads[0] == BLOCK
    alone.close()


async def test_no_file_keeps_a_thread_from_the_others(
    session: Session, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One thread, and a reader that never falls behind: others get their turn all the same.
    monkeypatch.setattr("asupplemented.aio.threads.usable_cores", lambda: 1)
    monkeypatch.setattr("asupplemented.aio.threads.MAX_WORKERS", 1)
    reader = Watched(path, wait_at=BLOCK)
    blocks = start(session, reader)
    taking = asyncio.create_task(drain(blocks))
    await wait_until(lambda: len(reader.reads) > 1)
    turn = session.resource(WORKERS, Workers).submit(lambda: len(reader.reads))
    reader.go_on.set()
    assert b"".join(await taking) == DATA
    assert turn.result(10) <= read_ahead.TURN
    blocks.close()


async def test_a_file_that_cannot_be_read_fails_after_the_blocks_that_could(
    session: Session, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.pread

    def pread(fd: int, length: int, offset: int) -> bytes:
        if offset >= 3 * BLOCK:
            raise OSError(errno.EIO, "x")
        return original(fd, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    blocks = start(session, share_blob_file(open_blob_file(path)))
    for n in range(3):
        assert (await blocks.read())[0] == n
    for _ in range(2):
        with pytest.raises(SourceError, match="blob"):
            await blocks.read()
    assert blocks.identity is None or blocks.identity.size == len(DATA)
    blocks.close()


async def test_closing_in_the_middle_of_a_read_closes_the_file_after_it(
    session: Session, path: Path
) -> None:
    before = count_open_files()
    reader = Watched(path, wait_at=0)
    blocks = start(session, reader)
    reading = asyncio.create_task(blocks.read())
    await wait_until(lambda: bool(reader.reads))
    blocks.close()
    assert await reading == b""
    reader.go_on.set()
    await wait_until(lambda: count_open_files() == before)
    assert await blocks.read() == b""


async def test_without_the_session_no_block_is_read(path: Path) -> None:
    async with Session() as session:
        reader = share_blob_file(open_blob_file(path))
        blocks = start(session, reader)
    with pytest.raises(ClosedError):
        await blocks.read()
    blocks.close()


async def test_a_session_that_ends_between_two_turns_is_told_to_the_reader(
    session: Session, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "TURN", 1)
    reader = Watched(path, wait_at=0)
    blocks = start(session, reader)
    reading = asyncio.create_task(drain(blocks))
    await wait_until(lambda: bool(reader.reads))
    closing = asyncio.create_task(session.aclose())
    await asyncio.sleep(0)
    reader.go_on.set()
    await closing
    with pytest.raises(ClosedError):
        await reading
    blocks.close()


async def test_a_session_that_ends_before_the_first_turn_is_told_to_the_reader(
    session: Session, path: Path
) -> None:
    workers = session.resource(WORKERS, Workers)
    busy = threading.Event()
    turns = [workers.submit(lambda: busy.wait(60)) for _ in range(MAX_WORKERS)]
    blocks = start(session, share_blob_file(open_blob_file(path)))
    reading = asyncio.create_task(blocks.read())
    await asyncio.sleep(0)
    closing = asyncio.create_task(session.aclose())
    with pytest.raises(ClosedError):
        await reading
    busy.set()
    await closing
    assert all(turn.done() for turn in turns)
    blocks.close()


async def test_the_identity_is_that_of_a_file_that_stayed_the_same(
    session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    reader = share_blob_file(open_blob_file(path))
    expected = identify(reader)
    blocks = start(session, reader)
    assert blocks.identity is None
    await drain(blocks)
    assert blocks.identity == expected
    blocks.close()
    changing = start(session, share_blob_file(open_blob_file(path)))
    await changing.read()
    os.utime(path, ns=(1, 1))
    await drain(changing)
    assert changing.identity is None
    changing.close()


# Files that were verified

OLD = FileIdentity(1, 2, 3, 4, 5)


def test_a_file_is_remembered_by_its_digest() -> None:
    files = VerifiedFiles(Clock(wall=lambda: 100.0))
    digest = Digest.of(b"x")
    assert files.recall(digest) is None
    files.remember(digest, OLD)
    assert files.recall(digest) == OLD
    newer = OLD._replace(inode=9)
    files.remember(digest, newer)
    assert files.recall(digest) == newer


@pytest.mark.parametrize(("age", "known"), [(-5.0, False), (0.0, False), (1.9, False), (2.1, True)])
@pytest.mark.parametrize("stamp", ["modified", "changed"])
def test_a_file_that_may_still_change_unseen_is_not_remembered(
    age: float, stamp: str, *, known: bool
) -> None:
    files = VerifiedFiles(Clock(wall=lambda: 1000.0 + age))
    identity = OLD._replace(**{stamp: 1000 * 10**9})
    files.remember(Digest.of(b"x"), identity)
    assert (files.recall(Digest.of(b"x")) == identity) is known


def test_only_so_many_files_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "MAX_REMEMBERED", 3)
    files = VerifiedFiles(Clock(wall=lambda: 100.0))
    digests = [Digest.of(bytes((n,))) for n in range(4)]
    for digest in (*digests[:3], digests[0], digests[3]):
        files.remember(digest, OLD)
    assert [files.recall(digest) is not None for digest in digests] == [True, False, True, True]
