"""The relay: no byte twice, none lost, and no wrong byte ever completes a blob."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.abc import Served
from asupplemented.aio.breaker import BreakerState
from asupplemented.blobs import failover
from asupplemented.blobs.health import health_of
from asupplemented.blobs.history import ResumptionPolicy
from asupplemented.blobs.read_ahead import verified_files
from asupplemented.blobs.stream import VerifiedStream
from asupplemented.errors import (
    ClosedError,
    DigestMismatchError,
    FailoverError,
    NetworkError,
    RangeError,
    SizeMismatchError,
    SourceError,
    SourceTimeoutError,
    SupplementedError,
)
from asupplemented.events import AttemptFailed, BlobServed, BlobStarted, Event
from asupplemented.limits import MIB, SMALL_BLOB
from asupplemented.model.digest import Digest
from asupplemented.session import Session
from tests.breaking_sources import Source, Turn, claiming, copy_of, serve_serially, session_on
from tests.candidates import Disk, Ledger, describe, drain, fail
from tests.clocks import FakeClock
from tests.suspending import cancel_at_every_await, count_open_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from asupplemented.abc import BlobCandidate, BlobFile
    from tests.breaking_sources import Kind

TINY = bytes(range(24))
LARGE = random.Random(3).randbytes(SMALL_BLOB + 2 * MIB + 11)
SERVE = Turn()


@pytest.fixture
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blobs are handed out as large ones are."""
    monkeypatch.setattr(failover, "SMALL_BLOB", -1)


held_or_not = pytest.mark.parametrize("held_back", [True, False], ids=["small", "large"])


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 0x55,)) + data[at + 1 :]


@dataclass
class BrokenDisk(Disk):
    """A file that is shorter than it says, as one is that is cut while it is read."""

    cut: int = 0

    async def open_file(self) -> BlobFile | None:
        whole = self.path.read_bytes()
        short = self.path.with_name(f"{self.path.name}-{self.name}")
        short.write_bytes(whole[: self.cut])
        file = await replace(self, path=short, size=len(whole)).open_plainly()
        short.unlink()
        return file

    async def open_plainly(self) -> BlobFile | None:
        return await Disk.open_file(self)


# Cut anywhere, whoever goes on


def breaking(kind: str, cut: int, path: Path, session: Session, ledger: Ledger) -> BlobCandidate:
    """A candidate of a kind that breaks off for good at an offset, None for not at all."""
    turns: list[Turn] = [SERVE if cut < 0 else Turn("reset", cut)]
    match kind:
        case "wire":
            return Source(TINY, claiming(turns, len(TINY)), ledger, name=kind, member=1)
        case "wire without size":
            return Source(TINY, turns, ledger, name=kind, member=1, chunk=5)
        case "file" if cut >= 0:
            return BrokenDisk(path, session, name=kind, member=2, cut=cut)
        case "file":
            return Disk(path, session, name=kind, member=2)
        case _ if cut >= 0:
            return Source(TINY, [Turn("fin", cut, claims=24)], ledger, name=kind, member=3)
        case _:
            return Disk(path.with_name("proven"), session, name=kind, member=3)


@pytest.mark.parametrize("sized", [True, False], ids=["sized", "unsized"])
@pytest.mark.parametrize("order", list(itertools.permutations(("wire", "file", "proven"))))
@held_or_not
async def test_RES07_cut_at_every_byte_in_every_order_nothing_is_lost_or_doubled(
    order: tuple[str, ...],
    ledger: Ledger,
    clock: FakeClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    held_back: bool,
    sized: bool,
) -> None:
    monkeypatch.setattr(failover, "SMALL_BLOB", 1000 if held_back else -1)
    clock.epoch = 1e11  # files are old, so what was verified is believed
    path = tmp_path / "blob"
    for name in ("blob", "proven"):
        path.with_name(name).write_bytes(TINY)
    async with session_on(clock) as session:
        await drain(VerifiedStream(describe(TINY), [Disk(tmp_path / "proven", session)], session))
        files = count_open_files()
        for first in range(len(TINY) + 1):
            second = (first + len(TINY)) // 2
            clock.time += 1000
            candidates = [
                breaking(kind, cut, path, session, ledger)
                for kind, cut in zip(order, (first, second, -1), strict=True)
            ]
            stream = VerifiedStream(describe(TINY, sized=sized), candidates, session)
            assert await drain(stream) == TINY
            assert stream.verified is True
            assert [part.start for part in stream.served] == [
                0,
                *(part.end for part in stream.served[:-1]),
            ]
            assert stream.served[-1].end == len(TINY)
            assert ledger.left_open == 0
        assert count_open_files() == files


KINDS: tuple[Kind, ...] = ("serve", "reset", "fin", "stall", "refuse", "down", "miss", "busy")


def scripts(size: int) -> st.SearchStrategy[list[list[Turn]]]:
    turn = st.tuples(st.sampled_from(KINDS), st.integers(0, size)).map(lambda each: Turn(*each))
    return st.lists(st.lists(turn, min_size=1, max_size=3), min_size=1, max_size=4)


