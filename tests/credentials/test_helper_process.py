"""Programs of strangers: run without a shell, bounded, and gone afterwards."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from asupplemented.credentials import helper_process as programs
from asupplemented.credentials.helper_process import Command, Outcome, run
from asupplemented.errors import LimitExceededError, SourceTimeoutError
from tests.credentials.keepers import (
    PatientClock,
    Shelf,
    is_running,
)
from tests.suspending import cancel_at_every_await, count_open_files, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1024 * 1024
PAUSE = "sleep 1000"


async def run_program(
    shelf: Shelf,
    body: str,
    *,
    limit: int = MIB,
    stdin: bytes = b"",
    clock: PatientClock | None = None,
) -> Outcome:
    """Write a program, and run it."""
    path = shelf.add("x", body)
    command = Command(str(path), "get", stdin, shelf.environ)
    return await run(command, seconds=30, limit=limit, sleep=(clock or PatientClock()).sleep)


def written(shelf: Shelf, name: str, count: int) -> Callable[[], bool]:
    """Whether so many numbers are in a file."""
    return lambda: (shelf.root / name).exists() and len(shelf.pids(name)) == count


async def check_gone(shelf: Shelf, name: str) -> None:
    """The processes whose numbers are in a file are no more."""
    for pid in shelf.pids(name):
        await wait_until(lambda pid=pid: not is_running(pid), every=0.005)


async def test_HELP01_argument_stdin_and_stdout(shelf: Shelf) -> None:
    outcome = await run_program(shelf, 'cat; printf "|done"', stdin=b"quay.io:443")
    assert (outcome.status, outcome.output) == (0, b"quay.io:443|done")
    assert shelf.read("x.arguments") == "get|"


async def test_HELP01_stderr_is_ours(shelf: Shelf, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = await run_program(shelf, "echo 'enter your PIN' >&2; echo out")
    assert outcome.output == b"out\n"
    assert capfd.readouterr().err == "enter your PIN\n"


async def test_what_was_printed_before_the_end_is_read_after_it(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "READ_SIZE", 1)  # so that the end is known long before
    body = f"head -c 2000 /dev/zero; {PAUSE} &"
    outcome = await run_program(shelf, body, clock=PatientClock(hasty=True))
    assert outcome.output == bytes(2000)


async def test_a_program_need_not_read_its_stdin(shelf: Shelf) -> None:
    assert (await run_program(shelf, "exec <&-; echo out", stdin=b"x" * 512)).output == b"out\n"


async def test_the_environment_is_the_one_that_was_given(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    outcome = await run_program(shelf, 'echo "${SECRET_OF_OURS-none}"')
    assert outcome.output == b"none\n"
    command = Command(str(shelf.bin / "docker-credential-x"), "get", b"")
    monkeypatch.setenv("SHELF", str(shelf.root))
    assert (await run(command, seconds=30, limit=MIB)).output == b"x\n"


@pytest.mark.parametrize(("body", "status"), [("exit 3", 3), ("kill -9 $$", -9), ("", 0)])
async def test_SEC12_however_it_dies(shelf: Shelf, body: str, status: int) -> None:
    outcome = await run_program(shelf, f"printf out; {body}")
    assert (outcome.status, outcome.output) == (status, b"out")


async def test_SEC12_a_program_of_two_mouths_has_nothing_of_ours_open(
    shelf: Shelf, tmp_path: Path
) -> None:
    with (tmp_path / "file").open("w") as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003 - the function has no other form
        outcome = await run_program(shelf, "ls /proc/self/fd")
    # ls opens the directory that it lists as the next free one.
    assert outcome.output.split() == [b"0", b"1", b"2", b"3"]


async def test_HELP03_SEC12_one_that_never_ends_is_killed_with_all_it_started(
    shelf: Shelf,
) -> None:
    clock = PatientClock(written(shelf, "pids", 3))
    body = f"""
        trap '' TERM HUP INT
        {PAUSE} & echo $! >> "$SHELF/pids"
        (trap '' TERM; {PAUSE}) & echo $! >> "$SHELF/pids"
        echo $$ >> "$SHELF/pids"
        wait
    """
    with pytest.raises(SourceTimeoutError, match="30 s"):
        await run_program(shelf, body, clock=clock)
    assert clock.slept == [30]
    await check_gone(shelf, "pids")


async def test_HELP03_SEC12_a_gigabyte_is_not_read(shelf: Shelf) -> None:
    with pytest.raises(LimitExceededError, match="more than 1048576 bytes") as caught:
        await run_program(shelf, "yes | head -c 1073741824")
    assert caught.value.limit == MIB


async def test_HELP03_a_program_may_print_so_much_and_no_more(shelf: Shelf) -> None:
    body = "head -c {} /dev/zero"
    outcome = await run_program(shelf, body.format(300_000), limit=300_000)
    assert outcome.output == bytes(300_000)
    with pytest.raises(LimitExceededError):
        await run_program(shelf, body.format(300_001), limit=300_000)


async def test_SEC12_who_is_left_with_our_pipe_is_killed(shelf: Shelf) -> None:
    body = f'{PAUSE} & echo $! > "$SHELF/pids"; echo out'
    clock = PatientClock(hasty=True)
    outcome = await run_program(shelf, body, clock=clock)
    assert (outcome.status, outcome.output) == (0, b"out\n")
    assert clock.slept == [30, 0.5]
    await check_gone(shelf, "pids")


async def test_SEC12_who_floods_our_pipe_from_behind_is_killed(shelf: Shelf) -> None:
    body = 'yes & echo $! > "$SHELF/pids"; exit 0'
    with pytest.raises(LimitExceededError):
        await run_program(shelf, body)
    await check_gone(shelf, "pids")


async def test_who_lets_go_of_our_pipe_late_is_left_alone(shelf: Shelf) -> None:
    late = f"while kill -0 $$ 2>/dev/null; do :; done; echo late; exec {PAUSE} >/dev/null 2>&1"
    body = f'({late}) & echo $! > "$SHELF/pids"; echo out'
    assert (await run_program(shelf, body)).output == b"out\nlate\n"
    [pid] = shelf.pids("pids")
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)


async def test_SEC12_a_daemon_that_holds_our_pipe_is_not_waited_for(shelf: Shelf) -> None:
    daemon = f"setsid sh -c 'echo $$ > \"$SHELF/pids\"; exec {PAUSE}' &"
    body = f'{daemon} while [ ! -s "$SHELF/pids" ]; do :; done; echo out'
    assert (await run_program(shelf, body, clock=PatientClock(hasty=True))).output == b"out\n"
    [pid] = shelf.pids("pids")
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("content", "mode", "error"),
    [
        ("#!/nowhere/sh\n", 0o755, FileNotFoundError),
        ("not a program", 0o755, OSError),
        ("#!/bin/sh\n", 0o644, PermissionError),
        (None, 0, FileNotFoundError),
    ],
)
async def test_one_that_cannot_be_started(
    shelf: Shelf, content: str | None, mode: int, error: type[OSError]
) -> None:
    path = shelf.bin / "x"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    before = count_open_files()
    with pytest.raises(error):
        await run(Command(str(path), "get", b""), seconds=30, limit=1, sleep=PatientClock().sleep)
    assert count_open_files() == before


@pytest.mark.parametrize("failing", [1, 2, 3])
async def test_without_file_descriptors_none_are_lost(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    real, made = os.pipe, 0

    def pipe() -> tuple[int, int]:
        nonlocal made
        made += 1
        if made == failing:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real()

    command = Command(str(shelf.add("x", "echo out")), "get", b"", shelf.environ)
    before = count_open_files()
    monkeypatch.setattr(os, "pipe", pipe)
    with pytest.raises(OSError, match="Too many open files"):
        await run(command, seconds=30, limit=9)
    assert count_open_files() == before


async def test_SEC16_cancelled_at_every_await_nothing_stays(shelf: Shelf) -> None:
    body = f'{PAUSE} & echo $! $$ >> "$SHELF/pids"; cat; echo out'
    path = shelf.add("x", body)
    command = Command(str(path), "get", b"quay.io", shelf.environ)
    before = count_open_files()
    tasks = asyncio.all_tasks()

    async def check() -> None:
        assert asyncio.all_tasks() == tasks
        await wait_until(shelf.is_quiet, every=0.005)
        assert count_open_files() <= before + 1  # the watcher of a process closes its own late
        if (shelf.root / "pids").exists():
            await check_gone(shelf, "pids")

    awaits = await cancel_at_every_await(
        partial(run, command, seconds=30, limit=MIB, sleep=PatientClock(hasty=True).sleep),
        check,
    )
    assert awaits >= 4
    await check_gone(shelf, "pids")


async def test_SEC16_cancelled_while_it_hangs_all_of_it_is_killed(shelf: Shelf) -> None:
    body = f'{PAUSE} & echo $! $$ >> "$SHELF/pids"; {PAUSE}'
    task = asyncio.create_task(run_program(shelf, body))
    await wait_until(written(shelf, "pids", 2), every=0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(map(is_running, shelf.pids("pids")[1:]))
    assert shelf.is_quiet()
    await check_gone(shelf, "pids")


async def test_SEC16_cancelled_twice_it_is_killed_all_the_same(shelf: Shelf) -> None:
    body = f'{PAUSE} & echo $! $$ >> "$SHELF/pids"; {PAUSE}'
    task = asyncio.create_task(run_program(shelf, body))
    await wait_until(written(shelf, "pids", 2), every=0.005)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await check_gone(shelf, "pids")


async def test_many_at_once(shelf: Shelf) -> None:
    path = shelf.add("x", "cat")
    before = count_open_files()

    async def ask(number: int) -> bytes:
        command = Command(str(path), "get", b"%d" % number, shelf.environ)
        return (await run(command, seconds=30, limit=MIB)).output

    said = await asyncio.gather(*map(ask, range(20)))
    assert said == [b"%d" % number for number in range(20)]
    assert count_open_files() <= before + 1


def test_on_uvloop(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")
    shelf = Shelf(tmp_path / "shelf")

    async def main() -> None:
        assert (await run_program(shelf, "cat", stdin=b"quay.io")).output == b"quay.io"
        clock = PatientClock(written(shelf, "pids", 2))
        body = f'{PAUSE} & echo $! $$ >> "$SHELF/pids"; {PAUSE}'
        with pytest.raises(SourceTimeoutError):
            await run_program(shelf, body, clock=clock)
        await check_gone(shelf, "pids")
        with pytest.raises(LimitExceededError):
            await run_program(shelf, "yes")
        hasty = PatientClock(hasty=True)
        assert (await run_program(shelf, f"{PAUSE} & echo out", clock=hasty)).output == b"out\n"
        await wait_until(shelf.is_quiet, every=0.005)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_in_a_loop_that_is_not_of_the_main_thread(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    outcome = asyncio.run(asyncio.to_thread(lambda: asyncio.run(run_program(shelf, "echo out"))))
    assert outcome.output == b"out\n"


def test_CRED07_reprs_do_not_show_what_is_said() -> None:
    command = Command("/bin/x", "get", b"sentinel", {"TOKEN": "sentinel"})
    assert "sentinel" not in f"{command!r} {Outcome(0, b'sentinel')!r}"
    assert "/bin/x" in repr(command)
