"""The congestion window: halved by refusals and late answers, and whole again in time."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.aio.congestion import EPOCH, RECOVERY, SAMPLES, CongestionWindow

FAST: Final = 0.02
SLOW: Final = 1.0


def answer(window: CongestionWindow, at: float, seconds: float, times: int = 1) -> None:
    """So many answers, to requests that were sent at a moment."""
    for _ in range(times):
        window.record_first_byte(at, at + seconds, 1)


# Each case: what happens, as (kind, sent, seconds, times), and the limit right after it.
CASES: Final = {
    "nothing": ((), 64),
    "answers": ((("answer", 0, FAST, 100),), 64),
    "one refusal": ((("refuse", 0, FAST, 1),), 32),
    "a round of refusals": ((("refuse", 0, FAST, 64),), 32),
    "two rounds of refusals": ((("refuse", 0, 0, 9), ("refuse", 1e-9, 0, 9)), 16),
    "many rounds": (tuple(("refuse", n * 1e-9, 0.0, 1) for n in range(20)), 1),
    "one late answer": ((("answer", 0, FAST, 20), ("answer", 1, 30, 1)), 64),
    "late ones among others": (
        (("answer", 0, FAST, 20), *(("answer", 1, s, 1) for s in (SLOW, SLOW, FAST) * 20)),
        64,
    ),
    "late answers": ((("answer", 0, FAST, 20), ("answer", 1, SLOW, SAMPLES)), 32),
    "a round of late answers": ((("answer", 0, FAST, 20), ("answer", 1, SLOW, 64)), 32),
    "a server that is always slow": ((("answer", 0, SLOW, 100),), 64),
    "busy for a moment": ((("answer", 0, FAST, 20), ("answer", 1, 0.3, 64)), 64),
}


@pytest.mark.parametrize(("happened", "limit"), CASES.values(), ids=CASES)
def test_RET11_what_happened_decides_the_limit(
    happened: tuple[tuple[str, float, float, int], ...], limit: int
) -> None:
    window = CongestionWindow(64, 1)
    now = 0.0
    for kind, sent, seconds, times in happened:
        now = max(now, sent + seconds)
        for _ in range(times):
            if kind == "answer":
                window.record_first_byte(sent, sent + seconds, 1)
            else:
                window.record_refusal(sent, sent + seconds)
    assert window.limit(now) == pytest.approx(limit, rel=1e-3)


def test_RET11_a_window_full_of_answers_adds_one_step() -> None:
    window = CongestionWindow(64, 2)
    window.record_refusal(0, 0)
    assert window.limit(0) == 32
    for _ in range(8):  # each has an eighth of the window
        window.record_first_byte(1e-9, 1e-9, 4)
    assert 33.8 < window.limit(0) <= 34
    assert not window.whole


def test_RET11_requests_of_before_do_not_make_it_grow() -> None:
    window = CongestionWindow(64, 1)
    window.record_refusal(0, 1)
    answer(window, 0.5, 1, times=100)
    assert window.limit(1) == 32


def test_RET11_it_is_whole_again_in_time_without_any_answer() -> None:
    window = CongestionWindow(64, 1)
    for moment in (1e-9, 2e-9, 3e-9):
        window.record_refusal(moment, moment)
    assert window.limit(RECOVERY / 2) == pytest.approx(8 + 32)
    assert window.limit(RECOVERY) == 64
    assert window.whole


def test_RET11_a_server_that_became_slower_for_good_is_compared_with_itself() -> None:
    window = CongestionWindow(64, 1)
    answer(window, 0, FAST, times=SAMPLES)
    answer(window, EPOCH, SLOW, times=SAMPLES)
    assert window.limit(EPOCH + SLOW) == 32
    for at in (2 * EPOCH + 2, 3 * EPOCH + 4):
        answer(window, at, SLOW, times=SAMPLES)
        assert window.limit(at + RECOVERY) == 64
    answer(window, 3 * EPOCH + 6, SLOW, times=SAMPLES)
    assert window.limit(3 * EPOCH + 6) == 64


STEPS: Final = st.lists(
    st.tuples(
        st.sampled_from(["refuse", "answer"]),
        st.floats(0, 2, allow_subnormal=False),  # seconds since the step before
        st.floats(0, 40, allow_subnormal=False),  # how long ago it was sent
        st.integers(1, 64),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 64))
def test_RET11_always_within_bounds_and_halved_once_a_round_trip(
    steps: list[tuple[str, float, float, int]], step: int
) -> None:
    window = CongestionWindow(64, step)
    now = 0.0
    smaller: float | None = None
    """When it became smaller last."""
    for kind, later, ago, weight in steps:
        now += later
        before = window.limit(now)
        sent = now - ago
        if kind == "refuse":
            window.record_refusal(sent, now)
        else:
            window.record_first_byte(sent, now, weight)
        after = window.limit(now)
        assert step <= after <= 64
        if after < before:
            assert after == pytest.approx(max(step, before / 2))
            assert smaller is None or sent > smaller
            smaller = now
        elif kind == "answer":
            assert after - before <= step * weight / before + 1e-9
    assert window.limit(now + RECOVERY) == 64
