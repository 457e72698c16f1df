"""Resumption: whether the same source is asked for the rest (rules RES-02 to RES-04)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.blobs.history import Resumption, ResumptionPolicy
from asupplemented.errors import ConfigurationError
from asupplemented.limits import MIB

POLICY = ResumptionPolicy()


@pytest.mark.parametrize("field", ["progress", "interval", "pause", "jitter"])
def test_a_policy_has_no_negative_numbers(field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field}=-1"):
        ResumptionPolicy(**{field: -1})


def again_at(position: int, now: float) -> Resumption:
    """The record of one who broke off before."""
    record = Resumption(POLICY)
    assert record.begin(position, now, 0.0) == 1.0
    return record


@pytest.mark.parametrize(
    ("retried", "bytes_since", "seconds_since", "allowed"),
    [
        (True, 2 * MIB, 0.001, True),
        (True, 1, 120.0, True),
        (True, 1, 0.001, False),
        (False, 1, 30.0, True),
        (False, 0, 30.0, True),
    ],
)
def test_RES03_the_table(
    bytes_since: int, seconds_since: float, *, retried: bool, allowed: bool
) -> None:
    record = again_at(1000, 50.0) if retried else Resumption(POLICY)
    assert record.allows(1000 + bytes_since, 50.0 + seconds_since) is allowed


@pytest.mark.parametrize(("more", "allowed"), [(MIB - 1, False), (MIB, True)])
def test_RES02_a_mebibyte_since_the_last_time_is_enough(more: int, *, allowed: bool) -> None:
    assert again_at(77, 0.0).allows(77 + more, 0.0) is allowed
    assert again_at(77, 0.0).allows(77 + more, 0.0, stalled=True) is allowed


@pytest.mark.parametrize(("seconds", "allowed"), [(59.9, False), (60.0, True)])
def test_RES02_a_minute_since_the_last_time_is_enough(seconds: float, *, allowed: bool) -> None:
    assert again_at(77, 5.0).allows(77, 5.0 + seconds) is allowed


def test_SEC07_the_time_that_a_source_let_us_wait_does_not_count() -> None:
    assert not again_at(77, 5.0).allows(78, 500.0, stalled=True)
    assert Resumption(POLICY).allows(78, 500.0, stalled=True)


def test_RES02_it_is_the_last_time_that_counts() -> None:
    record = again_at(0, 0.0)
    record.begin(5 * MIB, 100.0, 0.0)
    assert not record.allows(6 * MIB - 1, 159.0)
    assert record.allows(6 * MIB, 100.0)
    assert record.allows(5 * MIB, 160.0)


def test_RES02_the_policy_says_how_much_is_enough() -> None:
    record = Resumption(ResumptionPolicy(progress=10, interval=2.0))
    record.begin(0, 0.0, 0.0)
    assert [record.allows(9, 1.9), record.allows(10, 1.9), record.allows(9, 2.0)] == [
        *(False, True, True),
    ]


@given(st.floats(0, 1, exclude_max=True))
def test_RES04_the_pause_is_a_second_and_up_to_a_tenth_more(chance: float) -> None:
    assert 1.0 <= Resumption(POLICY).begin(0, 0.0, chance) <= 1.1


@given(st.lists(st.tuples(st.integers(0, 3 * MIB), st.floats(0, 100)), max_size=40))
def test_RES02_the_same_source_is_asked_as_often_as_progress_and_time_allow(
    breaks: list[tuple[int, float]],
) -> None:
    record, position, now, times = Resumption(POLICY), 0, 0.0, 0
    for more, seconds in breaks:
        position, now = position + more, now + seconds
        if record.allows(position, now):
            record.begin(position, now, 0.5)
            times += 1
    assert times <= 1 + position // MIB + now // 60
    assert times >= min(1, len(breaks))
