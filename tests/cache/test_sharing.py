"""Shared fetches: one fetch upstream, any number of readers, each at its own pace."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asupplemented.abc import AsyncResource, Spool
from asupplemented.aio.files import SharedFile
from asupplemented.aio.retry import CLOCK
from asupplemented.cache import shared_fetch, sharing
from asupplemented.cache.sharing import SHARING, Sharing, open_stream
from asupplemented.cache.spool import SPOOL_MEMORY, MemorySpool, SpoolMemory, TemporarySpool
from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    DigestMismatchError,
    FailoverError,
    LimitExceededError,
    NetworkError,
    SourceError,
    SupplementedError,
)
from asupplemented.events import BlobJoined, BlobServed, BlobStarted, Event, Warned
from asupplemented.limits import KIB, MAX_BLOB, MIB
from asupplemented.session import Session
from tests.cache.fleet import Buffer, Shelf
from tests.candidates import DATA, LARGE, WRONG, Body, Ledger, Wire, describe, drain, fail
from tests.clocks import FakeClock
from tests.suspending import cancel_at_every_await, count_open_files, settle, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from asupplemented.abc import BlobCandidate, Context
    from asupplemented.blobs.stream import VerifiedStream
    from asupplemented.model.descriptor import Descriptor

VERY_LARGE = random.Random(2).randbytes(12 * MIB)


class Gate:
    """Holds back a body at an offset until it is opened."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()


class GatedWire(Wire):
    """A candidate whose body waits at a gate."""

    gate: Gate

    def open(self, start: int = 0, end: int | None = None, etag: str | None = None) -> GatedBody:
        self.ledger.asked.append((self.name, start, end))
        return GatedBody(self, start, end)


class GatedBody(Body):
    async def __anext__(self) -> bytes:
        assert isinstance(self.wire, GatedWire)
        gate = self.wire.gate
        if self._position >= gate.at:
            gate.reached.set()
            await gate.opened.wait()
        return await super().__anext__()


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
async def session(told: list[Event]) -> AsyncIterator[Session]:
    async with Session(hooks=[told.append]) as session:
        session.resource(CLOCK, lambda: FakeClock().clock)
        session.resource(SPOOL_MEMORY, lambda: SpoolMemory(3 * MIB))  # larger blobs need a file
        yield session


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def gated(data: bytes, ledger: Ledger, at: int, **options: object) -> GatedWire:
    wire = GatedWire(data, ledger, sizes=(100 * KIB,), **options)  # type: ignore[arg-type]
    wire.gate = Gate(at)
    return wire


def fetches(session: Session) -> Sharing:
    return session.resource(SHARING, Sharing)


def opened(
    data: bytes, candidates: Sequence[BlobCandidate], session: Context, *, sized: bool = True
) -> VerifiedStream:
    return open_stream(describe(data, sized=sized), candidates, session)


@pytest.mark.parametrize("data", [b"", b"x", DATA, LARGE], ids=len)
@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("readers", [1, 2, 30])
async def test_many_readers_share_one_fetch(
    session: Session, ledger: Ledger, data: bytes, readers: int, *, sized: bool
) -> None:
    wires = [Wire(data, ledger, sizes=(70_000, 3, 300_000)) for _ in range(readers)]
    streams = [opened(data, [wire], session, sized=sized) for wire in wires]
    outcomes = await asyncio.gather(*(drain(s, turns=n) for n, s in enumerate(streams)))
    assert outcomes == [data] * readers
    assert all(stream.verified for stream in streams)
    assert {(stream.received, stream.size) for stream in streams} == {(len(data), len(data))}
    assert ledger.asked == [("wire", 0, None)]
    assert ledger.left_open == 0
    assert ledger.holds == 0
    assert repr(fetches(session)).endswith(" 0 can be joined>")


