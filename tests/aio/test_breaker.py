"""Circuit breakers: closed, open, half-open, and how long each lasts."""

from __future__ import annotations

from math import nan

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from asupplemented.aio.breaker import Breaker, BreakerPolicy, BreakerState, ReportOnce
from asupplemented.errors import ConfigurationError

POLICY = BreakerPolicy(pause=10.0, longest=75.0, wrong_content=300.0)
CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN


def probe_and_fail(breaker: Breaker, now: float) -> None:
    breaker.probe(now)
    breaker.record_failure(now)


def test_a_breaker_is_closed_before_the_first_failure() -> None:
    for now in (-1e9, 0.0, 1e9):
        assert Breaker(POLICY).state(now) is CLOSED


@pytest.mark.parametrize("now", [-500.0, 0.0, 1e6])
def test_a_failure_opens_for_a_pause_and_then_the_breaker_is_half_open(now: float) -> None:
    breaker = Breaker(POLICY)
    breaker.record_failure(now)
    assert breaker.state(now) is OPEN
    assert breaker.state(now + 9.9) is OPEN
    assert breaker.state(now + 10.0) is HALF_OPEN
    assert breaker.state(now + 1e6) is HALF_OPEN


def test_a_success_closes() -> None:
    breaker = Breaker(POLICY)
    breaker.record_failure(0.0, wrong_content=True)
    breaker.record_success()
    assert breaker.state(0.0) is CLOSED
    breaker.record_failure(0.0)
    assert breaker.state(10.0) is HALF_OPEN


def test_each_probe_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    breaker, now = Breaker(POLICY), 0.0
    breaker.record_failure(now)
    for pause in (10.0, 20.0, 40.0, 75.0, 75.0):
        assert breaker.state(now + pause - 0.1) is OPEN
        now += pause
        assert breaker.state(now) is HALF_OPEN
        probe_and_fail(breaker, now)


def test_failures_at_the_same_time_are_one_failure() -> None:
    breaker = Breaker(POLICY)
    for _ in range(50):
        breaker.record_failure(3.0)
    assert breaker.state(13.0) is HALF_OPEN
    probe_and_fail(breaker, 13.0)
    for _ in range(50):
        breaker.record_failure(14.0)
    assert breaker.state(32.9) is OPEN
    assert breaker.state(33.0) is HALF_OPEN


def test_a_probe_of_an_open_breaker_that_fails_doubles_the_pause() -> None:
    breaker = Breaker(POLICY)
    breaker.record_failure(0.0)
    probe_and_fail(breaker, 5.0)
    assert breaker.state(24.9) is OPEN
    assert breaker.state(25.0) is HALF_OPEN


def test_one_caller_probes_and_the_others_wait() -> None:
    breaker = Breaker(POLICY)
    breaker.record_failure(0.0)
    breaker.probe(10.0)
    assert breaker.state(10.0) is OPEN
    breaker.release()
    assert breaker.state(10.0) is HALF_OPEN
    breaker.probe(11.0)
    breaker.record_success()
    assert breaker.state(11.0) is CLOSED


def test_a_probe_is_waited_for_no_longer_than_the_first_pause() -> None:
    breaker = Breaker(POLICY)
    breaker.record_failure(0.0)
    breaker.probe(10.0)
    assert breaker.state(19.9) is OPEN
    assert breaker.state(20.0) is HALF_OPEN


def test_the_seconds_that_remain() -> None:
    breaker = Breaker(POLICY)
    assert breaker.remaining(0.0) == 0.0
    breaker.record_failure(0.0)
    assert (breaker.remaining(4.0), breaker.remaining(10.0), breaker.remaining(99.0)) == (
        6.0,
        0.0,
        0.0,
    )
    breaker.probe(12.0)
    assert breaker.remaining(15.0) == 7.0


