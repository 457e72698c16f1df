"""The retry schedule, and reading Retry-After."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.aio.retry import Backoff, RetryPolicy, parse_retry_after

NOW = 1_700_000_000.0


def schedule(policy: RetryPolicy, random: float = 1.0) -> list[float]:
    """The pauses of an operation that always fails at once."""
    backoff = Backoff(policy, start=0.0, random=lambda: random)
    now, pauses = 0.0, list[float]()
    while (delay := backoff.next_delay(now)) is not None:
        pauses.append(delay)
        now += delay
    return pauses


def http_date(stamp: float) -> str:
    return format_datetime(datetime.fromtimestamp(stamp, UTC), usegmt=True)


def test_RET06_five_attempts_with_pauses_that_double() -> None:
    assert schedule(RetryPolicy()) == [2, 4, 8, 16]


@pytest.mark.parametrize("random", [0.0, 0.25, 0.999])
def test_RET06_full_jitter_scales_each_pause_down_to_nothing(random: float) -> None:
    assert schedule(RetryPolicy(), random) == [random * pause for pause in (2, 4, 8, 16)]


def test_RET06_no_pause_is_longer_than_the_longest() -> None:
    policy = RetryPolicy(attempts=9, longest=10, budget=1000)
    assert schedule(policy) == [2, 4, 8, 10, 10, 10, 10, 10]


def test_RET06_the_budget_ends_the_attempts() -> None:
    assert schedule(RetryPolicy(attempts=50)) == [2, 4, 8, 16, 32]  # 64 would end at 122


def test_RET06_slow_attempts_use_the_budget_up_too() -> None:
    backoff = Backoff(RetryPolicy(), start=100.0, random=lambda: 0.5)
    assert backoff.next_delay(160.0) == 1.0
    assert backoff.next_delay(219.0) is None
    assert backoff.failures == 2


def test_RET06_advice_replaces_the_pause_up_to_the_longest() -> None:
    backoff = Backoff(RetryPolicy(), start=0.0, random=lambda: 1.0)
    assert backoff.next_delay(0.0, advice=60.0) == 60.0
    assert backoff.next_delay(60.0, advice=60.1) is None


@pytest.mark.parametrize("advice", [0.0, -0.0, -5.0])
def test_RET08_advice_of_nothing_or_less_is_no_pause(advice: float) -> None:
    backoff = Backoff(RetryPolicy(), start=0.0, random=lambda: 1.0)
    assert backoff.next_delay(0.0, advice=advice) == 0.0


def test_RET06_a_kind_of_failure_may_be_worth_fewer_attempts() -> None:
    backoff = Backoff(RetryPolicy(), start=0.0, random=lambda: 0.0)
    assert backoff.next_delay(0.0, attempts=2) == 0.0
    assert backoff.next_delay(0.0, attempts=2) is None


def test_one_attempt_is_no_retry() -> None:
    assert schedule(RetryPolicy(attempts=1)) == []


def test_thousands_of_attempts_do_not_overflow() -> None:
    policy = RetryPolicy(attempts=3000, budget=1e9)
    assert len(schedule(policy)) == 2999


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"base": -1.0}, {"longest": -1.0}, {"budget": -1.0}]
)
def test_a_policy_without_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="policy"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


@given(
    st.integers(1, 8),
    st.floats(0, 100),
    st.floats(0, 300),
    st.lists(st.tuples(st.floats(0, 50), st.none() | st.floats(-10, 1e12)), max_size=20),
    st.floats(0, 1, exclude_max=True),
)
def test_RET08_no_pause_is_negative_too_long_or_past_the_budget(
    attempts: int,
    longest: float,
    budget: float,
    failures: list[tuple[float, float | None]],
    random: float,
) -> None:
    policy = RetryPolicy(attempts=attempts, longest=longest, budget=budget)
    backoff = Backoff(policy, start=0.0, random=lambda: random)
    now, pauses = 0.0, 0
    for lasted, advice in failures:
        now += lasted
        delay = backoff.next_delay(now, advice=advice)
        if delay is None:
            break
        pauses += 1
        now += delay
        assert 0 <= delay <= longest
        assert now <= budget
    assert pauses < attempts


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        (["0"], 0.0),
        (["-5"], 0.0),
        (["+5"], 5.0),
        ([" 7 "], 7.0),
        (["1.5"], 1.5),
        (["99999999999"], 99999999999.0),
        (["abc"], None),
        ([""], None),
        (["9" * 5000], None),
        (["٣"], None),
        (["1_0"], None),
        (["NaN"], None),
        (["inf"], None),
        (["soon", "3", "9"], 3.0),
        (["3", "9"], 3.0),
        ([http_date(NOW + 30)], 30.0),
        ([http_date(NOW - 30)], 0.0),
        (["Wed, 15 Nov 2023 99:99:99 GMT"], None),
        (["Wed, 15 Nov 99999 00:00:00 GMT"], None),
        (["Wed, 15 Nov 2023 00:00:00 +9999999"], None),
        (["Wed, " + "1" * 1_000_000], None),
    ],
)
def test_RET08_retry_after(values: list[str], expected: float | None) -> None:
    assert parse_retry_after(values, now=NOW) == expected


@given(st.lists(st.text(), max_size=3))
def test_RET08_nothing_breaks_the_reader(values: list[str]) -> None:
    seconds = parse_retry_after(values, now=NOW)
    assert seconds is None or seconds >= 0
