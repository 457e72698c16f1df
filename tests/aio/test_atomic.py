from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.atomic import (
    PREFIX,
    StagedFile,
    make_directory,
    remove_leftovers,
    sync_directory,
    write_file,
)
from asupplemented.aio.locks import try_lock
from asupplemented.errors import ClosedError, LayoutError, SourceError
from tests.suspending import count_open_files

if TYPE_CHECKING:
    from pathlib import Path


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


# Files in the making


def test_a_file_is_seen_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "file"
    staged = StagedFile.create(tmp_path)
    staged.write(0, b"one ", b"", b"two")
    staged.write(7, b" three")
    [name] = names(tmp_path)
    assert name.startswith(PREFIX)
    staged.publish(target)
    assert target.read_bytes() == b"one two three"
    assert names(tmp_path) == ["deep"]


def test_a_file_replaces_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with (tmp_path / "file").open("rb") as reader:
        write_file(tmp_path / "file", b"new", staging=tmp_path)
        assert reader.read() == b"old"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    write_file(tmp_path / "link", b"new", staging=tmp_path)
    assert names(tmp_path) == ["link"]
    assert not (tmp_path / "link").is_symlink()


def test_after_its_end_a_file_does_nothing(tmp_path: Path) -> None:
    before = count_open_files()
    published, discarded = StagedFile.create(tmp_path), StagedFile.create(tmp_path)
    assert published.publish(tmp_path / "a")
    discarded.close()
    for staged in (published, discarded):
        staged.close()
        with pytest.raises(ClosedError):
            staged.write(0, b"late")
        assert not staged.publish(tmp_path / "b")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b""
    assert count_open_files() == before


def test_a_directory_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "taken" / "by").mkdir(parents=True)
    with pytest.raises(LayoutError, match=r"cannot write .*taken"):
        write_file(tmp_path / "taken", b"x", staging=tmp_path)
    assert names(tmp_path) == ["taken"]


@pytest.mark.parametrize("durable", [True, False])
def test_durable_means_synced_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, durable: bool
) -> None:
    calls: list[str] = []
    real_sync, real_rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), real_sync(fd)))
    monkeypatch.setattr(
        os, "rename", lambda *a, **b: (calls.append("rename"), real_rename(*a, **b))
    )
    write_file(tmp_path / "file", b"x", staging=tmp_path, durable=durable)
    assert calls == (["fsync", "rename"] if durable else ["rename"])


def test_a_write_in_another_thread_ends_before_the_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, proceed = threading.Event(), threading.Event()
    real = os.pwrite

    def slow(fd: int, data: bytes, position: int) -> int:
        writing.set()
        assert proceed.wait(60)
        return real(fd, data, position)

    before = count_open_files()
    staged = StagedFile.create(tmp_path)
    monkeypatch.setattr(os, "pwrite", slow)
    writer = threading.Thread(target=staged.write, args=(0, b"x"))
    writer.start()
    assert writing.wait(60)
    staged.close()
    assert names(tmp_path) == []
    assert count_open_files() == before + 1
    proceed.set()
    writer.join()
    assert count_open_files() == before


def test_a_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:3], at))
    write_file(tmp_path / "file", b"0123456789", staging=tmp_path)
    assert (tmp_path / "file").read_bytes() == b"0123456789"


# Directories


def test_a_directory_is_made_with_all_bits_for_its_owner(tmp_path: Path) -> None:
    make_directory(tmp_path / "new")
    make_directory(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o755
    with pytest.raises(LayoutError):
        make_directory(tmp_path / "no" / "such")
    with pytest.raises(LayoutError):
        sync_directory(tmp_path / "no")


# Leftovers


def test_leftovers_are_swept_and_nothing_else(tmp_path: Path) -> None:
    living = StagedFile.create(tmp_path)
    [name] = names(tmp_path)
    (tmp_path / f"{PREFIX}dead").write_text("half")
    (tmp_path / f"{PREFIX}directory").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("mine")
    remove_leftovers(tmp_path)
    kept = ["file", name, f"{PREFIX}directory", f"{PREFIX}link"]
    assert names(tmp_path) == sorted(kept)
    living.publish(tmp_path / "whole")
    assert (tmp_path / "whole").exists()


def test_where_nothing_can_be_swept_nothing_fails(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    remove_leftovers(tmp_path / "file")


def test_a_killed_process_leaves_nothing_for_long(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, pathlib\n"
        "from asupplemented.aio.atomic import StagedFile\n"
        "staged = StagedFile.create(pathlib.Path(sys.argv[1]))\n"
        "staged.write(0, b'half')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert len(names(tmp_path)) == 1
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_a_file_that_is_swept_as_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    taken: list[str] = []

    def sweep_first(fd: int, operation: int) -> None:
        if not taken:
            taken.extend(names(tmp_path))
            (tmp_path / taken[0]).unlink()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    staged = StagedFile.create(tmp_path)
    [name] = names(tmp_path)
    assert name not in taken
    staged.close()


def test_a_directory_that_swallows_every_file_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = count_open_files()

    def busy(*_: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr(fcntl, "flock", busy)
    with pytest.raises(LayoutError, match="taken away"):
        StagedFile.create(tmp_path)
    assert count_open_files() == before


def test_a_file_system_without_locks_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    write_file(tmp_path / "file", b"x", staging=tmp_path)
    (tmp_path / f"{PREFIX}other").write_text("whose?")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [f"{PREFIX}other", "file"]
    with pytest.raises(SourceError), try_lock(tmp_path / "lock"):
        pytest.fail("nothing was locked")
