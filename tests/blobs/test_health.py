"""Health: who failed is asked last for a while, and nobody is ever left out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.breaker import BreakerPolicy, Fitness
from asupplemented.blobs.health import HEALTH, MAX_REMEMBERED, Health, health_of
from asupplemented.blobs.verified import VerifiedStream
from asupplemented.errors import (
    AccessError,
    BlobNotFoundError,
    DeniedError,
    DigestMismatchError,
    MalformedResponseError,
    NetworkError,
    RangeError,
    ServerError,
    SizeMismatchError,
    SourceTimeoutError,
    SupplementedError,
    TooManyRequestsError,
    TruncatedError,
    UnauthorizedError,
    UnexpectedStatusError,
)
from tests.breaking_sources import Source, Turn, claiming, session_on
from tests.candidates import DATA, Ledger, describe, drain, fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.clocks import FakeClock

SIZE = len(DATA)
SERVE = claiming([Turn()], SIZE)
DOWN = claiming([Turn("down")], SIZE)


@pytest.fixture
def health(clock: FakeClock) -> Health:
    return Health(clock.clock)


def named(*names: str) -> list[Source]:
    return [Source(b"", [Turn()], Ledger(), name=name) for name in names]


FAILURES: list[tuple[SupplementedError, float | None]] = [
    (NetworkError("x"), 10),
    (SourceTimeoutError("x"), 10),
    (TruncatedError("x"), 10),
    (AccessError("x"), 10),
    (ServerError("x", status=500), 10),
    (UnexpectedStatusError("x", status=408), 10),
    (MalformedResponseError("x", status=206), 10),
    (TooManyRequestsError("x", status=429), 10),
    (TooManyRequestsError("x", status=429, retry_after=100.0), 100),
    (TooManyRequestsError("x", status=429, retry_after=1e9), 300),
    (DigestMismatchError("x"), 300),
    (SizeMismatchError("x"), 300),
    (BlobNotFoundError("x"), None),
    (UnauthorizedError("x", status=401), None),
    (DeniedError("x", status=403), None),
    (UnexpectedStatusError("x", status=404), None),
    (UnexpectedStatusError("x", status=416), None),
    (RangeError("x"), None),
]


@pytest.mark.parametrize(("failure", "pause"), FAILURES, ids=lambda each: type(each).__name__)
def test_how_long_a_failure_puts_aside(
    health: Health, clock: FakeClock, failure: SupplementedError, pause: float | None
) -> None:
    [source] = named("a")
    health.blame(source, failure)
    if pause is None:
        assert health.judge("a") is Fitness.FIT
        return
    assert health.judge("a") is Fitness.ASIDE
    clock.time += pause - 0.1
    assert health.judge("a") is Fitness.ASIDE
    clock.time += 0.2
    assert health.judge("a") is Fitness.ON_PROBATION


def test_the_first_one_that_is_fit_is_chosen_else_the_first_one(
    health: Health, clock: FakeClock
) -> None:
    a, b, c = sources = named("a", "b", "c")
    assert health.choose(sources) == 0
    health.blame(a, NetworkError("x"))
    assert health.choose(sources) == 1
    health.blame(b, NetworkError("x"))
    assert health.choose(sources) == 2
    health.blame(c, NetworkError("x"))
    assert health.choose(sources) == 0
    health.praise(c)
    assert health.choose(sources) == 2


def test_a_pause_that_is_over_has_one_reader_try(health: Health, clock: FakeClock) -> None:
    a, _ = sources = named("a", "b")
    health.blame(a, NetworkError("x"))
    clock.time += 10
    assert [health.choose(sources) for _ in range(3)] == [0, 1, 1]
    health.leave(a)
    assert [health.choose(sources) for _ in range(3)] == [0, 1, 1]
    health.praise(a)
    assert [health.choose(sources) for _ in range(3)] == [0, 0, 0]


def test_one_source_says_nothing_about_another(health: Health) -> None:
    a, b = named("a", "b")
    health.blame(a, DigestMismatchError("x"))
    assert health.judge("b") is Fitness.FIT
    health.praise(b)
    health.leave(b)
    assert health.judge("a") is Fitness.ASIDE


def test_what_is_remembered_has_a_bound(health: Health) -> None:
    for number in range(MAX_REMEMBERED + 1):
        health.blame(*named(f"s{number}"), NetworkError("x"))
    assert health.judge("s0") is Fitness.FIT
    assert health.judge("s1") is Fitness.ASIDE
    health.blame(*named("s1"), NetworkError("x"))
    health.blame(*named("new"), NetworkError("x"))
    assert health.judge("s1") is Fitness.ASIDE
    assert health.judge("s2") is Fitness.FIT


async def test_who_makes_it_first_decides_on_the_policy(clock: FakeClock) -> None:
    async with session_on(clock) as session:
        session.resource(HEALTH, lambda: Health(clock.clock, BreakerPolicy(pause=1.0)))
        [source] = named("a")
        health_of(session).blame(source, NetworkError("x"))
        clock.time += 1
        assert health_of(session).judge("a") is Fitness.ON_PROBATION


# With streams


def cast(ledger: Ledger, *scripts: Sequence[Turn]) -> list[Source]:
    return [
        Source(DATA, script, ledger, name, number, 300)
        for number, (name, script) in enumerate(zip("abc", scripts, strict=False))
    ]


async def test_who_failed_is_asked_last_until_a_probe_goes_well(
    clock: FakeClock, ledger: Ledger
) -> None:
    sources = cast(ledger, [*DOWN * 2, *SERVE], SERVE)
    async with session_on(clock) as session:

        async def read() -> list[str]:
            ledger.asked.clear()
            assert await drain(VerifiedStream(describe(DATA), sources, session)) == DATA
            return ledger.names

        assert await read() == ["a", "b"]
        assert await read() == ["b"]
        clock.time += 10
        assert await read() == ["a", "b"]
        clock.time += 19
        assert await read() == ["b"]
        clock.time += 1
        assert await read() == ["a"]
        assert await read() == ["a"]


async def test_nobody_is_left_out_where_nobody_else_serves(
    clock: FakeClock, ledger: Ledger
) -> None:
    sources = cast(ledger, [*DOWN, *SERVE], claiming([Turn("miss")], SIZE))
    async with session_on(clock) as session:
        await fail(VerifiedStream(describe(DATA), sources, session))
        assert health_of(session).judge("a") is Fitness.ASIDE
        assert await drain(VerifiedStream(describe(DATA), sources, session)) == DATA
        assert health_of(session).judge("a") is Fitness.FIT
    assert ledger.names == ["a", "b", "b", "a"]


async def test_while_one_reader_tries_the_others_are_served_by_others(
    clock: FakeClock, ledger: Ledger
) -> None:
    sources = cast(ledger, [*DOWN, *SERVE], SERVE)
    async with session_on(clock) as session:
        await drain(VerifiedStream(describe(DATA), sources, session))
        clock.time += 10
        ledger.asked.clear()
        async with VerifiedStream(describe(DATA), sources, session) as probing:
            assert probing.member == 0
            assert await drain(VerifiedStream(describe(DATA), sources, session)) == DATA
            assert ledger.names == ["a", "b"]
            clock.time += 10  # it takes its time, which is no bad sign
            async with VerifiedStream(describe(DATA), sources, session) as another:
                assert another.member == 0
            await probing.read_all(SIZE)
        assert health_of(session).judge("a") is Fitness.FIT


@pytest.mark.parametrize("how", ["left", "cancelled", "missed"])
async def test_a_probe_that_says_nothing_leaves_its_place_to_the_next(
    clock: FakeClock, ledger: Ledger, how: str
) -> None:
    third = claiming([Turn("miss")], SIZE) if how == "missed" else SERVE
    sources = cast(ledger, [*DOWN, *third], SERVE)
    async with session_on(clock) as session:
        health = health_of(session)
        await drain(VerifiedStream(describe(DATA), sources, session))
        clock.time += 10
        stream = VerifiedStream(describe(DATA), sources, session)
        if how == "missed":
            await drain(stream)
        elif how == "left":
            async with stream:
                assert stream.member == 0
                assert health.judge("a") is Fitness.ASIDE
        else:
            entering = asyncio.create_task(stream.__aenter__())
            await asyncio.sleep(0)
            assert health.judge("a") is Fitness.ASIDE
            entering.cancel()
            await asyncio.wait([entering])
        assert health.judge("a") is Fitness.ON_PROBATION


async def test_streams_that_break_off_together_are_one_failure(
    clock: FakeClock, ledger: Ledger
) -> None:
    async with session_on(clock) as session:
        broken = claiming([Turn("reset", 100)], SIZE)
        streams = [
            VerifiedStream(describe(DATA), cast(ledger, broken, SERVE), session) for _ in range(6)
        ]
        for stream in streams:
            await stream.__aenter__()
        assert [stream.member for stream in streams] == [0] * 6
        for stream in streams:
            assert await stream.read_all(SIZE) == DATA
            await stream.aclose()
        clock.time += 10
        assert health_of(session).judge("a") is Fitness.ON_PROBATION


async def test_a_source_that_breaks_off_and_goes_on_well_is_fit_again(
    clock: FakeClock, ledger: Ledger
) -> None:
    sources = cast(ledger, claiming([Turn("reset", 100), Turn()], SIZE), SERVE)
    async with session_on(clock) as session:
        assert await drain(VerifiedStream(describe(DATA), sources, session)) == DATA
        assert health_of(session).judge("a") is Fitness.FIT