@held_or_not
@given(data=st.binary(max_size=60), chunk=st.integers(1, 70), some=st.data())
def test_everybody_is_asked_as_the_serial_model_says(
    data: bytes, chunk: int, some: st.DataObject, *, held_back: bool
) -> None:
    turns = [claiming(each, len(data)) for each in some.draw(scripts(len(data)))]
    ledger = Ledger()
    sources = [
        Source(data, script, ledger, name=f"s{n}", member=n, chunk=chunk)
        for n, script in enumerate(turns)
    ]
    expected = serve_serially(len(data), [(s.name, s.member, s.turns) for s in sources])
    told: list[Event] = []

    async def run() -> None:
        async with session_on(FakeClock(), told) as session:
            stream = VerifiedStream(describe(data), sources, session)
            with suppress(SupplementedError):
                assert await drain(stream) == data
            assert stream.verified is expected.served_all
            assert list(stream.served) == expected.served

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(failover, "SMALL_BLOB", 1000 if held_back else -1)
        asyncio.run(run())
    assert [(name, start) for name, start, _ in ledger.asked] == expected.asked
    assert all(source.opened == source.closed for source in sources)
    assert join(told) == expected.served
    check_ranges(sources, len(data))


def join(told: Sequence[Event]) -> list[Served]:
    """The events of service, those that follow one another from one source as one."""
    parts: list[Served] = []
    for event in told:
        if isinstance(event, BlobServed):
            part = Served(event.reference, event.member, event.start, event.end)
            if parts and parts[-1][:2] == part[:2]:
                assert parts[-1].end == part.start
                part = part._replace(start=parts.pop().start)
            parts.append(part)
    return parts


def check_ranges(sources: Sequence[Source], size: int) -> None:
    """The first byte is asked for without a range, the rest by a closed one (rule RES-04)."""
    for source in sources:
        for start, end, _ in source.asked:
            assert end == (size if start else None)


@pytest.mark.parametrize(("start", "end"), [(0, 20), (3, 20), (3, None), (23, 24), (3, 1000)])
@pytest.mark.parametrize("sized", [True, False], ids=["sized", "unsized"])
@pytest.mark.parametrize("claimed", [True, False], ids=["claimed", "unclaimed"])
async def test_RES07_a_range_is_gone_on_with_as_a_blob_is(
    ledger: Ledger, clock: FakeClock, start: int, end: int | None, *, sized: bool, claimed: bool
) -> None:
    due = TINY[start:end]
    size = len(TINY) if claimed or sized else None
    async with session_on(clock) as session:
        for cut in range(start, start + len(due) + 1):
            clock.time += 1000
            broken = claiming([Turn("reset", cut)], size)
            sources = [
                Source(TINY, broken, ledger, name="a", member=0),
                Source(TINY, claiming([Turn("miss")], size), ledger, name="b", member=1),
                Source(TINY, claiming([Turn(whole=True)], size), ledger, name="c", member=2),
            ]
            descriptor = describe(TINY, sized=sized)
            stream = VerifiedStream(descriptor, sources, session, start=start, end=end)
            assert await drain(stream) == due
            assert stream.verified is False
            assert sum(part.end - part.start for part in stream.served) == len(due)
            assert all(source.opened == source.closed for source in sources)


# The whole truth


@dataclass(frozen=True)
class World:
    """Who may serve a blob, and how it is asked for."""

    data: bytes
    sources: list[Source]
    honest: list[bool]
    sized: bool
    start: int
    end: int | None

    @property
    def is_whole(self) -> bool:
        """Whether all of it is asked for, so that it is verified, whatever is claimed."""
        beyond = self.end is None or (self.sized and self.end >= len(self.data))
        return self.start == 0 and beyond

    def serves(self, number: int) -> bool:
        """Whether a source has the right bytes and never fails."""
        source = self.sources[number]
        truthful = {turn.claims for turn in source.turns} <= {None, len(self.data)}
        serving = {turn.kind for turn in source.turns} == {"serve"}
        return self.honest[number] and truthful and serving


TURNS = (*KINDS, "long", "denied")


@st.composite
def worlds(draw: st.DrawFn) -> World:
    data = draw(st.binary(min_size=1, max_size=40))
    claims = st.sampled_from([None, len(data), len(data), len(data), len(data) + 3])
    ledger = Ledger()
    turn = st.builds(
        Turn,
        kind=st.sampled_from(("serve", *TURNS)),
        at=st.integers(0, len(data)),
        etag=st.sampled_from([None, '"a"', '"b"']),
        claims=claims,
        whole=st.booleans(),
    )
    sources: list[Source] = []
    honest: list[bool] = []
    for number in range(draw(st.integers(1, 4))):
        turns = draw(st.lists(turn, min_size=1, max_size=4))
        if draw(st.booleans()):  # one that can be relied on is no rarity
            turns = [Turn(claims=draw(st.sampled_from([None, len(data)])))]
        honest.append(draw(st.booleans()))
        held = data if honest[-1] else flip(data, draw(st.integers(0, len(data) - 1)))
        chunk = draw(st.integers(1, 45))
        sources.append(Source(held, turns, ledger, f"s{number}", number, chunk))
    start = draw(st.sampled_from([0, 0, 0, draw(st.integers(0, len(data)))]))
    end = draw(st.sampled_from([None, None, draw(st.integers(start, len(data) + 5))]))
    return World(data, sources, honest, draw(st.booleans()), start, end)


class Outcome(NamedTuple):
    """How a stream ended."""

    received: bytes
    error: SupplementedError | None