async def test_the_first_reader_streams_at_once_and_late_ones_read_what_is_there(
    session: Session, ledger: Ledger
) -> None:
    wire = gated(LARGE, ledger, at=2 * MIB)
    async with opened(LARGE, [wire], session) as first:
        early = b""
        while len(early) < MIB:
            early += await anext(first)
        await wire.gate.reached.wait()
        async with opened(LARGE, [wire], session) as second:
            late = b""
            while len(late) < 2 * MIB:
                late += await anext(second)
            assert second.verified is None
            wire.gate.opened.set()
            assert late + b"".join([chunk async for chunk in second]) == LARGE
        assert early + b"".join([chunk async for chunk in first]) == LARGE
    assert ledger.names == ["wire"]


@pytest.mark.parametrize("memory", [0, 3 * MIB, 7 * MIB, 64 * MIB])
@pytest.mark.parametrize("at", [MIB, 6 * MIB, len(VERY_LARGE) - MIB])
async def test_a_reader_that_joins_late_gets_all_of_it_from_memory_or_from_a_file(
    session: Session, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, memory: int, at: int
) -> None:
    files: list[SharedFile] = []
    make = SharedFile.temporary

    def note(directory: str | None) -> SharedFile:
        files.append(make(directory))
        return files[-1]

    monkeypatch.setattr(SharedFile, "temporary", note)
    budget = session.resource(SPOOL_MEMORY, SpoolMemory)
    budget.free = memory
    wire = gated(VERY_LARGE, ledger, at=at)
    async with opened(VERY_LARGE, [wire], session) as first:
        early = asyncio.create_task(first.read_all(len(VERY_LARGE)))
        await wire.gate.reached.wait()
        late = asyncio.create_task(drain(opened(VERY_LARGE, [wire], session)))
        await settle(20)
        wire.gate.opened.set()
        assert await late == await early == VERY_LARGE
    assert ledger.names == ["wire"]
    assert len(files) == (memory < len(VERY_LARGE))
    assert budget.free == memory


async def test_nobody_sees_the_end_before_it_is_right(session: Session, ledger: Ledger) -> None:
    wrong = LARGE[:-1] + bytes((LARGE[-1] ^ 1,))
    wire = Wire(wrong, ledger, sizes=(100 * KIB,), member=1)

    async def read() -> int:
        received, error = await fail(opened(LARGE, [wire], session))
        assert isinstance(error, DigestMismatchError)
        assert error.suspects == (1,)
        return len(received)

    received = await asyncio.gather(*(read() for _ in range(5)))
    assert all(each < len(LARGE) for each in received)
    assert ledger.names == ["wire"]


async def test_the_same_error_reaches_every_waiter_as_a_copy_of_its_own(
    session: Session, ledger: Ledger
) -> None:
    refusals = [NetworkError("down"), SourceError("gone")]
    wires = [Wire(b"", ledger, name=f"w{n}", refuses=e) for n, e in enumerate(refusals)]
    streams = [opened(LARGE, wires, session) for _ in range(4)]
    outcomes = await asyncio.gather(*(drain(s) for s in streams), return_exceptions=True)
    assert {str(outcome) for outcome in outcomes} == {str(outcomes[0])}
    assert all(isinstance(outcome, FailoverError) for outcome in outcomes)
    assert len({id(outcome) for outcome in outcomes}) == 4
    assert ledger.names == ["w0", "w1"]


async def test_a_failure_is_not_remembered(session: Session, ledger: Ledger) -> None:
    with pytest.raises(BlobNotFoundError):
        await drain(opened(DATA, [Wire(b"", ledger, refuses=BlobNotFoundError("x"))], session))
    assert await drain(opened(DATA, [Wire(DATA, ledger)], session)) == DATA


async def test_a_foreign_error_reaches_every_waiter(session: Session, ledger: Ledger) -> None:
    wire = Wire(LARGE, ledger, breaks=MIB, error=ZeroDivisionError)
    streams = [opened(LARGE, [wire], session) for _ in range(3)]
    outcomes = await asyncio.gather(*(drain(s) for s in streams), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError] * 3
    assert ledger.left_open == ledger.holds == 0


