"""Locks between processes, and waiting for one."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.locks import LockBusy, retry_while_locked, try_lock
from asupplemented.errors import LayoutError, SourceTimeoutError
from asupplemented.session import Session
from tests.clocks import FakeClock
from tests.suspending import count_open_files

if TYPE_CHECKING:
    from pathlib import Path


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_a_lock_is_held_by_one_and_leaves_nothing(tmp_path: Path) -> None:
    before = count_open_files()
    with try_lock(tmp_path / "lock") as first:
        assert first is True
        with try_lock(tmp_path / "lock") as second:
            assert second is False
        assert names(tmp_path) == ["lock"]
    assert names(tmp_path) == []
    with try_lock(tmp_path / "lock") as third:
        assert third is True
    assert count_open_files() == before


def test_a_lock_is_free_again_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyError), try_lock(tmp_path / "lock"):
        raise KeyError
    assert names(tmp_path) == []


def test_a_lock_file_that_was_left_behind_can_be_locked(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    with try_lock(tmp_path / "lock") as held:
        assert held is True


def test_a_lock_on_a_file_that_is_gone_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def release_first(fd: int, operation: int) -> None:
        (tmp_path / "lock").unlink()
        (tmp_path / "lock").touch()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", release_first)
    with try_lock(tmp_path / "lock") as held:
        assert held is False
    assert names(tmp_path) == ["lock"]


@pytest.mark.parametrize("make", [os.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_file_cannot_be_locked(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "lock")
    with pytest.raises(LayoutError), try_lock(tmp_path / "lock"):
        pytest.fail("it was locked")


@pytest.mark.parametrize("failures", [0, 1, 5])
async def test_a_lock_that_is_released_in_time_is_waited_for(tmp_path: Path, failures: int) -> None:
    clock, calls = FakeClock(), list[int]()

    def work() -> str:
        calls.append(1)
        if len(calls) <= failures:
            raise LockBusy
        return "done"

    async with Session(settings=[clock.clock]) as session:
        assert await retry_while_locked(session, tmp_path, work, patience=10) == "done"
    assert len(calls) == failures + 1
    assert len(clock.slept) == failures


async def test_a_lock_that_is_never_released_is_given_up(tmp_path: Path) -> None:
    clock = FakeClock()

    def work() -> None:
        raise LockBusy

    async with Session(settings=[clock.clock]) as session:
        with pytest.raises(SourceTimeoutError, match="locked by another process for 10 s"):
            await retry_while_locked(session, tmp_path, work, patience=10)
    assert 10 <= clock.time < 11
