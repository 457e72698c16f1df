"""Writing many files: small ones in batches, large ones in blocks, none of them in half."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.atomic import StagedFile
from asupplemented.aio.file_writer import MANY, MAX_BATCHES, PIECE, FileWriter
from asupplemented.aio.threads import WORKERS, Workers
from asupplemented.errors import ClosedError, SourceError, UsageError
from asupplemented.limits import MIB, SMALL_BLOB
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.session import Session
from tests.suspending import cancel_at_every_await, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


class Stream:
    """A stream that was entered, as far as writing it goes."""

    def __init__(self, chunks: Iterable[bytes], *, verified: bool | None = True) -> None:
        self._chunks = list(chunks)
        self._verified = verified
        self.verified: bool | None = None
        self.descriptor = Descriptor(digest=Digest.of(b"".join(self._chunks)))

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        if not self._chunks:
            self.verified = self._verified
            raise StopAsyncIteration
        return self._chunks.pop(0)


# Streams


async def test_a_stream_is_written_in_large_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = StagedFile.write

    def spy(staged: StagedFile, start: int, *chunks: bytes) -> None:
        sizes.append(sum(map(len, chunks)))
        real(staged, start, *chunks)

    monkeypatch.setattr(StagedFile, "write", spy)
    chunks = [bytes([n % 256]) * 65_536 for n in range(104)]
    async with Session() as session:
        writer = FileWriter(session, staging=tmp_path, durable=False)
        size = await writer.ingest(Stream(chunks), tmp_path / "blob")
    assert size == 104 * 65_536
    assert sizes == [SMALL_BLOB + 65_536, PIECE, 7 * 65_536]
    assert (tmp_path / "blob").read_bytes() == b"".join(chunks)


async def test_an_empty_stream_is_an_empty_file(tmp_path: Path) -> None:
    async with Session() as session:
        writer = FileWriter(session, staging=tmp_path)
        assert await writer.ingest(Stream([]), tmp_path / "blob") == 0
    assert (tmp_path / "blob").read_bytes() == b""


@pytest.mark.parametrize("verified", [False, None])
@pytest.mark.parametrize("chunks", [[b"x"], [bytes(MIB)] * 5])
async def test_a_stream_that_verified_nothing_is_not_named(
    tmp_path: Path, chunks: list[bytes], *, verified: bool | None
) -> None:
    async with Session() as session:
        writer = FileWriter(session, staging=tmp_path)
        with pytest.raises(UsageError, match="verified") as caught:
            await writer.ingest(Stream(chunks, verified=verified), tmp_path / "blob")
    assert caught.value.digest == Digest.of(b"".join(chunks))
    assert names(tmp_path) == []


async def test_a_session_that_is_closed_in_between_leaves_no_file(tmp_path: Path) -> None:
    session = Session()

    class Closing(Stream):
        async def __anext__(self) -> bytes:
            await session.aclose()
            return await super().__anext__()

    with pytest.raises(ClosedError):
        await FileWriter(session, staging=tmp_path).ingest(  # type: ignore[arg-type]
            Closing([b"x"]), tmp_path / "blob"
        )
    assert names(tmp_path) == []


# Batches


class Gate:
    """Has files wait in their hops until it is opened, and counts the hops."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hops = 0
        self.opened = threading.Event()
        real, begin = Workers.submit, StagedFile.create.__func__  # type: ignore[attr-defined]

        def submit(workers: Workers, func: Callable[[], Any]) -> Any:
            self.hops += 1
            return real(workers, func)

        def create(cls: type[StagedFile], *args: Any, **kwargs: Any) -> StagedFile:
            assert self.opened.wait(60)
            made: StagedFile = begin(cls, *args, **kwargs)
            return made

        monkeypatch.setattr(Workers, "submit", submit)
        monkeypatch.setattr(StagedFile, "create", classmethod(create))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def write_all(writer: FileWriter, root: Path, count: int) -> list[asyncio.Task[None]]:
    return [
        asyncio.create_task(writer.write(root / str(number), b"%d" % number))
        for number in range(count)
    ]


async def test_one_after_the_other_each_file_takes_one_hop(tmp_path: Path, gate: Gate) -> None:
    gate.opened.set()
    async with Session() as session:
        writer = FileWriter(session, staging=tmp_path)
        for number in range(5):
            blob = Stream([b"%d" % number, b"x"])
            await writer.ingest(blob, tmp_path / str(number))  # type: ignore[arg-type]
            await writer.write(tmp_path / f"manifest-{number}", b"{}")
    assert gate.hops == 10
    assert (tmp_path / "3").read_bytes() == b"3x"