async def read(world: World, session: Session) -> Outcome:
    stream = VerifiedStream(
        describe(world.data, sized=world.sized),
        world.sources,
        session,
        start=world.start,
        end=world.end,
    )
    received = bytearray()
    error: SupplementedError | None = None
    try:
        async with stream:
            async for chunk in stream:
                received += chunk
    except SupplementedError as failure:
        error = failure
    assert stream.received == len(received)
    if world.sized:
        assert stream.verified is (error is None and world.is_whole)
    return Outcome(bytes(received), error)


def check_truth(world: World, outcome: Outcome) -> None:
    """A stream that ends well gave the exact bytes; one that does not kept some back."""
    due = world.data[world.start : world.end]
    received, error = outcome
    if world.is_whole and error is None:
        assert received == due
    elif world.is_whole and world.sized:
        assert len(received) < len(due)
    elif world.sized and error is None:
        assert len(received) == len(due)
    if all(world.honest):
        assert due.startswith(received) or not world.sized


def check_patience(world: World, outcome: Outcome) -> None:
    """Whoever could have served it did."""
    able = [n for n in range(len(world.sources)) if world.serves(n)]
    assert not able or outcome.error is None
    assert outcome.error is None or outcome.received == b""


@held_or_not
@given(world=worlds())
def test_either_the_exact_bytes_or_a_typed_error(world: World, *, held_back: bool) -> None:
    async def run() -> None:
        async with session_on(FakeClock()) as session:
            outcome = await read(world, session)
            check_truth(world, outcome)
            if held_back and world.is_whole and world.sized:
                check_patience(world, outcome)
            check_blame(world, session)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(failover, "SMALL_BLOB", 1000 if held_back else -1)
        asyncio.run(run())
    assert all(source.opened == source.closed for source in world.sources)


def check_blame(world: World, session: Session) -> None:
    """Whoever has the right bytes and never failed is fit, whatever the others did."""
    for number, source in enumerate(world.sources):
        if world.serves(number) and world.sized:
            assert health_of(session).state(source.name) is BreakerState.CLOSED


@given(world=worlds())
def test_the_same_world_ends_the_same_way(world: World) -> None:
    async def run() -> tuple[object, ...]:
        ledger = Ledger()
        sources = [copy_of(source, ledger) for source in world.sources]
        async with session_on(FakeClock()) as session:
            stream = VerifiedStream(describe(world.data, sized=world.sized), sources, session)
            try:
                outcome: object = await drain(stream)
            except SupplementedError as error:
                outcome = str(error)
            return outcome, stream.served, ledger.asked

    assert asyncio.run(run()) == asyncio.run(run())


# Going on with the same source


async def test_RES02_how_often_the_same_source_is_asked_is_a_setting(
    ledger: Ledger, clock: FakeClock
) -> None:
    breaks = [Turn("reset", 5), Turn("reset", 9), SERVE]
    source = Source(TINY, claiming(breaks, 24), ledger, "a", 0)
    policy = ResumptionPolicy(progress=4, pause=2.0, jitter=0.0)
    async with Session(settings=[clock.clock, policy]) as session:
        assert await drain(VerifiedStream(describe(TINY), [source], session)) == TINY
    assert ledger.asked == [("a", 0, None), ("a", 5, 24), ("a", 9, 24)]
    assert clock.slept == [2.0, 2.0]


async def test_RES02_the_same_source_is_asked_once_more_and_then_the_next(
    ledger: Ledger, clock: FakeClock
) -> None:
    first = Source(TINY, claiming([Turn("reset", 5), Turn("reset", 9)], 24), ledger, "a", 0)
    second = Source(TINY, claiming([SERVE], 24), ledger, "b", 1)
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(TINY), [first, second], session)
        assert await drain(stream) == TINY
    assert ledger.asked == [("a", 0, None), ("a", 5, 24), ("b", 9, 24)]
    assert clock.slept == [pytest.approx(1.1)]
    assert stream.served == (Served("a", 0, 0, 9), Served("b", 1, 9, 24))
    assert stream.member == 1


async def test_RES02_after_a_mebibyte_the_same_source_is_asked_again(
    ledger: Ledger, clock: FakeClock
) -> None:
    size = len(LARGE)
    cuts = [1, 1 + MIB, 2 + 2 * MIB, 3 + 2 * MIB]
    only = Source(LARGE, claiming([Turn("reset", at) for at in cuts], size), ledger, chunk=100_000)
    async with session_on(clock) as session:
        received, error = await fail(VerifiedStream(describe(LARGE), [only], session))
    assert [start for _, start, _ in ledger.asked] == [0, *cuts[:3]]
    assert received == LARGE[: len(received)]
    assert isinstance(error, NetworkError)
    assert error.received == cuts[0]


async def test_RES02_after_a_minute_the_same_source_is_asked_again(
    ledger: Ledger, clock: FakeClock, nothing_is_small: None
) -> None:
    cuts = [2, 4, 6]
    turns = claiming([*(Turn("reset", at) for at in cuts), SERVE], 24)
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(TINY), [Source(TINY, turns, ledger, chunk=1)], session)
        async with stream:
            chunks: list[bytes] = []
            async for chunk in stream:
                chunks.append(chunk)
                clock.time += 30  # a slow reader
        assert b"".join(chunks) == TINY
    assert [start for _, start, _ in ledger.asked] == [0, *cuts]


