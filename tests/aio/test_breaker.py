"""Circuit breakers: closed, open, half open, and how long each lasts."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from asupplemented.aio.breaker import Breaker, BreakerPolicy, Fitness

POLICY = BreakerPolicy(pause=10.0, longest=75.0, lie=300.0)
ASIDE, FIT, ON_PROBATION = Fitness.ASIDE, Fitness.FIT, Fitness.ON_PROBATION


def probe_and_fail(breaker: Breaker, now: float) -> None:
    breaker.probe(now)
    breaker.fail(now)


def test_who_never_failed_is_fit_at_any_time() -> None:
    for now in (-1e9, 0.0, 1e9):
        assert Breaker(POLICY).judge(now) is FIT


@pytest.mark.parametrize("now", [-500.0, 0.0, 1e6])
def test_who_failed_is_aside_for_a_while_and_then_on_probation(now: float) -> None:
    breaker = Breaker(POLICY)
    breaker.fail(now)
    assert breaker.judge(now) is ASIDE
    assert breaker.judge(now + 9.9) is ASIDE
    assert breaker.judge(now + 10.0) is ON_PROBATION
    assert breaker.judge(now + 1e6) is ON_PROBATION


def test_a_success_forgets_everything() -> None:
    breaker = Breaker(POLICY)
    breaker.fail(0.0, lied=True)
    breaker.succeed()
    assert breaker.judge(0.0) is FIT
    breaker.fail(0.0)
    assert breaker.judge(10.0) is ON_PROBATION


def test_each_probe_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    breaker, now = Breaker(POLICY), 0.0
    breaker.fail(now)
    for pause in (10.0, 20.0, 40.0, 75.0, 75.0):
        assert breaker.judge(now + pause - 0.1) is ASIDE
        now += pause
        assert breaker.judge(now) is ON_PROBATION
        probe_and_fail(breaker, now)


def test_many_blobs_that_break_off_at_once_are_one_failure() -> None:
    breaker = Breaker(POLICY)
    for _ in range(50):
        breaker.fail(3.0)
    assert breaker.judge(13.0) is ON_PROBATION
    probe_and_fail(breaker, 13.0)
    for _ in range(50):
        breaker.fail(14.0)
    assert breaker.judge(32.9) is ASIDE
    assert breaker.judge(33.0) is ON_PROBATION


def test_who_is_asked_while_aside_because_nobody_else_is_there_fails_once_more() -> None:
    breaker = Breaker(POLICY)
    breaker.fail(0.0)
    probe_and_fail(breaker, 5.0)
    assert breaker.judge(24.9) is ASIDE
    assert breaker.judge(25.0) is ON_PROBATION


def test_one_may_probe_and_the_others_wait() -> None:
    breaker = Breaker(POLICY)
    breaker.fail(0.0)
    breaker.probe(10.0)
    assert breaker.judge(10.0) is ASIDE
    breaker.abandon()
    assert breaker.judge(10.0) is ON_PROBATION
    breaker.probe(11.0)
    breaker.succeed()
    assert breaker.judge(11.0) is FIT


def test_nobody_waits_for_a_probe_for_ever() -> None:
    breaker = Breaker(POLICY)
    breaker.fail(0.0)
    breaker.probe(10.0)
    assert breaker.judge(19.9) is ASIDE
    assert breaker.judge(20.0) is ON_PROBATION


def test_the_pause_that_is_left() -> None:
    breaker = Breaker(POLICY)
    assert breaker.pause(0.0) == 0.0
    breaker.fail(0.0)
    assert (breaker.pause(4.0), breaker.pause(10.0), breaker.pause(99.0)) == (6.0, 0.0, 0.0)
    breaker.probe(12.0)
    assert breaker.pause(15.0) == 7.0


def test_who_lied_is_aside_for_longer() -> None:
    breaker = Breaker(POLICY)
    breaker.fail(0.0, lied=True)
    assert breaker.judge(299.9) is ASIDE
    assert breaker.judge(300.0) is ON_PROBATION
    once_more = Breaker(POLICY)
    once_more.fail(0.0)
    once_more.fail(1.0, lied=True)
    assert once_more.judge(300.9) is ASIDE


@pytest.mark.parametrize(("asked", "pause"), [(3.0, 10.0), (60.0, 60.0), (1e9, 300.0)])
def test_who_asks_for_a_pause_gets_it_within_reason(asked: float, pause: float) -> None:
    breaker = Breaker(POLICY)
    breaker.fail(0.0, pause=asked)
    assert breaker.judge(pause - 0.1) is ASIDE
    assert breaker.judge(pause) is ON_PROBATION


def test_a_pause_that_is_asked_for_while_aside_counts_too() -> None:
    breaker = Breaker(POLICY)
    breaker.fail(0.0)
    breaker.fail(1.0, pause=60.0)
    assert breaker.judge(60.9) is ASIDE
    breaker.fail(2.0, pause=1.0)
    assert breaker.judge(60.9) is ASIDE
    assert breaker.judge(61.0) is ON_PROBATION


def test_failing_for_years_does_not_overflow() -> None:
    breaker, now = Breaker(POLICY), 0.0
    for _ in range(5000):
        now += 100.0
        probe_and_fail(breaker, now)
    assert breaker.judge(now + 75.0) is ON_PROBATION


@pytest.mark.parametrize("field", ["pause", "longest", "lie"])
def test_no_negative_times(field: str) -> None:
    with pytest.raises(ValueError, match="no negative times"):
        BreakerPolicy(**{field: -1.0})


class BreakerMachine(RuleBasedStateMachine):
    """A breaker against the laws, told in another way: by what was seen of it."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(POLICY)
        self.now = 0.0
        self.troubles = 0
        """Since the last success; what fails while it is aside anyway is none of its own."""
        self.never_before = 0.0
        """Nobody but a prober should ask before."""
        self.probe_ends: float | None = None

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(lied=st.booleans(), pause=st.none() | st.floats(0, 1000))
    def fail(self, pause: float | None, *, lied: bool) -> None:
        probing = self.probe_ends is not None and self.now < self.probe_ends
        counts = probing or not self.troubles or self.now >= self.never_before
        self.troubles += counts
        usual = min(10.0 * 2 ** (self.troubles - 1), 75.0) if counts else 0.0
        wanted = min(max(300.0 if lied else usual, pause or 0.0), 300.0)
        self.breaker.fail(self.now, pause=pause, lied=lied)
        self.never_before = max(self.never_before, self.now + wanted)
        self.probe_ends = None

    @rule()
    def probe(self) -> None:
        if self.troubles:
            self.breaker.probe(self.now)
            self.probe_ends = self.now + 10.0

    @rule()
    def succeed(self) -> None:
        self.breaker.succeed()
        self.troubles, self.probe_ends, self.never_before = 0, None, self.now

    @rule()
    def abandon(self) -> None:
        self.breaker.abandon()
        self.probe_ends = None

    @invariant()
    def it_says_what_was_seen(self) -> None:
        fitness = self.breaker.judge(self.now)
        assert fitness is self.breaker.judge(self.now)
        waiting = max(self.never_before, self.probe_ends or 0.0)
        if not self.troubles:
            assert fitness is FIT
        else:
            assert fitness is (ASIDE if self.now < waiting else ON_PROBATION)

    @invariant()
    def nobody_is_aside_for_ever(self) -> None:
        assert self.breaker.judge(self.now + 300.0) is not ASIDE


TestBreakerMachine = BreakerMachine.TestCase
