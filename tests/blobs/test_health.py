"""Health: a source that failed is asked last for a while, and none is ever left out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.breaker import BreakerPolicy, BreakerState
from asupplemented.aio.retry import CLOCK
from asupplemented.blobs.health import (
    MAX_PRINCIPALS,
    MAX_REMEMBERED,
    SessionHealth,
    SourceHealth,
    health_of,
)
from asupplemented.blobs.stream import VerifiedStream
from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    ConfigurationError,
    DigestMismatchError,
    ForbiddenError,
    MalformedResponseError,
    NetworkError,
    PermissionDeniedError,
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
from asupplemented.session import Session
from tests.breaking_sources import Source, Turn, claiming, session_on
from tests.candidates import DATA, Ledger, describe, drain, fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.clocks import FakeClock

SIZE = len(DATA)
SERVE = claiming([Turn()], SIZE)
DOWN = claiming([Turn("down")], SIZE)


A = "docker://mirror.example:5000/copies/a:1"
B = "docker://mirror.example:5000/copies/b:1"
ELSEWHERE = "docker://mirror.example/copies/a:1"
CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN
GONE = NetworkError("x")


@pytest.fixture
def records(clock: FakeClock) -> SessionHealth:
    return SessionHealth(clock.clock, BreakerPolicy())


@pytest.fixture
def health(records: SessionHealth) -> SourceHealth:
    return records.of(None)


def named(*names: str) -> list[Source]:
    return [Source(b"", [Turn()], Ledger(), name=name) for name in names]


FAILURES: list[tuple[SupplementedError, float | None, float | None]] = [
    (NetworkError("x"), 10, 10),
    (SourceTimeoutError("x"), 10, 10),
    (TruncatedError("x"), 10, None),
    (PermissionDeniedError("x"), 10, None),
    (ServerError("x", status=500), 10, None),
    (UnexpectedStatusError("x", status=408), 10, None),
    (MalformedResponseError("x", status=206), 10, None),
    (TooManyRequestsError("x", status=429), 10, None),
    (TooManyRequestsError("x", status=429, retry_after=100.0), 100, None),
    (TooManyRequestsError("x", status=429, retry_after=1e9), 300, None),
    (DigestMismatchError("x"), 300, None),
    (SizeMismatchError("x"), 300, None),
    (BlobNotFoundError("x"), None, None),
    (UnauthorizedError("x", status=401), None, None),
    (ForbiddenError("x", status=403), None, None),
    (UnexpectedStatusError("x", status=404), None, None),
    (UnexpectedStatusError("x", status=416), None, None),
    (RangeError("x"), None, None),
    (ConfigurationError("x"), None, None),
    (ClosedError("x"), None, None),
]


@pytest.mark.parametrize(
    ("failure", "source", "host"), FAILURES, ids=lambda each: type(each).__name__
)
def test_how_long_a_failure_opens_the_source_and_its_host(
    health: SourceHealth,
    clock: FakeClock,
    failure: SupplementedError,
    source: float | None,
    host: float | None,
) -> None:
    health.record_failure(A, failure)
    assert health.state(ELSEWHERE) is CLOSED
    start = clock.time
    for reference, pause in ((A, source), (B, host)):
        clock.time = start
        if pause is None:
            assert health.state(reference) is CLOSED
            continue
        assert health.remaining(reference) == pause
        clock.time = start + pause - 0.1
        assert health.state(reference) is OPEN
        clock.time = start + pause + 0.1
        assert health.state(reference) is HALF_OPEN


ANSWERS = [
    ServerError("x", status=503),
    UnauthorizedError("x", status=401),
    BlobNotFoundError("x"),
    DigestMismatchError("x"),
    None,
]


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
def test_a_host_that_answers_is_there_whatever_it_says(
    health: SourceHealth, answer: SupplementedError | None
) -> None:
    health.record_failure(A, GONE)
    assert health.state(B) is OPEN
    if answer is None:
        health.record_success(B)
        assert health.state(B) is CLOSED
    else:
        health.record_failure(B, answer)
    assert health.state(B.replace("/b:", "/c:")) is CLOSED
    assert health.state(A) is OPEN, "the image that failed has not been asked again"


@pytest.mark.parametrize(
    "silence", [TruncatedError("x"), PermissionDeniedError("x"), ClosedError("x")]
)
def test_what_says_nothing_of_a_host_does_not_close_it(
    health: SourceHealth, silence: SupplementedError
) -> None:
    health.record_failure(A, GONE)
    health.record_failure(B, silence)
    assert health.state(B) is OPEN


def test_one_caller_probes_a_host_for_all_its_images(
    health: SourceHealth, clock: FakeClock
) -> None:
    health.record_failure(A, GONE)
    clock.time += 10
    mirrored = named(B, "docker://registry.example/b:1")
    assert [health.choose(mirrored) for _ in range(2)] == [0, 1]
    assert health.state(A) is OPEN
    health.record_failure(B, GONE)
    assert health.remaining(A) == 20


def test_the_outcome_of_a_request_is_recorded(health: SourceHealth, clock: FakeClock) -> None:
    with pytest.raises(NetworkError), health.recording(A):
        raise GONE
    assert health.state(B) is OPEN
    clock.time += 10
    probing = health.recording(B)
    probing.__enter__()
    assert health.state(A) is OPEN, "one request finds out, and the others do not wait"
    cancelled = asyncio.CancelledError()
    assert not probing.__exit__(type(cancelled), cancelled, None)
    assert health.state(B) is HALF_OPEN
    with health.recording(A):
        pass
    assert health.state(A) is health.state(B) is CLOSED


@pytest.mark.parametrize("reference", ["a", "oci:/srv/app:1", "oci:/a://b/c", "docker://short"])
def test_a_reference_without_a_host_stands_for_itself(health: SourceHealth, reference: str) -> None:
    health.record_failure(reference, GONE)
    assert health.state(reference) is OPEN
    assert health.state(f"{reference}2") is CLOSED


def test_the_first_source_that_is_not_open_is_chosen_else_the_first_one(
    health: SourceHealth,
) -> None:
    sources = named("a", "b", "c")
    for position, source in enumerate(sources):
        assert health.choose(sources) == position
        assert health.has_usable(sources)
        health.record_failure(source.reference, GONE)
    assert health.choose(sources) == 0
    assert not health.has_usable(sources)
    health.record_success("c")
    assert health.choose(sources) == 2


def test_one_reader_probes_a_source_when_the_pause_is_over(
    health: SourceHealth, clock: FakeClock
) -> None:
    sources = named("a", "b")
    health.record_failure("a", GONE)
    clock.time += 10
    assert [health.choose(sources) for _ in range(3)] == [0, 1, 1]
    health.release("a")
    assert [health.choose(sources) for _ in range(3)] == [0, 1, 1]
    health.record_success("a")
    assert [health.choose(sources) for _ in range(3)] == [0, 0, 0]


def test_one_source_says_nothing_about_another(health: SourceHealth) -> None:
    health.record_failure("a", DigestMismatchError("x"))
    assert health.state("b") is CLOSED
    health.record_success("b")
    health.release("b")
    assert health.state("a") is OPEN


def test_the_sources_that_are_remembered_have_a_bound(health: SourceHealth) -> None:
    for number in range(MAX_REMEMBERED + 1):
        health.record_failure(f"s{number}", GONE)
    assert health.state("s0") is CLOSED
    assert health.state("s1") is OPEN
    health.record_failure("s1", GONE)
    health.record_failure("new", GONE)
    assert health.state("s1") is OPEN
    assert health.state("s2") is CLOSED


# Principals


def test_SEC13_failures_of_one_principal_open_nothing_for_another(
    records: SessionHealth,
) -> None:
    mallory, alice, session = (records.of(each) for each in ("mallory", "alice", None))
    for failure in (GONE, DigestMismatchError("x"), TooManyRequestsError("x", status=429)):
        mallory.record_failure(A, failure)
        assert mallory.state(A) is OPEN
        assert alice.state(A) is session.state(A) is CLOSED
    alice.record_failure(A, GONE)
    mallory.record_success(A)
    assert (mallory.state(B), alice.state(B), session.state(B)) == (CLOSED, OPEN, CLOSED)


def test_SEC13_failures_of_one_principal_push_out_none_of_another(
    records: SessionHealth,
) -> None:
    alice, mallory = records.of("alice"), records.of("mallory")
    alice.record_failure("a", GONE)
    for number in range(2 * MAX_REMEMBERED):
        mallory.record_failure(f"s{number}", GONE)
    assert alice.state("a") is OPEN


def test_the_principals_that_are_remembered_have_a_bound(records: SessionHealth) -> None:
    for number in range(MAX_PRINCIPALS + 1):
        records.of(f"p{number}").record_failure("a", GONE)
        records.of(f"healthy{number}").record_success("a")
    assert records.of("p0").state("a") is CLOSED
    assert records.of("p1").state("a") is OPEN


async def test_SEC13_views_of_a_session_have_the_health_of_their_principal(
    clock: FakeClock,
) -> None:
    async with session_on(clock) as session:
        health_of(session.scoped("mallory")).record_failure(A, GONE)
        assert health_of(session.scoped("mallory")).state(B) is OPEN
        assert health_of(session.scoped("alice")).state(B) is CLOSED
        assert health_of(session).state(B) is CLOSED


async def test_the_policy_is_a_setting_of_the_session(clock: FakeClock) -> None:
    async with Session(settings=[BreakerPolicy(pause=1.0)]) as session:
        session.resource(CLOCK, lambda: clock.clock)
        health_of(session).record_failure("a", GONE)
        assert health_of(session).remaining("a") == 1.0


# With streams


def cast(ledger: Ledger, *scripts: Sequence[Turn]) -> list[Source]:
    return [
        Source(DATA, script, ledger, name, number, 300)
        for number, (name, script) in enumerate(zip("abc", scripts, strict=False))
    ]


async def test_a_source_that_failed_is_asked_last_until_a_probe_succeeds(
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


async def test_an_open_source_is_asked_where_no_other_serves(
    clock: FakeClock, ledger: Ledger
) -> None:
    sources = cast(ledger, [*DOWN, *SERVE], claiming([Turn("miss")], SIZE))
    async with session_on(clock) as session:
        await fail(VerifiedStream(describe(DATA), sources, session))
        assert health_of(session).state("a") is OPEN
        assert await drain(VerifiedStream(describe(DATA), sources, session)) == DATA
        assert health_of(session).state("a") is CLOSED
    assert ledger.names == ["a", "b", "b", "a"]


async def test_while_one_reader_probes_the_others_are_served_by_others(
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
        assert health_of(session).state("a") is CLOSED


@pytest.mark.parametrize("how", ["left", "cancelled", "missed"])
async def test_a_probe_without_an_outcome_leaves_the_next_caller_to_probe(
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
                assert health.state("a") is OPEN
        else:
            entering = asyncio.create_task(stream.__aenter__())
            await asyncio.sleep(0)
            assert health.state("a") is OPEN
            entering.cancel()
            await asyncio.wait([entering])
        assert health.state("a") is HALF_OPEN


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
        assert health_of(session).state("a") is HALF_OPEN


async def test_a_source_that_breaks_off_and_is_resumed_is_closed_again(
    clock: FakeClock, ledger: Ledger
) -> None:
    sources = cast(ledger, claiming([Turn("reset", 100), Turn()], SIZE), SERVE)
    async with session_on(clock) as session:
        assert await drain(VerifiedStream(describe(DATA), sources, session)) == DATA
        assert health_of(session).state("a") is CLOSED