async def test_SEC07_who_lets_us_wait_is_not_asked_for_ever(
    ledger: Ledger, clock: FakeClock
) -> None:
    class Trickle(Source):
        def open(self, *asked: object) -> object:  # type: ignore[override]
            clock.time += 61
            return super().open(*asked)  # type: ignore[arg-type]

    turns = claiming([Turn("stall", at) for at in range(1, 25)], 24)
    async with session_on(clock) as session:
        source = Trickle(TINY, turns, ledger)
        _, error = await fail(VerifiedStream(describe(TINY), [source], session))
    assert isinstance(error, SourceTimeoutError)
    assert len(ledger.asked) == 2


async def test_RES06_going_on_is_under_the_condition_that_it_is_the_same(
    ledger: Ledger, clock: FakeClock
) -> None:
    turns = claiming([Turn("reset", 5, '"a"'), Turn("reset", 9, '"a"'), SERVE], 24)
    first = Source(TINY, turns, ledger, "a")
    second = Source(TINY, claiming([Turn("serve", 0, '"b"')], 24), ledger, "b")
    async with session_on(clock) as session:
        assert await drain(VerifiedStream(describe(TINY), [first, second], session)) == TINY
    assert [etag for _, _, etag in first.asked] == [None, '"a"']
    assert [etag for _, _, etag in second.asked] == [None], "that of another source says nothing"


@pytest.mark.parametrize("whole", [True, False])
async def test_RES06_who_has_something_else_by_now_does_not_go_on(
    ledger: Ledger, clock: FakeClock, *, whole: bool
) -> None:
    turns = [Turn("reset", 5, '"a"'), Turn("serve", 0, '"changed"', whole=whole)]
    first = Source(TINY, claiming(turns, 24), ledger, "a", 0)
    second = Source(TINY, claiming([SERVE], 24), ledger, "b", 1)
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(TINY), [first, second], session)
        assert await drain(stream) == TINY
        assert stream.served == (Served("a", 0, 0, 5), Served("b", 1, 5, 24))
        assert health_of(session).state("a") is BreakerState.OPEN
    assert first.opened == first.closed == 2


async def test_RES06_the_whole_for_the_rest_is_skipped_up_to_the_rest(
    ledger: Ledger, clock: FakeClock
) -> None:
    turns = claiming([Turn("reset", 5), Turn(whole=True)], 24)
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(TINY), [Source(TINY, turns, ledger)], session)
        assert await drain(stream) == TINY
        assert stream.served == (Served("source", None, 0, 24),)


async def test_RES08_who_cannot_be_gone_on_with_is_not_asked_for_the_rest(
    ledger: Ledger, clock: FakeClock
) -> None:
    class Elsewhere(Source):
        def open(self, *asked: object) -> object:  # type: ignore[override]
            body = super().open(*asked)  # type: ignore[arg-type]
            body.resumable = False  # type: ignore[attr-defined]
            return body

    first = Elsewhere(TINY, claiming([Turn("reset", 5), SERVE], 24), ledger, "a")
    second = Source(TINY, claiming([SERVE], 24), ledger, "b")
    async with session_on(clock) as session:
        assert await drain(VerifiedStream(describe(TINY), [first, second], session)) == TINY
    assert ledger.asked == [("a", 0, None), ("b", 5, 24)]
    assert clock.slept == []


async def test_who_failed_is_asked_again_when_others_have_brought_the_blob_on(
    ledger: Ledger, clock: FakeClock
) -> None:
    size = len(LARGE)
    first = Source(LARGE, claiming([Turn("down"), SERVE], size), ledger, "a", 0, 300_000)
    second = Source(LARGE, claiming([Turn("reset", 2 * MIB)], size), ledger, "b", 1, 300_000)
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(LARGE), [first, second], session)
        assert await drain(stream) == LARGE
    assert [(name, start) for name, start, _ in ledger.asked] == [
        *(("a", 0), ("b", 0), ("b", 2 * MIB), ("a", 2 * MIB)),
    ]


async def test_who_failed_is_not_asked_again_where_nothing_has_come_since(
    ledger: Ledger, clock: FakeClock
) -> None:
    size = len(LARGE)
    first = Source(LARGE, claiming([Turn("reset", 2 * MIB)], size), ledger, "a", 0, 300_000)
    second = Source(LARGE, claiming([Turn("reset", 3 * MIB - 1)], size), ledger, "b", 1, 300_000)
    async with session_on(clock) as session:
        received, error = await fail(VerifiedStream(describe(LARGE), [first, second], session))
    assert [name for name, _, _ in ledger.asked] == ["a", "a", "b", "b"]
    assert isinstance(error, FailoverError)
    assert error.received == 3 * MIB - 1
    assert len(error.attempts) == 4
    told = [each.received for each in error.attempts if isinstance(each, SourceError)]
    assert told == [2 * MIB, 2 * MIB, 3 * MIB - 1, 3 * MIB - 1]
    assert LARGE.startswith(received)


@pytest.mark.parametrize("kind", ["miss", "denied"])
async def test_an_answer_is_not_asked_for_twice(
    ledger: Ledger, clock: FakeClock, kind: Kind
) -> None:
    size = len(LARGE)
    first = Source(LARGE, claiming([Turn(kind), SERVE], size), ledger, "a", 0, 300_000)
    second = Source(LARGE, claiming([Turn("reset", 2 * MIB)], size), ledger, "b", 1, 300_000)
    async with session_on(clock) as session:
        await fail(VerifiedStream(describe(LARGE), [first, second], session))
    assert [name for name, _, _ in ledger.asked] == ["a", "b", "b"]