async def test_who_served_is_told_to_every_reader_by_its_own_numbers(
    session: Session, ledger: Ledger, told: list[Event]
) -> None:
    first = Wire(LARGE, ledger, name="a", member=1, breaks=MIB, claims=len(LARGE))
    second = Wire(LARGE, ledger, name="b", member=2)
    elsewhere = Wire(LARGE, ledger, name="b", member=7)
    leader = opened(LARGE, [first, second], session)
    follower = opened(LARGE, [elsewhere], session)
    async with leader, follower:
        assert [await s.read_all(len(LARGE)) for s in (leader, follower)] == [LARGE] * 2
    assert [(p.reference, p.member, p.start, p.end) for p in leader.served] == [
        ("a", 1, 0, MIB),
        ("b", 2, MIB, len(LARGE)),
    ]
    assert [(p.reference, p.member) for p in follower.served] == [("a", None), ("b", 7)]
    assert (leader.member, follower.member) == (2, 7)
    assert sum(isinstance(event, BlobJoined) for event in told) == 1
    started = [(e.reference, e.start) for e in told if isinstance(e, BlobStarted)]
    assert started == [("a", 0), ("a", MIB), ("b", MIB)]
    assert sum(isinstance(event, BlobServed) for event in told) == 2


# Leaving


async def test_a_leading_reader_that_leaves_does_not_stop_the_others(
    session: Session, ledger: Ledger
) -> None:
    wire = gated(LARGE, ledger, at=MIB)
    leader = opened(LARGE, [wire], session)
    await leader.__aenter__()
    await anext(leader)
    follower = asyncio.create_task(drain(opened(LARGE, [wire], session)))
    await wire.gate.reached.wait()
    await leader.aclose()
    wire.gate.opened.set()
    assert await follower == LARGE
    assert ledger.names == ["wire"]
    assert ledger.left_open == ledger.holds == 0


async def test_the_last_reader_that_leaves_stops_the_fetch(
    session: Session, ledger: Ledger
) -> None:
    wire = gated(LARGE, ledger, at=MIB)
    streams = [opened(LARGE, [wire], session) for _ in range(3)]
    for stream in streams:
        await stream.__aenter__()
    await wire.gate.reached.wait()
    for stream in streams:
        assert ledger.left_open == 1
        await stream.aclose()
    assert ledger.left_open == ledger.holds == 0
    assert repr(fetches(session)).endswith(" 0 can be joined>")


async def test_a_reader_that_never_reads_stalls_nobody(session: Session, ledger: Ledger) -> None:
    wire = Wire(VERY_LARGE, ledger, sizes=(MIB,))
    async with opened(VERY_LARGE, [wire], session) as idle:
        assert await drain(opened(VERY_LARGE, [wire], session)) == VERY_LARGE
        assert await idle.read_all(len(VERY_LARGE)) == VERY_LARGE
    assert ledger.names == ["wire"]


async def test_who_comes_when_all_is_there_reads_the_same_bytes(
    session: Session, ledger: Ledger
) -> None:
    wire = Wire(LARGE, ledger)
    async with opened(LARGE, [wire], session) as first:
        assert await first.read_all(len(LARGE)) == LARGE
        assert await drain(opened(LARGE, [wire], session)) == LARGE
        assert ledger.names == ["wire"]
    assert await drain(opened(LARGE, [wire], session)) == LARGE
    assert ledger.names == ["wire", "wire"]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_200_readers_join_and_leave_at_random(seed: int) -> None:
    async def run() -> None:
        dice = random.Random(seed)
        ledger = Ledger()
        data = dice.randbytes(300_000)
        wire = Wire(data, ledger, sizes=tuple(dice.randrange(1, 9000) for _ in range(60)))

        async def read() -> None:
            for _ in range(dice.randrange(200)):
                await asyncio.sleep(0)
            quits = dice.random() < 0.5
            received = b""
            async with opened(data, [wire], session) as stream:
                async for chunk in stream:
                    received += chunk
                    assert data.startswith(received)
                    if quits and dice.random() < 0.3:
                        return
                    if dice.random() < 0.3:
                        await asyncio.sleep(0)
            assert received == data

        async with Session() as session:
            tasks = [asyncio.create_task(read()) for _ in range(200)]
            for task in tasks:
                if dice.random() < 0.2:
                    for _ in range(dice.randrange(20)):
                        await asyncio.sleep(0)
                    task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(o) for o in outcomes} <= {type(None), asyncio.CancelledError}
            assert repr(fetches(session)).endswith(" 0 can be joined>")
            assert ledger.left_open == ledger.holds == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asupplemented.blobs.failover.SMALL_BLOB", -1)
        asyncio.run(run())


