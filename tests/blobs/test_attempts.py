"""Attempts: a body has its time, and no more."""

from __future__ import annotations

import asyncio

import pytest

from asupplemented.abc import Timeouts
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.blobs.hashing import HASHING, Hashing
from asupplemented.blobs.stream import VerifiedStream
from asupplemented.errors import SourceTimeoutError, SupplementedError
from asupplemented.limits import SMALL_BLOB
from asupplemented.session import Session
from tests.candidates import DATA, Ledger, Wire, describe, fail
from tests.suspending import run_leaping


def stream_slowly(
    pause: float, chunk: int, total: int, timeouts: Timeouts, reader_pause: float = 0
) -> float:
    """Read a slow body; the seconds that it took, by a clock that leaps."""
    data = DATA * (total // len(DATA) + 1)

    async def run() -> float:
        loop = asyncio.get_running_loop()
        ledger = Ledger()
        async with Session(timeouts=timeouts) as session:
            session.resource(CLOCK, lambda: Clock(now=loop.time))
            session.resource(HASHING, lambda: Hashing(threads=0))
            wire = Wire(data[:total], ledger, sizes=(chunk,), pause=pause)
            stream = VerifiedStream(describe(data[:total]), [wire], session)
            async with stream:
                async for _ in stream:
                    await asyncio.sleep(reader_pause)
        assert ledger.left_open == 0
        return loop.time()

    return run_leaping(run)


def test_SEC07_a_byte_now_and_then_is_a_stall() -> None:
    with pytest.raises(SourceTimeoutError, match="too slow") as caught:
        stream_slowly(pause=59, chunk=1, total=100_000, timeouts=Timeouts(stall=60))
    assert caught.value.received is not None
    assert caught.value.received <= 2


def test_SEC07_silence_is_a_stall() -> None:
    for timeouts in (Timeouts(stall=60, min_rate=0), Timeouts(stall=60)):
        with pytest.raises(SourceTimeoutError, match="60 s"):
            stream_slowly(pause=61, chunk=10**6, total=10**6, timeouts=timeouts)


@pytest.mark.parametrize(
    ("pause", "chunk", "timeouts"),
    [
        (1, 1050, Timeouts(stall=60)),
        (59, 60 * 1024, Timeouts(stall=60)),
        (29, 30 * 1024, Timeouts(stall=60)),
        (59, 1, Timeouts(stall=60, min_rate=0)),
        (5000, 1, Timeouts(stall=None)),
    ],
)
def test_SEC07_slow_but_steady_is_fine(pause: float, chunk: int, timeouts: Timeouts) -> None:
    total = 100 * chunk
    assert stream_slowly(pause, chunk, total, timeouts) == pytest.approx(101 * pause, rel=1e-3)


def test_SEC07_a_rate_just_below_the_least_is_not() -> None:
    with pytest.raises(SourceTimeoutError):
        stream_slowly(pause=1, chunk=1000, total=1_000_000, timeouts=Timeouts(stall=60))


def test_SEC07_a_small_body_may_take_its_window() -> None:
    assert stream_slowly(
        pause=20, chunk=10, total=20, timeouts=Timeouts(stall=61)
    ) == pytest.approx(60)


def test_SEC07_a_slow_reader_is_not_held_against_the_source() -> None:
    total = SMALL_BLOB + 10 * 70_000
    seconds = stream_slowly(
        pause=0.001, chunk=70_000, total=total, timeouts=Timeouts(stall=60), reader_pause=1000
    )
    assert seconds > 60_000


async def test_a_timeout_of_the_source_itself_is_told_as_such(
    session: Session, ledger: Ledger
) -> None:
    wire = Wire(DATA, ledger, breaks=10, error=lambda: TimeoutError("theirs"))
    _, error = await fail(VerifiedStream(describe(DATA), [wire], session))
    assert isinstance(error, SourceTimeoutError)
    assert "theirs" in str(error)


async def test_the_deadline_of_the_caller_stays_the_callers(ledger: Ledger) -> None:
    async with Session() as session:
        wire = Wire(DATA, ledger, pause=3600)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0), VerifiedStream(describe(DATA), [wire], session) as s:
                await anext(s)
    assert not isinstance(caught.value, SupplementedError)
    assert ledger.left_open == 0
