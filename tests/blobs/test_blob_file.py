"""Blobs in local files: read by position, and closed when nobody reads them any more."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from asupplemented.abc import BlobFile
from asupplemented.blobs.blob_file import identify, open_blob_file, share_blob_file
from asupplemented.errors import SourceError
from tests.suspending import count_open_files

if TYPE_CHECKING:
    from pathlib import Path


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
