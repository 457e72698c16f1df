"""Hashing beside the event loop: right digests, bounded queues, and no thread left behind."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.blobs import hashing
from asupplemented.blobs.hashing import Hashing, start_hash
from asupplemented.errors import ClosedError
from asupplemented.limits import OFFLOAD_BYTES
from asupplemented.model.digest import Digest
from asupplemented.session import Session
from tests.suspending import cancel_at_every_await, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.blobs.hashing import RunningHash

SHA256 = Digest.of(b"")
PIECE = b"0123456789abcdef" * (OFFLOAD_BYTES // 16)
"""As much as still is hashed on the event loop."""


def hash_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("asupplemented-hash")]


async def digest_of(chunks: Sequence[bytes], threads: int, named: Digest = SHA256) -> Digest:
    hashing = Hashing(threads)
    try:
        running = hashing.start(named)
        for chunk in chunks:
            await running.update(chunk)
        return await running.finish()
    finally:
        await hashing.aclose()


# Digests


@given(
    sizes=st.lists(st.integers(0, 3 * OFFLOAD_BYTES), max_size=6),
    algorithm=st.sampled_from(["sha256", "sha384", "sha512"]),
    threads=st.integers(0, 2),
)
def test_any_chunking_gives_the_digest(sizes: list[int], algorithm: str, threads: int) -> None:
    chunks = [bytes((n + 1,)) * size for n, size in enumerate(sizes)]
    named = Digest.of(b"", algorithm)
    found = asyncio.run(digest_of(chunks, threads, named))
    assert found == Digest.of(b"".join(chunks), algorithm)


async def test_many_small_chunks() -> None:
    chunks = [bytes((n % 256,)) * 7001 for n in range(400)]
    assert await digest_of(chunks, 1) == Digest.of(b"".join(chunks))


async def test_side_by_side_no_hash_meets_the_bytes_of_another() -> None:
    async with Session() as session:

        async def one(n: int) -> bool:
            chunk = bytes((n,)) * OFFLOAD_BYTES
            running = start_hash(session, SHA256)
            for _ in range(6):
                await running.update(chunk)
            return await running.finish() == Digest.of(chunk * 6)

        assert all(await asyncio.gather(*(one(n) for n in range(12))))


async def test_settled_it_can_be_fed_by_somebody_else_and_go_on() -> None:
    hashing = Hashing(1)
    running = hashing.start(SHA256)
    await running.update(PIECE)
    await running.update(PIECE)
    (await running.settle()).update(b"in another thread")
    await running.update(PIECE)
    assert await running.finish() == Digest.of(PIECE * 2 + b"in another thread" + PIECE)
    await hashing.aclose()


# Threads


async def test_small_bodies_need_no_thread() -> None:
    hashing = Hashing(1)
    running = hashing.start(SHA256)
    await running.update(PIECE)
    assert hash_threads() == []
    await running.update(b"x")
    assert len(hash_threads()) == 1
    await running.finish()
    await hashing.aclose()


async def test_without_a_core_to_spare_there_is_no_thread() -> None:
    hashing = Hashing(0)
    running = hashing.start(SHA256)
    for _ in range(3):
        await running.update(PIECE)
    assert hash_threads() == []
    assert await running.finish() == Digest.of(PIECE * 3)
    await hashing.aclose()


@pytest.mark.parametrize(("cores", "threads"), [(1, 0), (2, 2), (4, 4), (64, 4)])
async def test_one_thread_for_each_spare_core(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr(hashing, "usable_cores", lambda: cores)
    hashers = Hashing()
    running = [hashers.start(SHA256) for _ in range(2 * threads + 1)]
    for each in running:
        await each.update(PIECE)
        await each.update(PIECE)
    assert len(hash_threads()) == threads
    assert {await each.finish() for each in running} == {Digest.of(PIECE * 2)}
    await hashers.aclose()


async def test_bodies_are_spread_over_the_threads() -> None:
    hashers = Hashing(2)
    bodies = [hashers.start(SHA256) for _ in range(4)]
    for body in bodies:
        await body.update(PIECE + b"x")
    threads = {hashers.choose_thread(), hashers.choose_thread()}
    assert len(hash_threads()) == 2
    assert all(thread is not None and thread.bodies == 2 for thread in threads)
    bodies[0].discard()
    bodies[2].discard()
    await hashers.aclose()


async def test_a_thread_that_is_idle_is_used_before_another_is_started() -> None:
    hashers = Hashing(2)
    for _ in range(3):
        running = hashers.start(SHA256)
        await running.update(PIECE + b"x")
        await running.finish()
    assert len(hash_threads()) == 1
    await hashers.aclose()


async def test_closing_the_session_ends_the_threads() -> None:
    async with Session() as session:
        running = start_hash(session, SHA256)
        await running.update(PIECE + b"x")
        await running.finish()
    assert hash_threads() == []


async def test_closing_in_the_middle_of_work_ends_the_threads_and_fails_the_rest() -> None:
    hashers = Hashing(1)
    running = hashers.start(SHA256)
    stuck = Stuck(running)
    await running.update(PIECE + b"x")
    waiting = asyncio.create_task(running.finish())
    await stuck.wait_until_begun()
    closing = asyncio.create_task(hashers.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    stuck.free()
    await closing
    assert hash_threads() == []
    for misuse in (waiting, running.update(b"x"), running.settle(), running.finish()):
        with pytest.raises(ClosedError):
            await misuse
    with pytest.raises(ClosedError):
        hashers.start(SHA256)


async def test_closing_twice_is_closing_once() -> None:
    hashers = Hashing(1)
    await hashers.aclose()
    await hashers.aclose()


# Windows


class Stuck:
    """A hash that its thread cannot get on with."""

    def __init__(self, running: RunningHash) -> None:
        self.hasher: Any = hashlib.sha256()
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.updates: list[int] = []
        running._hasher = self

    def update(self, data: bytes) -> None:
        self.begun.set()
        assert self.go_on.wait(60)
        self.updates.append(len(data))
        self.hasher.update(data)

    def hexdigest(self) -> str:
        return str(self.hasher.hexdigest())

    def free(self) -> None:
        self.go_on.set()

    async def wait_until_begun(self) -> None:
        await wait_until(self.begun.is_set)


async def test_whoever_runs_a_window_ahead_waits() -> None:
    hashers = Hashing(1)
    running = hashers.start(SHA256)
    stuck = Stuck(running)
    ahead = 0

    async def feed() -> None:
        nonlocal ahead
        for _ in range(2 * hashing.WINDOW_MAX // len(PIECE)):
            await running.update(PIECE + b"x")
            ahead += len(PIECE) + 1

    feeding = asyncio.create_task(feed())
    await stuck.wait_until_begun()
    for _ in range(100):
        await asyncio.sleep(0)
    assert hashing.WINDOW_MAX - 2 * len(PIECE) <= ahead <= hashing.WINDOW_MAX
    stuck.free()
    await feeding
    await running.finish()
    await hashers.aclose()


async def test_windows_get_smaller_the_more_bodies_there_are() -> None:
    hashers = Hashing(1)
    windows: list[int] = []
    running: list[RunningHash] = []
    for _ in range(64):
        running.append(hashers.start(SHA256))
        windows.append(hashers.window)
    assert windows == sorted(windows, reverse=True)
    assert windows[0] == windows[3] == hashing.WINDOW_MAX
    assert windows[15] == 1024 * 1024
    assert windows[63] == hashing.WINDOW_MIN
    for each in running[1:]:
        each.discard()
    assert hashers.window == hashing.WINDOW_MAX
    await hashers.aclose()


async def test_small_chunks_are_handed_over_together() -> None:
    hashers = Hashing(1)
    running = hashers.start(SHA256)
    await running.update(PIECE)
    stuck = Stuck(running)
    stuck.free()
    for _ in range(4 * 256):
        await running.update(b"x" * 1024)
    await running.finish()
    assert len(stuck.updates) == 4
    await hashers.aclose()


# Ends


async def test_a_discarded_hash_hashes_nothing_more() -> None:
    hashers = Hashing(1)
    running = hashers.start(SHA256)
    stuck = Stuck(running)
    for _ in range(4):
        await running.update(PIECE + b"x")
    await stuck.wait_until_begun()
    running.discard()
    running.discard()
    stuck.free()
    other = hashers.start(SHA256)  # Behind it in the queue of the same thread.
    await other.update(PIECE + b"x")
    assert await other.finish() == Digest.of(PIECE + b"x")
    assert len(stuck.updates) == 1
    await hashers.aclose()


async def test_what_goes_wrong_in_the_thread_is_raised_where_the_body_is_fed() -> None:
    hashers = Hashing(1)
    running = hashers.start(SHA256)
    chunks: Any = ["text is no body" * OFFLOAD_BYTES]
    await running.update(*chunks)
    with pytest.raises(TypeError):
        await running.finish()
    other = hashers.start(SHA256)
    await other.update(PIECE + PIECE)
    assert await other.finish() == Digest.of(PIECE + PIECE)
    running.discard()
    await hashers.aclose()


async def test_SEC16_no_thread_is_left_at_any_await(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "usable_cores", lambda: 2)

    async def run() -> None:
        async with Session() as session:
            running = start_hash(session, SHA256)
            for _ in range(hashing.WINDOW_MAX // len(PIECE) + 4):
                await running.update(PIECE + b"x")
            await running.finish()

    async def check() -> None:
        # Cancelled while it waits for the end of its thread, a session leaves it ending.
        await wait_until(lambda: not hash_threads())

    assert await cancel_at_every_await(run, check) > 0