async def test_files_that_come_while_a_batch_is_written_share_the_next_ones(
    tmp_path: Path, gate: Gate
) -> None:
    count = 1 + MANY * (MAX_BATCHES - 1) + 50
    async with Session() as session:
        tasks = write_all(FileWriter(session, staging=tmp_path), tmp_path, count)
        await settle()
        assert gate.hops == MAX_BATCHES
        gate.opened.set()
        await asyncio.gather(*tasks)
    assert gate.hops == MAX_BATCHES + 1
    assert [int(name) for name in sorted(names(tmp_path), key=int)] == list(range(count))
    assert (tmp_path / "17").read_bytes() == b"17"


async def test_a_file_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"0")
    before = (tmp_path / "0").stat().st_ino
    async with Session() as session:
        await FileWriter(session, staging=tmp_path).write(tmp_path / "0", b"0")
        assert (tmp_path / "0").stat().st_ino == before
        await FileWriter(session, staging=tmp_path).write(tmp_path / "0", b"1")
    assert (tmp_path / "0").read_bytes() == b"1"


async def test_durable_batches_are_synced_before_any_name_appears(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    real = os.fsync

    def sync(fd: int) -> None:
        seen.append([name for name in names(tmp_path) if name.isdecimal()])
        real(fd)

    monkeypatch.setattr(os, "fsync", sync)
    async with Session() as session:
        tasks = write_all(FileWriter(session, staging=tmp_path), tmp_path, 1 + 5)
        gate.opened.set()
        await asyncio.gather(*tasks)
    assert seen == [[], *[["0"]] * 5]


async def test_a_file_that_fails_fails_alone(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def write(fd: int, data: bytes, position: int) -> int:
        if bytes(data) == b"3":
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data, position)

    monkeypatch.setattr(os, "pwrite", write)
    async with Session() as session:
        tasks = write_all(FileWriter(session, staging=tmp_path), tmp_path, 6)
        gate.opened.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(type(None)) == 5
    assert isinstance(outcomes[3], SourceError)
    assert "make room" in str(outcomes[3])
    assert names(tmp_path) == ["0", "1", "2", "4", "5"]


async def test_a_cancelled_caller_leaves_no_file_and_the_others_theirs(
    tmp_path: Path, gate: Gate
) -> None:
    async with Session() as session:
        tasks = write_all(FileWriter(session, staging=tmp_path), tmp_path, 4)
        await settle()
        tasks[0].cancel()  # in the first batch, which has begun
        tasks[2].cancel()  # waits for the second
        await settle()
        assert [task.done() for task in tasks] == [False, False, True, False]
        gate.opened.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in outcomes] == [
        True,
        False,
        True,
        False,
    ]
    assert names(tmp_path) == ["1", "3"]


async def test_a_session_that_is_closed_ends_what_waits(tmp_path: Path, gate: Gate) -> None:
    session = Session()
    tasks = write_all(FileWriter(session, staging=tmp_path), tmp_path, 3)
    await settle()
    workers = session.resource(WORKERS, Workers)
    closing = asyncio.create_task(session.aclose())
    await settle()
    gate.opened.set()
    await closing
    first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert first is None
    assert all(isinstance(each, ClosedError) for each in others)
    assert names(tmp_path) == ["0"]
    assert "0 calls" in repr(workers)


@pytest.mark.parametrize("size", [10, 5 * MIB])
async def test_cancelled_at_any_await_it_is_whole_or_not_there(tmp_path: Path, size: int) -> None:
    data = bytes(size)
    target = tmp_path / "blob"

    async def run() -> None:
        chunks = [data[at : at + MIB] for at in range(0, size, MIB)]
        async with Session() as session:  # It waits for the threads, which clear up by themselves.
            writer = FileWriter(session, staging=tmp_path)
            await writer.ingest(Stream(chunks), target)  # type: ignore[arg-type]

    async def check() -> None:
        assert names(tmp_path) in ([], ["blob"])
        assert not target.exists() or target.read_bytes() == data
        target.unlink(missing_ok=True)

    assert await cancel_at_every_await(run, check) >= 1
