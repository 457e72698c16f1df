"""Blobs in local files: read by position, and closed when nobody reads them any more."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from asupplemented.abc import BlobFile
from asupplemented.blobs.blob_file import FileBlob, identify, open_blob_file, share_blob_file
from asupplemented.errors import BlobNotFoundError, RangeError, SourceError
from asupplemented.limits import BLOCK
from asupplemented.session import Session
from tests.suspending import cancel_at_every_await, count_open_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with Session() as session:
        yield session


def counted(path: Path, closed: list[int]) -> BlobFile:
    file = open_blob_file(path)

    def close() -> None:
        closed.append(file.fd)
        os.close(file.fd)

    return BlobFile(file.fd, path, file.offset, file.size, close)


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(bytes(range(200)))
    return path


def test_a_reader_reads_where_it_is_told(blob: Path) -> None:
    closed: list[int] = []
    reader = share_blob_file(counted(blob, closed))
    assert reader.read(10, 3) == bytes((10, 11, 12))
    assert reader.read(199, 100) == bytes((199,))
    assert reader.read(200, 100) == b""
    reader.close()
    reader.close()
    assert len(closed) == 1
    assert reader.read(0, 1) == b""
    assert identify(reader) is None


def test_a_blob_may_begin_within_its_file(blob: Path) -> None:
    file = open_blob_file(blob)
    reader = share_blob_file(BlobFile(file.fd, blob, 100, 50, file.close))
    assert reader.read(0, 2) == bytes((100, 101))
    reader.close()


def test_closing_during_a_read_is_left_to_the_read(
    blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    reader = share_blob_file(counted(blob, closed))

    def pread(fd: int, length: int, offset: int) -> bytes:
        reader.close()
        assert closed == []
        return b"read"

    monkeypatch.setattr(os, "pread", pread)
    assert reader.read(0, 4) == b"read"
    assert len(closed) == 1


def test_a_failing_read_is_a_source_error(blob: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = share_blob_file(open_blob_file(blob))

    def pread(fd: int, length: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(SourceError, match=str(blob)):
        reader.read(0, 1)
    reader.close()


def test_the_identity_of_a_file_changes_with_its_content(blob: Path) -> None:
    reader = share_blob_file(open_blob_file(blob))
    before = identify(reader)
    assert before is not None
    assert before == identify(reader)
    assert before.size == 200
    os.utime(blob, ns=(0, before.modified + 1))
    assert identify(reader) != before
    reader.close()


def test_a_forgotten_reader_closes_its_file(blob: Path) -> None:
    before = count_open_files()
    share_blob_file(open_blob_file(blob))
    assert count_open_files() == before


# As a raw blob


async def read_raw(session: Session, path: Path, start: int, end: int | None) -> list[bytes]:
    async with FileBlob(session, partial(open_blob_file, path), start, end) as raw:
        assert raw.start == start
        assert raw.size == path.stat().st_size
        assert raw.etag is None
        return [chunk async for chunk in raw]


@pytest.mark.parametrize(
    ("start", "end"), [(0, None), (0, 10), (10, 20), (190, 500), (200, None), (5, 5), (0, 0)]
)
async def test_a_raw_blob_is_a_slice(
    session: Session, blob: Path, start: int, end: int | None
) -> None:
    chunks = await read_raw(session, blob, start, end)
    assert b"".join(chunks) == blob.read_bytes()[start:end]
    assert all(chunks)


async def test_a_raw_blob_comes_in_blocks(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * (2 * BLOCK + 1))
    assert [len(chunk) for chunk in await read_raw(session, path, 0, None)] == [BLOCK, BLOCK, 1]


async def test_a_range_behind_the_end(session: Session, blob: Path) -> None:
    before = count_open_files()
    with pytest.raises(RangeError):
        await read_raw(session, blob, 201, None)
    assert count_open_files() == before


async def test_a_file_that_shrinks_ends_early(session: Session, blob: Path) -> None:
    async with FileBlob(session, partial(open_blob_file, blob)) as raw:
        os.truncate(blob, 50)
        assert b"".join([chunk async for chunk in raw]) == bytes(range(50))


async def test_a_missing_file_is_a_missing_blob(session: Session, tmp_path: Path) -> None:
    with pytest.raises(BlobNotFoundError):
        await read_raw(session, tmp_path / "absent", 0, None)


async def test_a_raw_blob_that_was_not_entered_has_nothing(session: Session, blob: Path) -> None:
    raw = FileBlob(session, partial(open_blob_file, blob))
    assert raw.size is None
    assert [chunk async for chunk in raw] == []
    await raw.__aexit__(None, None, None)


async def test_SEC16_a_raw_blob_leaks_no_file_at_any_await(blob: Path) -> None:
    async def run() -> None:
        async with Session() as session:
            await read_raw(session, blob, 0, None)

    before = count_open_files()

    async def check() -> None:
        assert count_open_files() == before

    assert await cancel_at_every_await(run, check) > 1