# Lies


@pytest.mark.parametrize("liars", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("at", range(0, 24, 5))
async def test_a_small_blob_is_made_by_whoever_can_make_it(
    ledger: Ledger, clock: FakeClock, liars: tuple[int, ...], at: int
) -> None:
    sources = [
        Source(
            flip(TINY, at) if n in liars else TINY,
            claiming([SERVE], 24),
            ledger,
            f"s{n}",
            n,
        )
        for n in range(3)
    ]
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(TINY), sources, session)
        assert await drain(stream) == TINY
        first = min({0, 1, 2} - set(liars))
        assert stream.served == (Served(f"s{first}", first, 0, 24),)
        for n in range(3):
            fit = BreakerState.OPEN if n in liars and n < first else BreakerState.CLOSED
            assert health_of(session).state(f"s{n}") is fit


async def test_bytes_of_several_that_do_not_fit_condemn_nobody_and_each_serves_alone(
    ledger: Ledger, clock: FakeClock
) -> None:
    liar = Source(flip(TINY, 2), claiming([Turn("reset", 9)], 24), ledger, "liar", 0)
    honest = Source(TINY, claiming([SERVE], 24), ledger, "honest", 1)
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(TINY), [liar, honest], session)
        assert await drain(stream) == TINY
        assert stream.served == (Served("honest", 1, 0, 24),)
        assert health_of(session).state("honest") is BreakerState.CLOSED
    # The liar broke off, so it is put behind the other one, which does it all by itself.
    assert ledger.asked == [
        ("liar", 0, None),
        ("liar", 9, 24),
        ("honest", 9, 24),
        ("honest", 0, None),
    ]


@held_or_not
async def test_who_supplied_nothing_is_not_to_blame_and_gets_its_turn(
    ledger: Ledger, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, *, held_back: bool
) -> None:
    monkeypatch.setattr(failover, "SMALL_BLOB", 1000 if held_back else -1)
    # It gives all bytes and one of them wrong, and goes on; there is nothing left for the other.
    liar = Source(flip(TINY, 2), [Turn("long")], ledger, "liar", 0, chunk=24)
    honest = Source(TINY, claiming([SERVE], 24), ledger, "honest", 1)
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(TINY), [liar, honest], session)
        if held_back:
            assert await drain(stream) == TINY
            assert stream.served == (Served("honest", 1, 0, 24),)
        else:
            _, error = await fail(stream)
            assert isinstance(error, DigestMismatchError)
            assert (error.member, error.reference, error.suspects) == (0, "liar", (0,))
        assert health_of(session).state("honest") is BreakerState.CLOSED
        clock.time += 250
        assert health_of(session).state("liar") is BreakerState.OPEN


async def test_two_that_never_fit_together_come_to_an_end(ledger: Ledger, clock: FakeClock) -> None:
    first = Source(
        flip(TINY, 2), claiming([Turn("reset", 9), Turn("down")] * 50, 24), ledger, "a", 0
    )
    second = Source(flip(TINY, 20), claiming([Turn("reset", 9)] + [SERVE] * 50, 24), ledger, "b", 1)
    async with session_on(clock) as session:
        _, error = await fail(VerifiedStream(describe(TINY), [first, second], session))
    assert isinstance(error, FailoverError)
    kinds = {type(each) for each in error.attempts}
    assert DigestMismatchError in kinds
    mixed = [each for each in error.attempts if isinstance(each, DigestMismatchError)]
    assert mixed[0].suspects == (0, 1)
    assert len(ledger.asked) < 12


async def test_a_large_blob_of_several_that_is_wrong_names_the_suspects_and_condemns_nobody(
    ledger: Ledger, clock: FakeClock, nothing_is_small: None
) -> None:
    sources = [
        Source(flip(TINY, 2), claiming([Turn("reset", 9)], 24), ledger, "a", 4),
        Source(TINY, claiming([SERVE], 24), ledger, "b", 7),
    ]
    async with session_on(clock) as session:
        received, error = await fail(VerifiedStream(describe(TINY), sources, session))
        assert isinstance(error, DigestMismatchError)
        assert error.suspects == (4, 7)
        assert len(received) < 24
        assert health_of(session).state("b") is BreakerState.CLOSED
        clock.time += 10.1
        assert health_of(session).state("a") is not BreakerState.OPEN, (
            "it broke off, and did not lie"
        )


async def test_a_large_blob_of_one_that_is_wrong_puts_it_aside_for_long(
    ledger: Ledger, clock: FakeClock, nothing_is_small: None
) -> None:
    liar = Source(flip(TINY, 2), claiming([Turn("reset", 9), SERVE], 24), ledger, "a", 4)
    other = Source(TINY, claiming([SERVE], 24), ledger, "b", 7)
    async with session_on(clock) as session:
        _, error = await fail(VerifiedStream(describe(TINY), [liar, other], session))
        assert isinstance(error, DigestMismatchError)
        assert error.suspects == (4,)
        clock.time += 299
        assert health_of(session).state("a") is BreakerState.OPEN
        assert await drain(VerifiedStream(describe(TINY), [liar, other], session)) == TINY
    assert ledger.names == ["a", "a", "b"]


