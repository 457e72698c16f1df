"""What is decided when a source fails: tables and properties, without an event loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.abc import Served
from asupplemented.blobs.failover import (
    Decision,
    Failover,
    Fault,
    NextCandidate,
    Proof,
    Raise,
    Resume,
    StartOver,
)
from asupplemented.errors import (
    DigestMismatchError,
    LimitExceededError,
    NetworkError,
    ServerError,
    SizeMismatchError,
    SourceError,
    SourceTimeoutError,
    SupplementedError,
    TruncatedError,
)
from asupplemented.limits import MAX_BLOB, MIB, SMALL_BLOB
from asupplemented.model.digest import Digest
from tests.breaking_sources import BEFORE, BREAKS, Turn, serve_serially

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.abc import BlobCandidate
    from tests.breaking_sources import Kind

DATA = bytes(range(24))
DIGEST = Digest.of(DATA)
WRONG = Digest.of(b"wrong")
LARGE = SMALL_BLOB + 100


@dataclass(eq=False)
class Named:
    """A candidate that is nothing but its name and a script of answers."""

    reference: str
    member: int | None = None
    turns: Sequence[Turn] = (Turn(),)
    data: bytes = DATA
    asked: int = 0

    def next_turn(self) -> Turn:
        self.asked += 1
        return self.turns[min(self.asked, len(self.turns)) - 1]


def as_candidate(source: Named) -> BlobCandidate:
    """Nothing but the name of a candidate matters to a decision."""
    return cast("BlobCandidate", source)


A, B, C = (as_candidate(Named(name, number)) for number, name in enumerate("abc", 1))


def start(
    size: int | None = LARGE,
    *,
    begin: int = 0,
    end: int | None = None,
    source: BlobCandidate = A,
    claims: int | None = None,
    preverified: bool = False,
) -> Failover:
    """A blob of which the first source has answered."""
    failover = Failover(DIGEST, size, start=begin, end=end)
    failover.begin(source, claims, preverified=preverified)
    return failover


def fail(
    failover: Failover, error: SupplementedError, *, resumable: bool = True, now: float = 0.0
) -> Decision:
    failover.record_part()
    return failover.fail(error, resumable=resumable, now=now, chance=0.0)


def check_wrong(failover: Failover) -> Decision:
    """Everything came, and has the wrong digest."""
    failover.record_part()
    failover.end(trusted=False)
    with pytest.raises(DigestMismatchError) as caught:
        failover.check(WRONG)
    return fail(failover, caught.value)


# The first byte


@pytest.mark.parametrize(
    ("begin", "end", "size", "claims", "whole", "proof"),
    [
        (0, None, 24, None, True, Proof.HASHED),
        (0, None, None, None, True, Proof.HASHED),
        (0, 24, 24, None, True, Proof.HASHED),
        (0, 30, None, 24, True, Proof.HASHED),
        (0, 30, None, None, False, Proof.NONE),
        (0, 23, 24, None, False, Proof.NONE),
        (1, None, 24, None, False, Proof.NONE),
    ],
)
def test_all_of_a_blob_is_hashed_and_a_range_is_not(
    begin: int, end: int | None, size: int | None, claims: int | None, proof: Proof, *, whole: bool
) -> None:
    failover = start(size, begin=begin, end=end, claims=claims)
    assert (failover.is_whole, failover.proof) == (whole, proof)
    assert failover.end_of_range == (None if whole else end)


@pytest.mark.parametrize(("begin", "whole"), [(0, True), (3, False)])
def test_a_file_that_was_verified_before_needs_no_hash(begin: int, *, whole: bool) -> None:
    failover = start(begin=begin, preverified=True)
    assert (failover.is_whole, failover.proof) == (whole, Proof.PREVERIFIED)


def test_what_is_whole_is_settled_by_the_first_byte() -> None:
    failover = start(None, end=30)
    failover.receive(9)
    fail(failover, ServerError("x"))
    failover.begin(B, 24, preverified=False)
    assert (failover.is_whole, failover.due) == (False, 24)


def test_a_size_that_is_claimed_before_the_first_byte_makes_a_range_whole() -> None:
    failover = start(None, end=30)
    fail(failover, ServerError("x"))
    failover.begin(B, 24, preverified=False)
    assert (failover.is_whole, failover.proof) == (True, Proof.HASHED)


# Chunks


@pytest.mark.parametrize(
    ("size", "begin", "preverified", "released"),
    [
        (LARGE, 0, False, True),
        (SMALL_BLOB, 0, False, False),
        (None, 0, False, True),
        (SMALL_BLOB, 1, False, True),
        (SMALL_BLOB, 0, True, True),
    ],
)
def test_only_a_small_blob_that_is_hashed_is_held_back(
    size: int | None, begin: int, *, preverified: bool, released: bool
) -> None:
    failover = start(size, begin=begin, preverified=preverified)
    assert failover.receive(7) is released
    assert failover.position == begin + 7


def test_a_size_that_comes_late_holds_nothing_back() -> None:
    failover = start(None)
    assert failover.receive(7)
    fail(failover, NetworkError("x"))
    failover.begin(B, 24, preverified=False)
    assert failover.receive(7)


def test_a_blob_of_unknown_size_has_a_limit() -> None:
    failover = start(None)
    failover.receive(MAX_BLOB)
    with pytest.raises(LimitExceededError) as caught:
        failover.receive(1)
    assert fail(failover, caught.value) == Raise(caught.value)


# The end


@pytest.mark.parametrize(("end", "due"), [(None, LARGE), (50, 50)])
def test_a_body_that_ends_early_is_truncated(end: int | None, due: int) -> None:
    failover = start(end=end)
    failover.receive(due - 1)
    with pytest.raises(TruncatedError, match=f"{due - 1} of {due} bytes") as caught:
        failover.end(trusted=False)
    assert caught.value.received == due - 1
    assert failover.verified is None


@pytest.mark.parametrize(
    ("begin", "preverified", "trusted", "verified"),
    [
        (1, True, True, True),
        (1, True, False, False),
        (1, False, False, False),
        (0, True, True, True),
    ],
)
def test_a_range_is_verified_if_all_of_it_is_from_a_file_that_was(
    begin: int, *, preverified: bool, trusted: bool, verified: bool
) -> None:
    failover = start(begin=begin, preverified=preverified)
    failover.receive(LARGE - begin)
    failover.end(trusted=trusted)
    assert failover.verified is verified


def test_a_file_that_was_changed_is_no_proof_of_a_whole_blob() -> None:
    failover = start(preverified=True)
    failover.receive(LARGE)
    with pytest.raises(SourceError, match="changed") as caught:
        failover.end(trusted=False)
    assert fail(failover, caught.value) == StartOver(0, None, (), Fault(A, progress=LARGE))


def test_the_digest_proves_all() -> None:
    failover = start(None)
    failover.receive(24)
    failover.end(trusted=False)
    assert failover.verified is None
    failover.check(DIGEST)
    assert (failover.verified, failover.size) == (True, 24)


# A body that breaks off


@pytest.mark.parametrize(
    "error", [NetworkError("x"), TruncatedError("x"), SourceTimeoutError("x")], ids=repr
)
def test_RES01_a_body_that_broke_off_is_resumed_at_the_same_byte(error: SourceError) -> None:
    failover = start()
    failover.receive(10)
    assert fail(failover, error) == Resume(10, LARGE, 1.0, Fault(A))


@pytest.mark.parametrize(
    ("error", "resumable"),
    [
        (ServerError("x"), True),
        (SizeMismatchError("x", expected=1, actual=2), True),
        (NetworkError("x"), False),
    ],
)
def test_what_the_source_cannot_mend_goes_to_the_next_candidate(
    error: SupplementedError, *, resumable: bool
) -> None:
    failover = start()
    failover.receive(10)
    expected = NextCandidate(10, LARGE, Fault(A, progress=10))
    assert fail(failover, error, resumable=resumable) == expected


@pytest.mark.parametrize(
    ("more", "seconds", "stalled", "resumed"),
    [
        (1, 59.0, False, False),
        (MIB, 0.0, False, True),
        (1, 60.0, False, True),
        (1, 60.0, True, False),
    ],
)
def test_RES02_a_source_is_resumed_again_after_progress_or_time(
    more: int, seconds: float, *, stalled: bool, resumed: bool
) -> None:
    failover = start()
    failover.receive(10)
    fail(failover, NetworkError("x"))
    failover.begin(A, None, preverified=False)
    failover.receive(more)
    error = SourceTimeoutError("x") if stalled else NetworkError("x")
    assert isinstance(fail(failover, error, now=seconds), Resume) is resumed


def test_RES04_the_rest_is_asked_for_as_a_closed_range() -> None:
    failover = start(None, claims=24)
    assert failover.end_to_ask is None
    failover.receive(10)
    assert failover.end_to_ask == 24
    assert start(None).end_to_ask is None
    ranged = start(end=50)
    assert ranged.end_to_ask == 50


def test_a_source_that_refuses_the_rest_is_followed_by_the_next() -> None:
    failover = start()
    failover.receive(10)
    fail(failover, NetworkError("x"))
    assert failover.refuse() == NextCandidate(10, LARGE)


def test_a_whole_blob_of_a_file_that_failed_is_served_again_and_hashed() -> None:
    failover = start(preverified=True)
    failover.receive(10)
    decision = fail(failover, NetworkError("x"), resumable=False)
    assert decision == StartOver(0, None, (), Fault(A, progress=10))
    assert (failover.handed, failover.position) == (10, 0)
    failover.begin(B, LARGE, preverified=False)
    assert failover.proof is Proof.HASHED
    # What the caller has is not handed out again, so it may start over once more.
    failover.receive(10)
    assert isinstance(fail(failover, mismatch(), resumable=False), StartOver)
    assert failover.handed == 10
    failover.begin(B, LARGE, preverified=False)
    failover.receive(11)
    assert isinstance(fail(failover, mismatch(), resumable=False), Raise)


def mismatch() -> DigestMismatchError:
    return DigestMismatchError("x", digest=DIGEST, actual=WRONG)


def test_a_verified_file_that_fails_at_once_leaves_nothing_to_prove() -> None:
    failover = start(preverified=True)
    decision = fail(failover, SourceError("x"), resumable=False)
    assert decision == NextCandidate(0, None, Fault(A, progress=0))
    failover.begin(B, None, preverified=False)
    assert failover.proof is Proof.HASHED


def test_a_range_of_a_file_that_failed_is_no_longer_verified() -> None:
    failover = start(begin=1, preverified=True)
    failover.receive(10)
    fail(failover, SourceError("x"), resumable=False)
    failover.begin(B, None, preverified=True)
    failover.receive(LARGE - 11)
    failover.end(trusted=True)
    assert failover.verified is False


# Starting over


def test_a_claimed_size_goes_with_the_source_that_claimed_it() -> None:
    failover = start(None, claims=24)
    assert not failover.receive(10)
    assert isinstance(fail(failover, NetworkError("x")), Resume)
    assert failover.refuse() == StartOver(0, None)
    assert (failover.position, failover.size, failover.received) == (0, None, 0)


def test_released_bytes_keep_the_size_that_was_claimed() -> None:
    failover = start(None, claims=LARGE)
    assert failover.receive(10)
    decision = fail(failover, ServerError("x"))
    assert decision == NextCandidate(10, LARGE, Fault(A, progress=10))


def test_one_source_that_served_wrong_bytes_is_at_fault() -> None:
    failover = start(24)
    failover.receive(24)
    decision = check_wrong(failover)
    assert decision == StartOver(0, None, (), Fault(A))
    assert (failover.position, failover.list_served()) == (0, [])


def test_released_bytes_that_are_wrong_are_an_error() -> None:
    failover = start()
    failover.receive(LARGE)
    decision = check_wrong(failover)
    assert isinstance(decision, Raise)
    assert isinstance(decision.error, DigestMismatchError)
    assert decision.error.reference == "a"
    assert decision.error.suspects == (1,)
    assert decision.fault == Fault(A)


def mix(*sources: tuple[BlobCandidate, int]) -> Failover:
    """A small blob, of which each source served some bytes and failed."""
    failover = Failover(DIGEST, 24, start=0, end=None)
    for number, (source, count) in enumerate(sources):
        if number:
            fail(failover, ServerError("x"))
        failover.begin(source, None, preverified=False)
        failover.receive(count)
    return failover


def test_bytes_of_several_that_do_not_fit_are_the_fault_of_none_for_certain() -> None:
    failover = mix((A, 10), (B, 14))
    decision = check_wrong(failover)
    assert decision == StartOver(0, None, (A, B), Fault(B, certain=False))
    # From now on each serves alone: after a failure the next one starts over.
    failover.begin(A, None, preverified=False)
    failover.receive(10)
    assert isinstance(fail(failover, ServerError("x")), StartOver)


def test_a_source_that_served_nothing_is_not_at_fault_and_is_asked_again() -> None:
    decision = check_wrong(mix((A, 24), (B, 0)))
    assert decision == StartOver(0, None, (B,), Fault(A))
    decision = check_wrong(mix((A, 10), (B, 14), (C, 0)))
    assert decision == StartOver(0, None, (C, A, B), Fault(C, certain=False))


def test_an_empty_blob_that_is_wrong_is_the_fault_of_the_last_source() -> None:
    decision = check_wrong(start(0))
    assert decision == StartOver(0, None, (), Fault(A))


# What was served


def test_parts_are_recorded_once_and_joined() -> None:
    failover = start()
    failover.receive(10)
    assert failover.list_served() == [Served("a", 1, 0, 10)]
    assert failover.record_part() == Served("a", 1, 0, 10)
    assert failover.record_part() is None
    failover.begin(A, None, preverified=False)
    failover.receive(5)
    failover.record_part()
    failover.begin(B, None, preverified=False)
    failover.receive(1)
    assert failover.list_served() == [Served("a", 1, 0, 15), Served("b", 2, 15, 16)]
    assert failover.parts.members == (1,)


# All sources, all failures


@dataclass
class Run:
    """A blob that is read without an event loop, as `FailoverReader` does it."""

    failover: Failover
    waiting: list[Named]
    chunk: int
    asked: list[tuple[str, int]] = field(default_factory=list)
    content: bytearray = field(default_factory=bytearray)
    released: int = 0
    """Bytes that the caller has."""
    decisions: list[Decision] = field(default_factory=list)
    now: float = 0.0

    def read(self) -> SupplementedError | None:
        """Read until the blob is there, or an error is raised."""
        failover = self.failover
        decision: Decision = NextCandidate(failover.position, failover.end_to_ask)
        while True:
            if isinstance(decision, Raise):
                return decision.error
            source = self.choose(decision)
            if source is None:
                return NetworkError("no candidate is left")
            self.asked.append((source.reference, decision.start))
            turn = source.next_turn()
            if turn.kind in BEFORE:
                if isinstance(decision, Resume):
                    decision = self.note(failover.refuse())
                elif isinstance(decision, StartOver):
                    decision = NextCandidate(decision.start, decision.end)
                continue
            failover.begin(as_candidate(source), turn.claims, preverified=False)
            failure = self.take(source, turn)
            if failure is None:
                return None
            failover.record_part()
            decision = self.note(failover.fail(failure, resumable=True, now=self.now, chance=0.0))

    def choose(self, decision: NextCandidate | Resume | StartOver) -> Named | None:
        if isinstance(decision, Resume):
            return cast("Named", self.failover.candidate)
        if isinstance(decision, StartOver):
            self.waiting[:0] = cast("tuple[Named, ...]", decision.first)
        return self.waiting.pop(0) if self.waiting else None

    def note(self, decision: Decision) -> Decision:
        self.decisions.append(decision)
        if isinstance(decision, StartOver):
            assert self.released == 0, "bytes that were released are void"
            assert self.failover.position == 0
            self.content.clear()
        elif not isinstance(decision, Raise):
            assert decision.start == self.failover.position == len(self.content)
        return decision

    def take(self, source: Named, turn: Turn) -> SupplementedError | None:
        """One body; what is wrong with it."""
        failover, data = self.failover, source.data
        end = len(data) if turn.kind == "serve" else min(len(data), turn.at)
        while failover.position < end:
            block = data[failover.position : min(end, failover.position + self.chunk)]
            self.content += block
            if failover.receive(len(block)):
                self.released = failover.position
        if turn.kind in BREAKS and failover.position < len(data):
            return cast("SupplementedError", BREAKS[turn.kind]())
        try:
            failover.record_part()
            failover.end(trusted=False)
            if failover.proof is Proof.HASHED:
                failover.check(Digest.of(bytes(self.content)))
        except SupplementedError as error:
            return error
        return None


KINDS: tuple[Kind, ...] = ("serve", "reset", "fin", "stall", "refuse", "down", "miss", "busy")


@given(data=st.binary(max_size=60), chunk=st.integers(1, 70), held=st.booleans(), some=st.data())
def test_sources_are_asked_as_the_serial_model_says(
    data: bytes, chunk: int, some: st.DataObject, *, held: bool
) -> None:
    turn = st.builds(
        Turn, st.sampled_from(KINDS), st.integers(0, len(data)), claims=st.just(len(data))
    )
    scripts = some.draw(st.lists(st.lists(turn, min_size=1, max_size=3), min_size=1, max_size=4))
    sources = [Named(f"s{n}", n, turns, data) for n, turns in enumerate(scripts)]
    expected = serve_serially(len(data), [(s.reference, s.member, s.turns) for s in sources])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("asupplemented.blobs.failover.SMALL_BLOB", 1000 if held else -1)
        run = Run(Failover(Digest.of(data), len(data), start=0, end=None), sources, chunk)
        error = run.read()
    assert run.asked == expected.asked
    assert (error is None) is expected.served_all
    assert run.failover.list_served() == expected.served
    assert run.failover.verified is (True if expected.served_all else None)


@given(size=st.sampled_from([None, 24]), held=st.booleans(), some=st.data())
def test_only_the_right_bytes_complete_a_blob_and_faults_are_certain_of_one_source_only(
    size: int | None, some: st.DataObject, *, held: bool
) -> None:
    turn = st.builds(
        Turn, st.sampled_from(KINDS), st.integers(0, 24), claims=st.sampled_from([None, 24, 24, 27])
    )
    sources: list[Named] = []
    for number in range(some.draw(st.integers(1, 4))):
        turns = some.draw(st.lists(turn, min_size=1, max_size=3))
        wrong = some.draw(st.sampled_from([None, None, 3, 20]))
        data = DATA if wrong is None else DATA[:wrong] + b"?" + DATA[wrong + 1 :]
        sources.append(Named(f"s{number}", number, turns, data))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("asupplemented.blobs.failover.SMALL_BLOB", 1000 if held else -1)
        run = Run(Failover(DIGEST, size, start=0, end=None), list(sources), 7)
        error = run.read()
    assert (error is None) is (run.failover.verified is True)
    if error is None:
        assert run.content == DATA

    def ends_early(turn: Turn) -> bool:
        """Whether the end of a short body cannot be told from that of another blob."""
        return turn.kind == "fin" and size is None and turn.claims is None

    honest = {s.reference for s in sources if s.data == DATA and not any(map(ends_early, s.turns))}
    for decision in run.decisions:
        fault = decision.fault
        if isinstance(decision, StartOver) and fault is not None and fault.progress is None:
            assert not fault.certain or fault.candidate.reference not in honest
