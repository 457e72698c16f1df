"""Files off the event loop: threads that lose nothing, and opening only what is a file."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.files import map_os_error, map_write_errors, open_regular, read_limited
from asupplemented.errors import (
    BlobNotFoundError,
    LayoutError,
    LimitExceededError,
    ManifestNotFoundError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    SourceError,
    SourceTimeoutError,
    SupplementedError,
    TruncatedError,
)
from tests.suspending import count_open_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# Opening


def test_a_regular_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    fd, status = open_regular(path)
    try:
        assert status.st_size == len(b"content")
        assert os.read(fd, 100) == b"content"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("missing", [NotFoundError, BlobNotFoundError, ManifestNotFoundError])
def test_a_file_that_is_not_there(tmp_path: Path, missing: type[SupplementedError]) -> None:
    path = tmp_path / "file"
    with pytest.raises(missing, match=str(path)) as caught:
        open_regular(path, missing=missing)
    assert type(caught.value) is missing


def make_directory(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    "make", [make_directory, make_fifo, make_socket, make_link_to_device, make_loop]
)
def test_DI07_only_regular_files_are_opened_and_none_is_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "x"
    make(path)
    before = count_open_files()
    with pytest.raises(LayoutError, match=str(path)):
        open_regular(path)
    assert count_open_files() == before


def test_DI07_a_link_is_followed_unless_it_may_not_be(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"content")
    link.symlink_to(path)
    assert read_limited(link, 100) == b"content"
    with pytest.raises(LayoutError):
        open_regular(link, follow=False)
    assert read_limited(path, 100, follow=False) == b"content"


def test_a_path_through_a_file_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LayoutError):
        open_regular(tmp_path / "file" / "below")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, "x")

    monkeypatch.setattr(os, "open", refuse)  # The tests may run as root, whom nothing stops.
    with pytest.raises(PermissionDeniedError, match="permissions"):
        open_regular(tmp_path / "file")


def test_a_file_that_is_taken_away_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    before = count_open_files()

    def fstat(fd: int) -> os.stat_result:
        raise OSError(errno.ESTALE, "x")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fstat)
        with pytest.raises(SourceError, match="file"):
            open_regular(path)
    assert count_open_files() == before


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError(errno.EACCES, "x"), PermissionDeniedError),
        (TimeoutError(), SourceTimeoutError),
        (ConnectionResetError(errno.ECONNRESET, "x"), NetworkError),
        (EOFError("x"), TruncatedError),
        (OSError(errno.ELOOP, "x"), LayoutError),
        (OSError(errno.ENOTDIR, "x"), LayoutError),
        (OSError(errno.EIO, "x"), SourceError),
        (OSError("no number"), SourceError),
    ],
)
def test_what_the_operating_system_says(error: OSError | EOFError, kind: type[SourceError]) -> None:
    mapped = map_os_error(error, "the thing")
    assert type(mapped) is kind
    assert "the thing" in str(mapped)


# Reading small files


@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_L03_up_to_the_limit(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert read_limited(path, 100) == b"x" * size


@pytest.mark.parametrize("size", [101, 5000])
def test_L01_past_the_limit(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    with pytest.raises(LimitExceededError, match="exceeded maximum allowed size of 100 bytes") as e:
        read_limited(path, 100)
    assert e.value.limit == 100


def test_a_file_that_hides_its_size_is_read_to_its_end() -> None:
    # Files of /proc say that they have no bytes.
    assert read_limited("/proc/self/status", 1 << 20).startswith(b"Name:")
    with pytest.raises(LimitExceededError):
        read_limited("/proc/self/status", 10)


def test_reading_closes_what_it_opens(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 200)
    before = count_open_files()
    read_limited(path, 200)
    with pytest.raises(LimitExceededError):
        read_limited(path, 100)
    assert count_open_files() == before


# Errors of writing


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.EACCES, PermissionDeniedError, "permissions"),
        (errno.EPERM, PermissionDeniedError, "permissions"),
        (errno.EROFS, PermissionDeniedError, "read-only"),
        (errno.ENOSPC, SourceError, "No space left on device; make room"),
        (errno.EDQUOT, SourceError, "make room"),
        (errno.EFBIG, SourceError, "make room"),
        (errno.EIO, SourceError, "Input/output error"),
        (errno.ENOTDIR, LayoutError, "Not a directory"),
        (errno.EISDIR, LayoutError, "Is a directory"),
        (errno.ENAMETOOLONG, LayoutError, "too long"),
        (errno.ELOOP, LayoutError, "symbolic links"),
    ],
)
def test_what_the_system_says_becomes_a_typed_error(
    tmp_path: Path, code: int, kind: type[SourceError], words: str
) -> None:
    cause = OSError(code, os.strerror(code))
    with pytest.raises(SourceError) as caught, map_write_errors(tmp_path):
        raise cause
    assert type(caught.value) is kind
    assert f"cannot write {tmp_path}: " in str(caught.value)
    assert words in str(caught.value)
    assert caught.value.__cause__ is cause


def test_an_error_of_ours_is_mapped_once(tmp_path: Path) -> None:
    error = LayoutError("mine")
    with pytest.raises(LayoutError) as caught, map_write_errors(tmp_path):
        raise error
    assert caught.value is error
