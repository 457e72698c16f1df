"""Threads that lose no result, and end with their session."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.aio.threads import WORKERS, Workers, run_blocking, run_closing, run_opening
from asupplemented.blobs.blob_file import open_blob_file
from asupplemented.errors import ClosedError
from asupplemented.session import Session
from tests.suspending import cancel_at_every_await, count_open_files, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with Session() as session:
        yield session


def file_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("asupplemented-file")]


class Gate:
    """A blocking call that waits to be let through."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()

    def __call__(self, result: Any = None) -> Any:
        self.begun.set()
        assert self.open.wait(60)
        return result

    async def wait_until_begun(self) -> None:
        await wait_until(self.begun.is_set)


# Calling


async def test_a_call_runs_in_a_thread_of_the_session(session: Session) -> None:
    name = await run_blocking(session, lambda: threading.current_thread().name)
    assert name.startswith("asupplemented-file")


async def test_arguments_results_and_errors_pass_through(session: Session) -> None:
    assert await run_blocking(session, int, "12", base=16) == 18
    with pytest.raises(ZeroDivisionError):
        await run_blocking(session, lambda: 1 // 0)


async def test_calls_run_side_by_side(session: Session) -> None:
    barrier = threading.Barrier(2, timeout=60)
    await asyncio.gather(*(run_blocking(session, barrier.wait) for _ in range(2)))


async def test_SEC16_a_cancelled_caller_does_not_wait_for_the_call(session: Session) -> None:
    gate = Gate()
    task = asyncio.create_task(run_blocking(session, gate))
    await gate.wait_until_begun()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open.set()


async def test_SEC16_what_is_opened_too_late_is_released(session: Session) -> None:
    gate = Gate()
    released: list[str] = []
    opening = run_opening(session, partial(gate, "late"), released.append)
    task = asyncio.create_task(opening)
    await gate.wait_until_begun()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert released == []
    gate.open.set()
    await wait_until(lambda: released == ["late"])


async def test_SEC16_what_arrives_together_with_the_cancellation_is_released(
    session: Session,
) -> None:
    released: list[str] = []
    task = asyncio.create_task(run_opening(session, lambda: "open", released.append))
    await asyncio.sleep(0)
    workers = session.resource(WORKERS, Workers)
    barrier = threading.Event()
    workers.submit(barrier.set)  # Behind the other call, or beside it: see below.
    assert barrier.wait(60)
    # The result may be on its way through the loop, or not yet; it is cancelled either way.
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until(lambda: released == ["open"])


async def test_an_opening_that_fails_after_the_cancellation_is_forgotten(
    session: Session,
) -> None:
    gate = Gate()

    def fail() -> str:
        gate()
        raise OSError

    released: list[str] = []
    task = asyncio.create_task(run_opening(session, fail, released.append))
    await gate.wait_until_begun()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open.set()
    await run_blocking(session, int)
    assert released == []


async def test_what_is_opened_in_time_is_not_released(session: Session) -> None:
    released: list[str] = []
    assert await run_opening(session, lambda: "open", released.append) == "open"
    assert released == []


async def test_SEC16_opening_leaks_no_file_at_any_await(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"content")

    async def run() -> None:
        async with Session() as session:
            file = await run_opening(
                session, partial(open_blob_file, path), lambda late: late.close()
            )
            file.close()

    before = count_open_files()

    async def check() -> None:
        assert count_open_files() == before
        assert file_threads() == []

    assert await cancel_at_every_await(run, check) > 0


async def test_SEC16_closing_is_done_though_its_caller_is_cancelled_before_its_turn(
    session: Session,
) -> None:
    gates = [Gate() for _ in range(16)]  # more than there are threads
    workers = session.resource(WORKERS, Workers)
    for gate in gates:
        workers.submit(gate)
    closed: list[str] = []
    task = asyncio.create_task(run_closing(session, partial(closed.append, "closed")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == []
    for gate in gates:
        gate.open.set()
    await wait_until(lambda: closed == ["closed"])


async def test_closing_is_done_though_the_session_is_closed_before_its_turn() -> None:
    session = Session()
    gates = [Gate() for _ in range(16)]
    workers = session.resource(WORKERS, Workers)
    for gate in gates:
        workers.submit(gate)
    closed: list[str] = []
    task = asyncio.create_task(run_closing(session, partial(closed.append, "closed")))
    await asyncio.sleep(0)
    ending = asyncio.create_task(session.aclose())
    await task
    assert closed == ["closed"]
    for gate in gates:
        gate.open.set()
    await ending
    await run_closing(session, partial(closed.append, "late"))
    assert closed == ["closed", "late"]


async def test_closing_is_done_once_in_a_thread(session: Session) -> None:
    names: list[str] = []
    await run_closing(session, lambda: names.append(threading.current_thread().name))
    [name] = names
    assert name.startswith("asupplemented-file")


# Threads


async def test_closing_the_session_ends_its_threads() -> None:
    async with Session() as session:
        await run_blocking(session, int)
        assert file_threads()
    assert file_threads() == []


async def test_closing_waits_for_what_is_running_and_starts_nothing_else() -> None:
    session = Session()
    gate = Gate()
    begun: list[int] = []
    tasks = [asyncio.create_task(run_blocking(session, gate))]
    await gate.wait_until_begun()
    workers = session.resource(WORKERS, Workers)
    gates = [Gate() for _ in range(8)]
    futures = [workers.submit(partial(other, n)) for n, other in enumerate(gates)]
    waiting = workers.submit(lambda: begun.append(1))
    tasks.append(asyncio.create_task(run_blocking(session, begun.append, 2)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(session.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    for each in [gate, *gates]:
        each.open.set()
    await closing
    assert await tasks[0] is None
    with pytest.raises(ClosedError):
        await tasks[1]
    assert waiting.cancelled()
    assert begun == []
    assert all(future.done() for future in futures)
    assert file_threads() == []


async def test_a_closed_session_runs_nothing() -> None:
    async with Session() as session:
        workers = session.resource(WORKERS, Workers)
    with pytest.raises(ClosedError):
        await run_blocking(session, int)
    with pytest.raises(ClosedError):
        workers.submit(int)
