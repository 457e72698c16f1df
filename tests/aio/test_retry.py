"""The loop that tries again."""

from __future__ import annotations

import asyncio

import pytest

from asupplemented.aio.retry import Clock, FirstFailure, Retry, RetryPolicy, retry
from asupplemented.errors import NetworkError, ServerError, SupplementedError
from tests.clocks import FakeClock

Notes = list[tuple[str, int, float]]
AGAIN = Retry()


class Flaky:
    """Fails so many times, then succeeds; an attempt takes a second."""

    def __init__(self, clock: FakeClock, failures: int) -> None:
        self.clock = clock
        self.failures = failures
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        self.clock.time += 1.0
        if self.calls <= self.failures:
            raise NetworkError(f"failure {self.calls}")
        return "done"


async def run(
    operation: Flaky,
    clock: FakeClock,
    verdict: Retry | None = AGAIN,
    notes: Notes | None = None,
    first: FirstFailure | None = None,
) -> str:
    told = [] if notes is None else notes

    def notify(error: SupplementedError, attempt: int, delay: float) -> None:
        told.append((error.message, attempt, delay))

    return await retry(
        operation,
        judge=lambda error: verdict,
        policy=RetryPolicy(),
        clock=clock.clock,
        notify=notify,
        first=first,
    )


async def test_success_takes_one_attempt_and_no_sleep() -> None:
    clock = FakeClock()
    operation = Flaky(clock, failures=0)
    assert await run(operation, clock) == "done"
    assert operation.calls == 1
    assert clock.slept == []


async def test_RET06_it_sleeps_between_attempts_and_tells() -> None:
    clock, notes = FakeClock(), Notes()
    assert await run(Flaky(clock, failures=2), clock, notes=notes) == "done"
    assert clock.slept == [2.0, 4.0]
    assert notes == [("failure 1", 1, 2.0), ("failure 2", 2, 4.0)]


async def test_RET06_the_fifth_failure_is_raised_with_a_note() -> None:
    clock = FakeClock()
    operation = Flaky(clock, failures=9)
    with pytest.raises(NetworkError, match="failure 5") as caught:
        await run(operation, clock)
    assert operation.calls == 5
    assert clock.slept == [2.0, 4.0, 8.0, 16.0]
    assert caught.value.__notes__ == ["this was attempt 5, 35.0 s after the first one began"]


async def test_what_is_not_worth_it_is_raised_at_once() -> None:
    clock = FakeClock()
    operation = Flaky(clock, failures=1)
    with pytest.raises(NetworkError) as caught:
        await run(operation, clock, verdict=None)
    assert operation.calls == 1
    assert not hasattr(caught.value, "__notes__")


async def test_RET06_advice_and_fewer_attempts_are_heeded() -> None:
    clock = FakeClock()
    operation = Flaky(clock, failures=9)
    with pytest.raises(NetworkError):
        await run(operation, clock, verdict=Retry(after=7.0, attempts=3))
    assert clock.slept == [7.0, 7.0]


async def test_RET06_advice_beyond_the_longest_pause_fails_fast() -> None:
    clock = FakeClock()
    operation = Flaky(clock, failures=9)
    with pytest.raises(NetworkError):
        await run(operation, clock, verdict=Retry(after=61.0))
    assert (operation.calls, clock.slept) == (1, [])


async def test_RET06_an_attempt_that_was_made_already_counts() -> None:
    clock, notes = FakeClock(), Notes()
    clock.time = 10.0
    operation = Flaky(clock, failures=9)
    first = FirstFailure(NetworkError("failure 0"), start=0.0)
    with pytest.raises(NetworkError, match="failure 4") as caught:
        await run(operation, clock, notes=notes, first=first)
    assert operation.calls == 4
    assert notes[0] == ("failure 0", 1, 2.0)
    assert caught.value.__notes__ == ["this was attempt 5, 44.0 s after the first one began"]


async def test_a_first_failure_that_is_final_is_raised_as_it_is() -> None:
    clock = FakeClock()
    operation = Flaky(clock, failures=0)
    first = FirstFailure(NetworkError("failure 0"), start=0.0)
    with pytest.raises(NetworkError) as caught:
        await run(operation, clock, verdict=None, first=first)
    assert caught.value is first.error
    assert operation.calls == 0


async def test_each_failure_is_judged_by_itself() -> None:
    clock, seen = FakeClock(), list[int]()

    async def operation() -> None:
        raise ServerError("no", status=503 - len(seen))

    def judge(error: SupplementedError) -> Retry | None:
        assert isinstance(error, ServerError)
        seen.append(error.status)
        return Retry() if error.status != 501 else None

    with pytest.raises(ServerError):
        await retry(
            operation,
            judge=judge,
            policy=RetryPolicy(),
            clock=clock.clock,
            notify=lambda *_: None,
        )
    assert seen == [503, 502, 501]


async def test_strangers_are_not_retried() -> None:
    async def operation() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await retry(
            operation,
            judge=lambda error: Retry(),
            policy=RetryPolicy(),
            clock=FakeClock().clock,
            notify=lambda *_: None,
        )


async def test_RET06_a_sleep_can_be_cancelled() -> None:
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.get_running_loop().create_future()

    async def operation() -> None:
        raise NetworkError("no")

    task = asyncio.create_task(
        retry(
            operation,
            judge=lambda error: Retry(),
            policy=RetryPolicy(),
            clock=Clock(sleep=sleep),
            notify=lambda *_: None,
        )
    )
    await asleep.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
