"""Whether the same source is asked for the rest of a body."""

from __future__ import annotations

import pytest

from asupplemented.limits import MIB
from asupplemented.resumption import Resumption, ResumptionPolicy

AT = 5 * MIB
NOON = 1000.0


def asked_before() -> Resumption:
    resumption = Resumption(ResumptionPolicy())
    resumption.begin(AT, NOON, 0.0)
    return resumption


@pytest.mark.parametrize(
    ("progress", "seconds", "allowed"),
    [(2 * MIB, 0.001, True), (1, 120.0, True), (1, 0.001, False)],
)
def test_RES03_after_the_first_time(progress: int, seconds: float, allowed: bool) -> None:  # noqa: FBT001 - a column
    assert asked_before().allows(AT + progress, NOON + seconds) is allowed


@pytest.mark.parametrize(("position", "now"), [(1, 30.0), (0, 0.0)])
def test_RES03_the_first_time_is_always_allowed(position: int, now: float) -> None:
    resumption = Resumption(ResumptionPolicy())
    assert not resumption.happened
    assert resumption.allows(position, now)
    assert resumption.allows(position, now, stalled=True)


@pytest.mark.parametrize(
    ("progress", "seconds", "allowed"),
    [(MIB, 0.0, True), (MIB - 1, 0.0, False), (0, 60.0, True), (0, 59.9, False)],
)
def test_RES02_both_thresholds(progress: int, seconds: float, allowed: bool) -> None:  # noqa: FBT001 - a column
    assert asked_before().allows(AT + progress, NOON + seconds) is allowed


def test_RES02_progress_counts_from_the_last_time() -> None:
    resumption = asked_before()
    resumption.begin(AT + MIB, NOON + 1, 0.0)
    assert resumption.happened
    assert not resumption.allows(AT + MIB + 1, NOON + 2)
    assert not resumption.allows(AT + 2 * MIB - 1, NOON + 60.9)
    assert resumption.allows(AT + 2 * MIB, NOON + 2)


def test_RES02_letting_us_wait_is_no_merit() -> None:
    assert not asked_before().allows(AT + 1, NOON + 120, stalled=True)
    assert asked_before().allows(AT + MIB, NOON + 120, stalled=True)


def test_RES02_the_policy_says_how_much_is_enough() -> None:
    resumption = Resumption(ResumptionPolicy(progress=10, interval=2.0))
    resumption.begin(0, 0.0, 0.0)
    assert resumption.allows(10, 0.0)
    assert resumption.allows(0, 2.0)
    assert not resumption.allows(9, 1.9)


@pytest.mark.parametrize(("chance", "pause"), [(0.0, 1.0), (0.5, 1.05)])
def test_RES04_the_pause_is_a_second_and_up_to_a_tenth(chance: float, pause: float) -> None:
    assert Resumption(ResumptionPolicy()).begin(0, 0.0, chance) == pytest.approx(pause)