@pytest.mark.parametrize("data", [DATA, LARGE], ids=len)
async def test_SEC16_the_leader_is_cancelled_at_every_await(data: bytes) -> None:
    ledger = Ledger()
    before = count_open_files()

    async def run() -> None:
        wire = Wire(data, ledger, sizes=(len(data) // 5,))
        async with Session() as session:
            follower: asyncio.Task[bytes] | None = None

            async def follow() -> bytes:
                return await drain(opened(data, [wire], session))

            try:
                async with opened(data, [wire], session) as stream:
                    follower = asyncio.create_task(follow())
                    async for _ in stream:
                        pass
            finally:
                if follower is not None:
                    assert await asyncio.shield(follower) == data
                assert ledger.left_open == ledger.holds == 0

    async def check() -> None:
        assert ledger.left_open == ledger.holds == 0
        assert count_open_files() == before

    assert await cancel_at_every_await(run, check) >= 3


async def test_closing_the_session_ends_what_is_read(ledger: Ledger) -> None:
    session = Session()
    wire = gated(LARGE, ledger, at=MIB)
    stream = opened(LARGE, [wire], session)
    await stream.__aenter__()
    await wire.gate.reached.wait()
    await session.aclose()
    assert ledger.left_open == ledger.holds == 0
    with pytest.raises(ClosedError):
        async for _ in stream:
            pass
    await stream.aclose()


# Holding sources


async def test_sources_are_held_until_the_fetch_has_ended(session: Session, ledger: Ledger) -> None:
    wires = [gated(LARGE, ledger, at=MIB), Wire(LARGE, ledger)]
    async with opened(LARGE, wires, session) as stream:
        await wires[0].gate.reached.wait()  # type: ignore[union-attr]
        assert ledger.holds == 2
        wires[0].gate.opened.set()  # type: ignore[union-attr]
        await stream.read_all(len(LARGE))
    assert ledger.holds == 0


async def test_a_source_that_is_closed_cannot_be_held(session: Session, ledger: Ledger) -> None:
    class ClosedWire(Wire):
        def hold(self) -> AsyncResource:
            raise ClosedError("the source has been closed")

    wires = [Wire(DATA, ledger), ClosedWire(DATA, ledger)]
    with pytest.raises(ClosedError):
        await opened(DATA, wires, session).__aenter__()
    assert ledger.holds == 0
    assert repr(fetches(session)).endswith(" 0 can be joined>")


# What is not shared


def part_of(
    data: bytes, wire: Wire, session: Context, start: int, end: int | None = None
) -> VerifiedStream:
    return open_stream(describe(data), [wire], session, start=start, end=end)


@pytest.mark.parametrize(
    ("start", "end", "joins"),
    [
        (1, 5, True),
        (2 * MIB - 10, 2 * MIB + 10, True),
        (2 * MIB + MIB // 2, 2 * MIB + MIB // 2 + 5, True),
        (4 * MIB, 4 * MIB + 5, False),
        (4 * MIB, None, True),
        (1, len(LARGE), True),
        pytest.param(5, 5, True, id="empty"),
    ],
)
async def test_SRV26_a_part_follows_a_fetch_that_is_near(
    session: Session,
    ledger: Ledger,
    told: list[Event],
    start: int,
    end: int | None,
    *,
    joins: bool,
) -> None:
    wire = gated(LARGE, ledger, at=2 * MIB)
    async with opened(LARGE, [wire], session):
        await wire.gate.reached.wait()
        part = part_of(LARGE, wire, session, start, end)
        reading = asyncio.create_task(drain(part))
        await wait_until(lambda: reading.done() or len(ledger.asked) > 1 or waits(session))
        wire.gate.opened.set()
        assert await reading == LARGE[start:end]
        assert part.verified is False
        assert part.size == len(LARGE)
    alone = [] if joins else [("wire", start, end)]
    assert ledger.asked == [("wire", 0, None), *alone]
    assert ledger.left_open == ledger.holds == 0
    joined = [event for event in told if isinstance(event, BlobJoined)]
    assert len(joined) == (joins and start != end)


def waits(session: Session) -> bool:
    """Whether a second reader follows a fetch."""
    return any(len(fetch.readers) > 1 for fetch in fetches(session)._running)


async def test_SRV26_a_part_that_is_not_reached_in_time_is_asked_for(
    session: Session, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_fetch, "PATIENCE", 0.001)
    wire = gated(LARGE, ledger, at=2 * MIB)
    async with opened(LARGE, [wire], session):
        await wire.gate.reached.wait()
        other = Wire(LARGE, ledger)
        assert await drain(part_of(LARGE, other, session, 3 * MIB)) == LARGE[3 * MIB :]
        [fetch] = fetches(session)._running
        assert len(fetch.readers) == 1
    assert ledger.asked == [("wire", 0, None), ("wire", 3 * MIB, None)]


async def test_SRV26_several_parts_up_to_the_end_cost_one_fetch(
    session: Session, ledger: Ledger
) -> None:
    buffer = len(VERY_LARGE) // 8
    wire = Wire(VERY_LARGE, ledger, sizes=(100 * KIB,))

    async def read(start: int) -> bytes:
        data = b""
        async with part_of(VERY_LARGE, wire, session, start) as part:
            while len(data) < buffer:
                data += await anext(part)
        return data[:buffer]

    starts = range(0, len(VERY_LARGE), buffer)
    assert b"".join(await asyncio.gather(*map(read, starts))) == VERY_LARGE
    assert ledger.asked == [("wire", 0, None)]
    assert ledger.left_open == ledger.holds == 0


async def test_a_part_fails_as_the_fetch_does(session: Session, ledger: Ledger) -> None:
    wire = gated(LARGE, ledger, at=2 * MIB, breaks=2 * MIB, error=lambda: NetworkError("gone"))
    streams = opened(LARGE, [wire], session), part_of(LARGE, wire, session, 3 * MIB)
    reading = [asyncio.create_task(drain(stream)) for stream in streams]
    await wire.gate.reached.wait()
    await wait_until(lambda: waits(session))
    wire.gate.opened.set()
    outcomes = await asyncio.gather(*reading, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {NetworkError}
    assert ledger.left_open == ledger.holds == 0


async def test_a_reader_may_want_a_fetch_of_its_own(session: Session, ledger: Ledger) -> None:
    wire = Wire(LARGE, ledger)
    streams = [open_stream(describe(LARGE), [wire], session, shared=False) for _ in range(2)]
    assert [await drain(stream) for stream in streams] == [LARGE] * 2
    assert ledger.names == ["wire", "wire"]
    assert repr(fetches(session)).endswith(" 0 can be joined>")


async def test_who_expects_another_size_is_not_let_in(session: Session, ledger: Ledger) -> None:
    wire = gated(LARGE, ledger, at=MIB)
    async with opened(LARGE, [wire], session):
        other = describe(LARGE)
        other = type(other)(digest=other.digest, size=5)
        with pytest.raises(SupplementedError, match="announces"):
            await open_stream(other, [wire], session).__aenter__()


# Principals


async def test_SEC13_principals_do_not_share(session: Session, ledger: Ledger) -> None:
    wire = gated(LARGE, ledger, at=MIB)
    views: list[Context] = [session, session.scoped("alice"), session.scoped("bob")]
    streams = [opened(LARGE, [wire], view) for view in views]
    readers = [asyncio.create_task(drain(stream)) for stream in streams]
    same = asyncio.create_task(drain(opened(LARGE, [wire], session.scoped("alice"))))
    await wire.gate.reached.wait()
    wire.gate.opened.set()
    assert await asyncio.gather(*readers, same) == [LARGE] * 4
    assert ledger.names == ["wire"] * 3


@pytest.mark.parametrize("answer", [True, False])
@pytest.mark.parametrize("awaited", [True, False])
async def test_SEC13_principals_share_what_the_caller_says(
    ledger: Ledger, *, answer: bool, awaited: bool
) -> None:
    asked: list[tuple[str | None, str, Sequence[str]]] = []

    async def reply() -> bool:
        await asyncio.sleep(0)
        return answer

    def share(principal: str | None, blob: Descriptor, members: Sequence[str], /) -> object:
        asked.append((principal, blob.digest, members))
        return reply() if awaited else answer

    async with Session(share=share) as session:  # type: ignore[arg-type]
        wire = gated(LARGE, ledger, at=MIB)
        alice = asyncio.create_task(drain(opened(LARGE, [wire], session.scoped("alice"))))
        await wire.gate.reached.wait()
        bob = asyncio.create_task(drain(opened(LARGE, [wire], session.scoped("bob"))))
        for _ in range(10):
            await asyncio.sleep(0)
        wire.gate.opened.set()
        assert await asyncio.gather(alice, bob) == [LARGE] * 2
    digest = describe(LARGE).digest
    assert asked == [("alice", digest, ("wire",)), ("bob", digest, ("wire",))]
    assert ledger.names == (["wire"] if answer else ["wire", "wire"])


async def test_the_spool_is_told_what_the_slowest_reader_has_read(
    session: Session, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(TemporarySpool, "read_by_all", lambda _, position: told.append(position))
    wire = gated(VERY_LARGE, ledger, at=2 * MIB)
    async with opened(VERY_LARGE, [wire], session) as slow:
        begun = await anext(slow)
        fast = asyncio.create_task(drain(opened(VERY_LARGE, [wire], session)))
        wire.gate.opened.set()
        assert await fast == VERY_LARGE
        assert told[-1] == len(begun)
    assert ledger.names == ["wire"]


# Disks that are full


class FullSpool(Spool):
    """A spool that takes so many bytes and no more."""

    def __init__(self, inner: Spool, room: int) -> None:
        self.inner = inner
        self.room = room

    @property
    def length(self) -> int:
        return self.inner.length

    async def append(self, chunk: bytes) -> None:
        if self.length + len(chunk) > self.room:
            message = "cannot write: no space left on device"
            raise SourceError(message)
        await self.inner.append(chunk)

    async def read(self, start: int, size: int) -> bytes:
        return await self.inner.read(start, size)

    async def commit(self) -> None:
        pytest.fail("what is not whole is not committed")

    async def aclose(self) -> None:
        await self.inner.aclose()


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def limit(size: int) -> None:
        def make(context: Context, _: int | None) -> Spool:
            return FullSpool(TemporarySpool(context), size)

        monkeypatch.setattr(sharing, "make_spool", make)

    return limit


@pytest.mark.parametrize("size", [0, 1, MIB, 5 * MIB, len(VERY_LARGE) - 1])
@pytest.mark.parametrize("readers", [1, 3])
async def test_without_room_the_fetch_goes_on_in_memory(
    session: Session,
    ledger: Ledger,
    told: list[Event],
    room: Callable[[int], None],
    size: int,
    readers: int,
) -> None:
    room(size)
    wire = Wire(VERY_LARGE, ledger, sizes=(300 * KIB,))
    streams = [opened(VERY_LARGE, [wire], session) for _ in range(readers)]
    outcomes = await asyncio.gather(*(drain(stream) for stream in streams))
    assert outcomes == [VERY_LARGE] * readers
    assert ledger.left_open == ledger.holds == 0
    [warning] = [event for event in told if isinstance(event, Warned)]
    assert "no space left" in warning.message
    assert repr(fetches(session)).endswith(" 0 can be joined>")


async def test_without_room_a_reader_that_lags_goes_on_alone(
    session: Session, ledger: Ledger, room: Callable[[int], None]
) -> None:
    room(MIB)
    wire = Wire(VERY_LARGE, ledger, sizes=(300 * KIB,))
    async with opened(VERY_LARGE, [wire], session) as slow:
        begun = await anext(slow)
        assert await drain(opened(VERY_LARGE, [wire], session)) == VERY_LARGE
        assert ledger.names == ["wire"]
        rest = b"".join([chunk async for chunk in slow])
        assert begun + rest == VERY_LARGE
        assert slow.verified is True
    assert ledger.names == ["wire", "wire"]
    assert ledger.left_open == ledger.holds == 0


async def test_without_room_a_part_that_lags_goes_on_alone_where_it_is(
    session: Session, ledger: Ledger, room: Callable[[int], None]
) -> None:
    room(MIB)
    wire = Wire(VERY_LARGE, ledger, sizes=(300 * KIB,))
    async with opened(VERY_LARGE, [wire], session) as first:
        await anext(first)
        async with part_of(VERY_LARGE, wire, session, MIB, 11 * MIB) as part:
            begun = await anext(part)
            assert len(await first.read_all(len(VERY_LARGE))) > 0
            assert begun + await part.read_all(len(VERY_LARGE)) == VERY_LARGE[MIB : 11 * MIB]
    whole, (_, start, end) = ledger.asked
    assert whole == ("wire", 0, None)
    assert (start >= MIB + len(begun), end) == (True, 11 * MIB)


async def test_without_room_memory_is_bounded_by_the_window(
    session: Session, ledger: Ledger, room: Callable[[int], None]
) -> None:
    room(0)
    wire = Wire(VERY_LARGE, ledger, sizes=(300 * KIB,))
    async with opened(VERY_LARGE, [wire], session) as slow:
        await anext(slow)
        for _ in range(100):
            await asyncio.sleep(0)
        [fetch] = fetches(session)._running
        assert fetch.stored <= shared_fetch.WINDOW + MIB
        assert len(await slow.read_all(len(VERY_LARGE))) > 0


async def test_without_room_who_comes_too_late_has_a_fetch_of_its_own(
    session: Session, ledger: Ledger, room: Callable[[int], None]
) -> None:
    room(0)
    wire = gated(VERY_LARGE, ledger, at=8 * MIB)
    first = asyncio.create_task(drain(opened(VERY_LARGE, [wire], session)))
    await wire.gate.reached.wait()
    late = asyncio.create_task(drain(opened(VERY_LARGE, [wire], session)))
    await asyncio.sleep(0)
    wire.gate.opened.set()
    assert await asyncio.gather(first, late) == [VERY_LARGE] * 2
    assert ledger.names == ["wire", "wire"]


async def test_a_spool_that_cannot_be_read_is_passed_by(
    session: Session, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FullSpool):
        async def read(self, start: int, size: int) -> bytes:
            if start >= MIB:
                message = "cannot read: input/output error"
                raise SourceError(message)
            return await super().read(start, min(size, MIB - start))

        async def commit(self) -> None:
            """What cannot be read is kept all the same."""

    monkeypatch.setattr(sharing, "make_spool", lambda *_: Broken(MemorySpool(), 1 << 40))
    wire = Wire(LARGE, ledger)
    assert await drain(opened(LARGE, [wire], session)) == LARGE
    assert ledger.names == ["wire", "wire"]
    assert ledger.left_open == ledger.holds == 0


async def test_lying_in_a_small_blob_is_noticed_before_its_first_byte(
    session: Session, ledger: Ledger
) -> None:
    wires = [Wire(WRONG, ledger, name="liar"), Wire(DATA, ledger, name="honest")]
    streams = [opened(DATA, wires, session) for _ in range(3)]
    assert await asyncio.gather(*(drain(stream) for stream in streams)) == [DATA] * 3
    assert ledger.names == ["liar", "honest"]


@pytest.mark.parametrize("stuck", [False, True])
async def test_what_came_whole_is_kept_while_the_session_is_closed(
    stuck: bool,  # noqa: FBT001
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(Buffer):
        async def commit(self) -> None:
            if stuck:
                await asyncio.Event().wait()
            for _ in range(100):
                await asyncio.sleep(0)
            await super().commit()

    class Shelves(Shelf):
        async def claim(self, context: Context, blob: Descriptor) -> Spool:
            return Slow(self, (context.principal, blob.digest))

    monkeypatch.setattr(shared_fetch, "KEEPING", 0.01 if stuck else 60)
    shelf = Shelves()
    async with Session(cache=shelf) as session:
        stream = open_stream(describe(DATA), [Wire(DATA, ledger)], session)
        assert await drain(stream) == DATA
    assert list(shelf.blobs.values()) == ([] if stuck else [DATA])
    assert [spool.closed for spool in shelf.spools] == [True]


# Pace


class Wanting(Buffer):
    """A spool of a cache that wants the blob."""

    @property
    def wanted(self) -> bool:
        return True


@pytest.mark.parametrize("wanted", [False, True])
async def test_a_fetch_runs_ahead_of_its_fastest_reader_only_for_a_cache(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, *, wanted: bool
) -> None:
    class Shelves(Shelf):
        async def claim(self, context: Context, blob: Descriptor) -> Spool:
            return (Wanting if wanted else Buffer)(self, (context.principal, blob.digest))

    monkeypatch.setattr(shared_fetch, "AHEAD", 2 * MIB)
    wire = Wire(VERY_LARGE, ledger, sizes=(MIB,))
    async with Session(cache=Shelves()) as session:
        slow, slower = (opened(VERY_LARGE, [wire], session) for _ in range(2))
        async with slow, slower:
            [fetch] = fetches(session)._running
            for _ in range(3):
                await anext(slow)
                if not wanted:
                    await wait_until(lambda: fetch.stored - slow.received >= 2 * MIB)
                    for _ in range(100):
                        await asyncio.sleep(0)
                    assert fetch.stored - slow.received <= 3 * MIB
            if wanted:
                await wait_until(lambda: fetch.stored == len(VERY_LARGE))
            rest = len(VERY_LARGE) - slow.received
            assert len(await slow.read_all(rest)) == rest
            assert await slower.read_all(len(VERY_LARGE)) == VERY_LARGE


async def test_a_stranger_begins_to_read_when_the_fetch_waits_for_it(
    session: Session, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_fetch, "AHEAD", 2 * MIB)
    theirs = Wire(VERY_LARGE, ledger, name="docker://a/x", sizes=(MIB,))
    mine = Wire(VERY_LARGE, ledger, name="docker://b/x")
    leader = opened(VERY_LARGE, [theirs], session)
    await leader.__aenter__()
    stranger = asyncio.create_task(drain(opened(VERY_LARGE, [mine], session)))
    for _ in range(20):
        await asyncio.sleep(0)
    await leader.aclose()
    assert await stranger == VERY_LARGE
    assert ledger.left_open == ledger.holds == 0


async def test_BLOB09_an_announced_size_above_the_limit_is_refused_before_the_first_byte(
    session: Session, ledger: Ledger
) -> None:
    wire = Wire(DATA, ledger, claims=MAX_BLOB + 1)
    blob = describe(DATA)
    with pytest.raises(LimitExceededError) as caught:
        await drain(open_stream(type(blob)(digest=blob.digest), [wire], session))
    assert caught.value.limit == MAX_BLOB
    assert ledger.names == ["wire"]
    too_large = type(blob)(digest=blob.digest, size=MAX_BLOB + 1)
    for shared in (False, True):
        with pytest.raises(LimitExceededError):
            await drain(open_stream(too_large, [wire], session, shared=shared))
    assert ledger.names == ["wire"], "it is not asked"
    allowed = type(blob)(digest=blob.digest, size=MAX_BLOB)
    with pytest.raises(SupplementedError, match="announces"):
        await drain(open_stream(allowed, [Wire(DATA, ledger)], session))