async def test_a_size_that_only_another_source_claims_condemns_nobody(
    ledger: Ledger, clock: FakeClock, nothing_is_small: None
) -> None:
    boaster = Source(TINY, claiming([Turn("reset", 9)], 99), ledger, "boaster", 0)
    honest = Source(TINY, claiming([SERVE], 24), ledger, "honest", 1)
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(TINY, sized=False), [boaster, honest], session)
        _, error = await fail(stream)
        assert isinstance(error, FailoverError)
        assert isinstance(error.attempts[-1], SizeMismatchError)
        assert health_of(session).state("honest") is BreakerState.CLOSED


@pytest.mark.parametrize("claimed", [5, 23, 25, 10**6])
async def test_a_size_that_was_claimed_goes_with_who_claimed_it(
    ledger: Ledger, clock: FakeClock, claimed: int
) -> None:
    boaster = Source(TINY, claiming([Turn("reset", 4)], claimed), ledger, "boaster", 0)
    honest = Source(TINY, claiming([SERVE], 24), ledger, "honest", 1)
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(TINY, sized=False), [boaster, honest], session)
        assert await drain(stream) == TINY
        assert stream.size == 24


async def test_what_was_handed_out_is_never_begun_again(ledger: Ledger, clock: FakeClock) -> None:
    # Nobody says at first that the blob is small; whoever says so later has the wrong bytes.
    silent = Source(TINY, [Turn("reset", 15)], ledger, "silent", 0, chunk=3)
    liar = Source(flip(TINY, 20), claiming([SERVE], 24), ledger, "liar", 1)
    honest = Source(TINY, claiming([SERVE], 24), ledger, "honest", 2)
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(TINY, sized=False), [silent, liar, honest], session)
        received, error = await fail(stream)
    assert isinstance(error, DigestMismatchError)
    assert liar.data.startswith(received)
    assert 15 < len(received) < 24


async def test_a_range_stays_one_when_its_end_turns_out_to_be_that_of_the_blob(
    ledger: Ledger, clock: FakeClock
) -> None:
    silent = Source(TINY, [Turn("reset", 9)], ledger, "silent", 0, chunk=3)
    telling = Source(TINY, claiming([SERVE], 24), ledger, "telling", 1)
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(TINY, sized=False), [silent, telling], session, end=30)
        assert await drain(stream) == TINY
        assert stream.verified is False
        assert health_of(session).state("telling") is BreakerState.CLOSED


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_a_range_behind_the_end_is_one_whoever_says_so(
    ledger: Ledger, clock: FakeClock, count: int
) -> None:
    sources = [Source(TINY, claiming([SERVE], 24), ledger, f"s{n}", n) for n in range(count)]
    async with session_on(clock) as session:
        with pytest.raises(RangeError):
            await VerifiedStream(
                describe(TINY, sized=False), sources, session, start=25
            ).__aenter__()
    assert len(ledger.asked) == count


async def test_a_small_blob_in_tiny_pieces_is_kept_in_larger_ones(
    ledger: Ledger, clock: FakeClock
) -> None:
    data = LARGE[:10_000]
    source = Source(data, claiming([SERVE], len(data)), ledger, chunk=2)
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(data), [source], session)
        async with stream:
            chunks = [chunk async for chunk in stream]
    assert b"".join(chunks) == data
    assert len(chunks) < 1100


# Files


async def believe(session: Session, path: Path) -> Disk:
    """A file that was verified before."""
    disk = Disk(path, session, name="proven", member=5)
    await drain(VerifiedStream(describe(path.read_bytes()), [disk], session))
    return disk


async def test_a_file_that_served_the_end_of_a_blob_only_is_not_believed_to_be_whole(
    ledger: Ledger, clock: FakeClock, tmp_path: Path
) -> None:
    clock.epoch = 1e11
    path = tmp_path / "blob"
    path.write_bytes(flip(TINY, 2))
    async with session_on(clock) as session:
        wire = Source(TINY, claiming([Turn("reset", 9)], 24), ledger, "wire", 0)
        disk = Disk(path, session, member=1)
        stream = VerifiedStream(describe(TINY), [wire, disk], session)
        assert await drain(stream) == TINY
        assert verified_files(session).recall(Digest.of(TINY)) is None
        _, error = await fail(VerifiedStream(describe(TINY), [disk], session))
        assert isinstance(error, DigestMismatchError)


async def test_a_file_that_was_verified_goes_on_under_the_hash_like_any_other(
    ledger: Ledger, clock: FakeClock, tmp_path: Path
) -> None:
    clock.epoch = 1e11
    path = tmp_path / "blob"
    path.write_bytes(TINY)
    async with session_on(clock) as session:
        disk = await believe(session, path)
        wire = Source(flip(TINY, 2), claiming([Turn("reset", 9)], 24), ledger, "liar", 0)
        stream = VerifiedStream(describe(TINY), [wire, disk], session)
        assert await drain(stream) == TINY
        assert stream.served == (Served("proven", 5, 0, 24),)


