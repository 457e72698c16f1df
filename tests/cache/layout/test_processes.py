"""Real processes with one cache: they share it, follow each other, and die."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asupplemented.cache.layout.layout_cache import LayoutCache
from asupplemented.errors import SourceError
from asupplemented.session import Session
from asupplemented.testing import FakeRegistry, Hold, Stall, build_image
from tests.cache.driving import (
    held,
    in_the_making,
    listed,
    put,
    read_all,
    weigh,
)
from tests.cache.worker import HALF, SIZES, big_content, content
from tests.candidates import describe
from tests.suspending import wait_until
from tests.transports.places import open_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from asupplemented.abc import Spool

ROOT = Path(__file__).parents[3]
LIMIT = sum(SIZES) // 2
SECONDS = 60
"""A worker that takes longer hangs."""

pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def result(process: subprocess.Popen[str]) -> dict[str, int]:
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    done: dict[str, int] = json.loads(out)
    return done


def check_blobs(path: Path) -> None:
    """Whatever is visible is whole and right."""
    for digest in held(path):
        data = (path / "blobs" / digest.algorithm / digest.encoded).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest.encoded


def start(path: Path, seed: int, pulls: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.cache.worker", str(path), str(LIMIT)]
    return subprocess.Popen(
        [*command, str(seed), str(pulls)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_hammer_one_cache_and_the_limit_holds(path: Path) -> None:
    most = 0
    with start(path, 1, 60) as one, start(path, 2, 60) as two, start(path, 3, 60) as three:
        workers = (one, two, three)
        deadline = time.monotonic() + SECONDS
        while any(process.poll() is None for process in workers):
            most = max(most, weigh(path))
            assert time.monotonic() < deadline
        done = [result(process) for process in workers]
    assert LIMIT // 2 < most <= LIMIT
    assert all(sum(each.values()) == 180 for each in done)
    assert sum(each["hit"] for each in done) > 100
    assert sum(each["followed"] for each in done) > 0
    check_blobs(path)
    assert in_the_making(path) == []
    assert int((path / ".asupplemented" / "ledger").read_text()) == weigh(path)


def test_processes_are_killed_and_the_others_go_on(path: Path) -> None:
    dice = random.Random(4)
    with start(path, 11, 60) as steady:
        for seed in range(20, 30):
            with start(path, seed, 1000) as victim:
                assert victim.stderr is not None
                victim.stderr.read(dice.randrange(1, 100))  # a dot for each pull
                assert victim.poll() is None
                victim.kill()
            check_blobs(path)
            assert weigh(path) <= LIMIT
        done = result(steady)
    assert sum(done.values()) == 180
    with start(path, 31, 10) as last:
        result(last)
    check_blobs(path)
    assert in_the_making(path) == []
    assert int((path / ".asupplemented" / "ledger").read_text()) == weigh(path)


# Sessions, with a registry


IMAGE = build_image(layers=[random.Random(6).randbytes(9_000_000)])
[LAYER] = IMAGE.layers


async def open_in_process(path: Path, reference: str) -> asyncio.subprocess.Process:
    """Start a process that reads an image; gives when it has opened it."""
    command = [sys.executable, "-m", "tests.cache.worker", str(path), "100000000"]
    process = await asyncio.create_subprocess_exec(
        *command,
        "read",
        reference,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"opened\n"
    return process


async def finish(process: asyncio.subprocess.Process) -> None:
    """Wait until a process has read everything."""
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert json.loads(out) == {digest: len(data) for digest, data in IMAGE.blobs.items()}


async def kill(processes: list[asyncio.subprocess.Process]) -> None:
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_processes_ask_a_registry_once_for_a_blob(path: Path) -> None:
    processes: list[asyncio.subprocess.Process] = []
    may_answer = asyncio.Event()
    async with asyncio.timeout(SECONDS), FakeRegistry() as registry:
        reference = registry.add("team/app", IMAGE)
        registry.script(LAYER, Hold(may_answer))
        try:
            processes += await asyncio.gather(*(open_in_process(path, reference) for _ in range(4)))
            await registry.wait_until(lambda: registry.count(LAYER) > 0)
            may_answer.set()
            for process in processes:
                await finish(process)
        finally:
            await kill(processes)
        assert registry.count(LAYER) == 1
        assert registry.count(IMAGE.config) == 1
    assert listed(path) == [IMAGE.digest]
    check_blobs(path)


async def test_when_the_process_that_fetches_is_killed_another_one_asks_for_the_rest(
    path: Path,
) -> None:
    processes: list[asyncio.subprocess.Process] = []
    async with asyncio.timeout(SECONDS), FakeRegistry() as registry:
        reference = registry.add("team/app", IMAGE)
        registry.script(LAYER, Stall(after=6_000_000))
        try:
            leader = await open_in_process(path, reference)
            processes.append(leader)
            await registry.wait_until(lambda: registry.count(LAYER) > 0)
            processes += await asyncio.gather(*(open_in_process(path, reference) for _ in range(3)))
            ingest = path / ".asupplemented" / "ingest"
            await wait_until(lambda: all(open_files(ingest, each.pid) for each in processes))
            # The leader's file, and what each of the others has read of it.
            await wait_until(lambda: count_large(ingest) == len(processes))
            leader.kill()
            for process in processes[1:]:
                await finish(process)
        finally:
            await kill(processes)
        first, second = registry.select_requests(LAYER)
        assert first.header("Range") is None
        rest = second.header("Range")
        assert rest is not None
        start = int(rest.removeprefix("bytes=").partition("-")[0])
        assert 1_000_000 < start <= 6_000_000
    assert listed(path) == [IMAGE.digest]
    check_blobs(path)


def count_large(ingest: Path) -> int:
    """The files in the making that have more than 1,000,000 bytes."""
    found = 0
    for path in ingest.iterdir():
        with suppress(FileNotFoundError):  # Others come and go meanwhile.
            found += path.stat().st_size > 1_000_000
    return found


async def follow(spool: Spool, step: Callable[[], object]) -> None:
    """Append what comes from the other process, and do something after each chunk."""
    [candidate] = spool.candidates
    async with candidate.open() as raw:
        async for chunk in raw:
            await spool.append(chunk)
            step()


async def test_a_leader_is_killed_while_others_read(path: Path) -> None:
    data, limit = big_content(), 50_000_000
    command = [sys.executable, "-m", "tests.cache.worker", str(path), str(limit), "hang"]
    leader = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert leader.stdout is not None
        assert await asyncio.wait_for(leader.stdout.readline(), SECONDS) == b"half\n"
        async with Session() as session:
            cache = LayoutCache(path, limit)
            spool = await cache.claim(session, describe(data))
            assert spool is not None
            async with spool, asyncio.timeout(SECONDS):
                with pytest.raises(SourceError, match="is gone"):
                    await follow(spool, lambda: spool.length == HALF and leader.kill())
                assert await read_all(spool) == data[:HALF]
                await spool.append(data[HALF:])
                await spool.commit()
            assert held(path) == {describe(data).digest}
            check_blobs(path)
            await put(LayoutCache(path, limit), session, content(0))  # which sweeps first
            assert in_the_making(path) == []
    finally:
        if leader.returncode is None:
            leader.kill()
        await leader.wait()