def test_wrong_content_opens_for_longer() -> None:
    breaker = Breaker(POLICY)
    breaker.record_failure(0.0, wrong_content=True)
    assert breaker.state(299.9) is OPEN
    assert breaker.state(300.0) is HALF_OPEN
    once_more = Breaker(POLICY)
    once_more.record_failure(0.0)
    once_more.record_failure(1.0, wrong_content=True)
    assert once_more.state(300.9) is OPEN


@pytest.mark.parametrize(("asked", "pause"), [(3.0, 10.0), (60.0, 60.0), (1e9, 300.0)])
def test_a_pause_that_the_source_asks_for_counts_up_to_the_longest(
    asked: float, pause: float
) -> None:
    breaker = Breaker(POLICY)
    breaker.record_failure(0.0, pause=asked)
    assert breaker.state(pause - 0.1) is OPEN
    assert breaker.state(pause) is HALF_OPEN


def test_a_pause_that_is_asked_for_while_open_counts_too() -> None:
    breaker = Breaker(POLICY)
    breaker.record_failure(0.0)
    breaker.record_failure(1.0, pause=60.0)
    assert breaker.state(60.9) is OPEN
    breaker.record_failure(2.0, pause=1.0)
    assert breaker.state(60.9) is OPEN
    assert breaker.state(61.0) is HALF_OPEN


def test_many_failures_do_not_overflow() -> None:
    breaker, now = Breaker(POLICY), 0.0
    for _ in range(5000):
        now += 100.0
        probe_and_fail(breaker, now)
    assert breaker.state(now + 75.0) is HALF_OPEN


@pytest.mark.parametrize("value", [-1.0, nan])
@pytest.mark.parametrize("field", ["pause", "longest", "wrong_content"])
def test_a_time_below_zero_is_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match="0 seconds or more"):
        BreakerPolicy(**{field: value})


def test_a_trouble_is_reported_once_until_it_ends() -> None:
    told: list[str] = []
    once = ReportOnce()
    once.report(told.append, "first")
    once.report(told.append, "again")
    assert told == ["first"]
    once.end()
    once.report(told.append, "second")
    assert told == ["first", "second"]


class BreakerMachine(RuleBasedStateMachine):
    """A breaker against a second model of its rules, which keeps what was observed."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(POLICY)
        self.now = 0.0
        self.troubles = 0
        """Failures that count since the last success."""
        self.never_before = 0.0
        """Only a probe should ask before."""
        self.probe_ends: float | None = None

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(wrong_content=st.booleans(), pause=st.none() | st.floats(0, 1000))
    def fail(self, pause: float | None, *, wrong_content: bool) -> None:
        probing = self.probe_ends is not None and self.now < self.probe_ends
        counts = probing or not self.troubles or self.now >= self.never_before
        self.troubles += counts
        usual = min(10.0 * 2 ** (self.troubles - 1), 75.0) if counts else 0.0
        wanted = min(max(300.0 if wrong_content else usual, pause or 0.0), 300.0)
        self.breaker.record_failure(self.now, pause=pause, wrong_content=wrong_content)
        self.never_before = max(self.never_before, self.now + wanted)
        self.probe_ends = None

    @rule()
    def probe(self) -> None:
        if self.troubles:
            self.breaker.probe(self.now)
            self.probe_ends = self.now + 10.0

    @rule()
    def succeed(self) -> None:
        self.breaker.record_success()
        self.troubles, self.probe_ends, self.never_before = 0, None, self.now

    @rule()
    def release(self) -> None:
        self.breaker.release()
        self.probe_ends = None

    @invariant()
    def it_says_what_was_observed(self) -> None:
        state = self.breaker.state(self.now)
        assert state is self.breaker.state(self.now)
        waiting = max(self.never_before, self.probe_ends or 0.0)
        if not self.troubles:
            assert state is CLOSED
        else:
            assert state is (OPEN if self.now < waiting else HALF_OPEN)

    @invariant()
    def it_is_never_open_for_ever(self) -> None:
        assert self.breaker.state(self.now + 300.0) is not OPEN


TestBreakerMachine = BreakerMachine.TestCase