async def truncate_in_the_middle(
    session: Session, path: Path, candidates: Sequence[BlobCandidate], **span: int
) -> tuple[VerifiedStream, SupplementedError | None, bytes]:
    """Read a blob from a file of which the end is cut off meanwhile."""
    data = path.read_bytes()
    stream = VerifiedStream(describe(data), candidates, session, **span)
    received = b""
    try:
        async with stream:
            received += await anext(stream)
            with path.open("r+b") as file:
                file.truncate(len(data) // 2)
            async for chunk in stream:
                received += chunk
    except SupplementedError as error:
        return stream, error, received
    return stream, None, received


async def test_a_verified_file_that_is_truncated_in_mid_read_is_replaced_by_the_next_source(
    ledger: Ledger, clock: FakeClock, tmp_path: Path
) -> None:
    clock.epoch = 1e11
    path = tmp_path / "blob"
    large = LARGE * 3
    path.write_bytes(large)
    async with session_on(clock) as session:
        disk = await believe(session, path)
        wire = Source(large, claiming([SERVE], len(large)), ledger, "wire", 0, MIB)
        stream, error, received = await truncate_in_the_middle(session, path, [disk, wire])
        assert error is None
        assert received == large
        assert stream.verified is True
        assert ledger.asked == [("wire", 0, None)]
        # It is put aside, so that who reads the blob again is served by the other one.
        assert health_of(session).state("proven") is BreakerState.OPEN
        assert await drain(VerifiedStream(describe(large), [disk, wire], session)) == large


@dataclass
class FailingDisk(Disk):
    """A file that cannot be read any more when the disk fails."""

    file: BlobFile | None = None

    async def open_file(self) -> BlobFile | None:
        self.file = await Disk.open_file(self)
        return self.file

    def fail(self) -> None:
        assert self.file is not None
        directory = os.open(self.path.parent, os.O_RDONLY)
        os.dup2(directory, self.file.fd)
        os.close(directory)


async def test_a_range_of_a_file_that_failed_is_gone_on_with_and_not_verified(
    clock: FakeClock, tmp_path: Path
) -> None:
    clock.epoch = 1e11
    large = LARGE * 3
    path = tmp_path / "blob"
    path.write_bytes(large)
    async with session_on(clock) as session:
        whole = await believe(session, path)
        failing = FailingDisk(path, session, name="failing", member=1)
        stream = VerifiedStream(describe(large), [failing, whole], session, start=1)
        async with stream:
            received = await anext(stream)
            failing.fail()
            received += b"".join([chunk async for chunk in stream])
        assert received == large[1:]
        assert [part.member for part in stream.served] == [1, 5]
        assert stream.verified is False
        async with VerifiedStream(describe(large), [whole], session, start=1) as alone:
            await alone.read_all(len(large))
            assert alone.verified is True


# Closing and cancelling


CAST: list[Callable[[Ledger], list[Source]]] = [
    lambda ledger: [
        Source(TINY, claiming([Turn("down")], 24), ledger, "a", 0),
        Source(TINY, claiming([Turn("reset", 9), Turn("reset", 12)], 24), ledger, "b", 1),
        Source(TINY, claiming([SERVE], 24), ledger, "c", 2),
    ],
    lambda ledger: [
        Source(flip(TINY, 3), claiming([Turn("reset", 9)], 24), ledger, "a", 0),
        Source(TINY, claiming([SERVE], 24), ledger, "b", 1),
    ],
    lambda ledger: [
        Source(TINY, claiming([Turn("reset", 9, '"a"'), Turn("serve", 0, '"b"')], 24), ledger, "a"),
        Source(TINY, claiming([Turn("serve", whole=True)], 24), ledger, "b"),
    ],
]


@held_or_not
@pytest.mark.parametrize("cast", CAST)
async def test_SEC16_cancelled_at_any_await_nothing_stays_open_and_nobody_is_stuck(
    monkeypatch: pytest.MonkeyPatch, cast: Callable[[Ledger], list[Source]], *, held_back: bool
) -> None:
    monkeypatch.setattr(failover, "SMALL_BLOB", 1000 if held_back else -1)
    sources: list[Source] = []

    async def run() -> None:
        sources[:] = cast(Ledger())
        clock = FakeClock()
        async with session_on(clock) as session:
            health = health_of(session)
            stream = VerifiedStream(describe(TINY), sources, session)
            try:
                assert await drain(stream) == TINY
            except DigestMismatchError:
                assert not held_back
            finally:
                assert all(source.opened == source.closed for source in sources)
                clock.time += 10.1
                judged = [health.state(source.name) for source in sources]
                assert BreakerState.OPEN not in judged, "somebody waits for a probe that is over"

    async def check() -> None:
        assert all(source.opened == source.closed for source in sources)

    assert await cancel_at_every_await(run, check) >= 10


@held_or_not
@pytest.mark.parametrize("cast", CAST)
async def test_closed_at_any_turn_the_reader_is_told_and_nothing_stays_open(
    monkeypatch: pytest.MonkeyPatch,
    clock: FakeClock,
    cast: Callable[[Ledger], list[Source]],
    *,
    held_back: bool,
) -> None:
    monkeypatch.setattr(failover, "SMALL_BLOB", 1000 if held_back else -1)
    ended = 0
    async with session_on(clock) as session:
        for turns in itertools.count():
            clock.time += 1000
            sources = cast(Ledger())
            stream = VerifiedStream(describe(TINY), sources, session)
            await stream.__aenter__()
            reading = asyncio.create_task(stream.read_all(100))
            for _ in range(turns):
                await asyncio.sleep(0)
            was_done = reading.done()
            await stream.aclose()
            try:
                assert await reading == TINY
            except ClosedError:
                ended += 1
            except DigestMismatchError:
                assert not held_back
            assert all(source.opened == source.closed for source in sources)
            if was_done:
                break
    assert ended > 5


# Those who watch


async def test_events_and_served_tell_who_served_which_bytes(
    ledger: Ledger, clock: FakeClock, nothing_is_small: None
) -> None:
    told: list[Event] = []
    digest = Digest.of(TINY)
    sources = [
        Source(TINY, claiming([Turn("reset", 5), Turn("down")], 24), ledger, "a", 0),
        Source(TINY, claiming([SERVE], 24), ledger, "b", 1),
    ]
    async with session_on(clock, told) as session:
        stream = VerifiedStream(describe(TINY), sources, session)
        async with stream:
            seen = [stream.served async for _ in stream]
    assert seen[:2] == [(Served("a", 0, 0, 5),), (Served("a", 0, 0, 5), Served("b", 1, 5, 12))]
    assert seen[-1] == stream.served == (Served("a", 0, 0, 5), Served("b", 1, 5, 24))
    assert told[:-1] == [
        BlobStarted("a", digest, 0, 0),
        BlobServed("a", digest, 0, 5, 0),
        AttemptFailed("a", digest, 0, "NetworkError", "it was reset"),
        AttemptFailed("a", digest, 0, "ServerError", "it failed"),
        BlobStarted("b", digest, 5, 1),
        BlobServed("b", digest, 5, 24, 1),
    ]


async def test_a_stream_that_is_left_has_been_served_what_came(
    ledger: Ledger, clock: FakeClock, nothing_is_small: None
) -> None:
    told: list[Event] = []
    async with session_on(clock, told) as session:
        source = Source(TINY, claiming([SERVE], 24), ledger, "a", 0)
        stream = VerifiedStream(describe(TINY), [source], session)
        async with stream:
            await anext(stream)
        assert stream.served == (Served("a", 0, 0, 7),)
        assert health_of(session).state("a") is BreakerState.CLOSED
    assert BlobServed("a", Digest.of(TINY), 0, 7, 0) in told


# Haste


class Patient(Source):
    """A source that tries for long what fails, unless it is told to hurry; it takes notes."""

    def open(self, *asked: object) -> object:  # type: ignore[override]
        body = super().open(*asked)  # type: ignore[arg-type]
        self.ledger.asked[-1] = (f"{self.name}, patiently", *self.ledger.asked[-1][1:])

        def hurry() -> None:
            self.ledger.asked[-1] = (f"{self.name}, in haste", *self.ledger.asked[-1][1:])

        body.hurry = hurry  # type: ignore[attr-defined]
        return body


async def test_who_is_not_the_only_one_is_hurried_and_gets_its_time_when_nobody_else_serves(
    ledger: Ledger, clock: FakeClock
) -> None:
    sources = [
        Patient(TINY, claiming([Turn("down"), SERVE], 24), ledger, "a", 0),
        Patient(TINY, claiming([Turn("miss")], 24), ledger, "b", 1),
        Patient(TINY, claiming([Turn("busy")], 24), ledger, "c", 2),
    ]
    async with session_on(clock) as session:
        stream = VerifiedStream(describe(TINY), sources, session)
        assert await drain(stream) == TINY
    assert ledger.names == ["a, in haste", "b, in haste", "c, patiently", "a, patiently"]


async def test_haste_ends_once_everybody_had_a_chance(ledger: Ledger, clock: FakeClock) -> None:
    class Slow(Patient):
        def open(self, *asked: object) -> object:
            clock.time += 50  # by then whoever was put aside is on probation
            return super().open(*asked)

    sources = [Slow(TINY, claiming([Turn("down")], 24), ledger, name, 0) for name in "abc"]
    async with session_on(clock) as session:
        _, error = await fail(VerifiedStream(describe(TINY), sources, session))
    assert isinstance(error, FailoverError)
    assert ledger.names == [
        *("a, in haste", "b, in haste", "c, patiently"),
        *("a, patiently", "b, patiently"),
    ]


async def test_nobody_is_hurried_for_those_who_are_put_aside(
    ledger: Ledger, clock: FakeClock
) -> None:
    sources = [Patient(TINY, claiming([SERVE], 24), ledger, name) for name in "ab"]
    async with session_on(clock) as session:
        health_of(session).record_failure(sources[1].reference, NetworkError("x"))
        assert await drain(VerifiedStream(describe(TINY), sources, session)) == TINY
    assert ledger.names == ["a, patiently"]


async def test_going_on_is_hurried_while_others_could(ledger: Ledger, clock: FakeClock) -> None:
    turns = claiming([Turn("reset", 9), Turn("down")], 24)
    first = Patient(TINY, turns, ledger, "a", 0)
    second = Patient(TINY, claiming([Turn("reset", 12), Turn("down")], 24), ledger, "b", 1)
    async with session_on(clock) as session:
        await fail(VerifiedStream(describe(TINY), [first, second], session))
    assert ledger.asked == [
        ("a, in haste", 0, None),
        ("a, in haste", 9, 24),
        ("b, patiently", 9, 24),
        ("b, patiently", 12, 24),
        ("a, patiently", 12, 24),
    ]
