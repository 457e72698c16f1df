"""Single flight."""

from __future__ import annotations

import asyncio

import pytest

from asupplemented.aio.concurrency import SingleFlight, SingleFlightMap
from asupplemented.errors import NetworkError


class Work:
    """Counts, and waits to be let go."""

    def __init__(self) -> None:
        self.calls = 0
        self.go = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self) -> int:
        self.calls += 1
        call = self.calls
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return call


async def start(flight: SingleFlight[int], work: Work, count: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(flight.run(work)) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_many_callers_share_one_result() -> None:
    flight, work = SingleFlight[int](), Work()
    tasks = await start(flight, work, 5)
    assert not flight.idle
    work.go.set()
    assert await asyncio.gather(*tasks) == [1, 1, 1, 1, 1]
    assert flight.idle


async def test_nothing_is_remembered() -> None:
    flight, work = SingleFlight[int](), Work()
    work.go.set()
    assert [await flight.run(work), await flight.run(work)] == [1, 2]


async def test_a_result_of_none_is_a_result() -> None:
    flight = SingleFlight[None]()
    go, calls = asyncio.Event(), list[int]()

    async def work() -> None:
        calls.append(1)
        await go.wait()

    tasks = [asyncio.create_task(flight.run(work)) for _ in range(3)]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*tasks)
    assert calls == [1]


async def test_PING04_a_failure_reaches_all_who_wait_each_as_its_own() -> None:
    flight, work = SingleFlight[int](), Work()
    work.failure = NetworkError("no")
    work.failure.add_note("a note")
    work.failure.__cause__ = OSError("cause")
    tasks = await start(flight, work, 3)
    work.go.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert work.calls == 1
    assert len({id(outcome) for outcome in outcomes}) == 3
    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome, NetworkError)
        assert isinstance(outcome.__cause__, OSError)
        outcome.locate(reference=str(number)).add_note("another")
        assert outcome.reference == str(number)
        assert outcome.__notes__ == ["a note", "another"]


async def test_PING04_a_cancelled_leader_does_not_poison_those_who_wait() -> None:
    flight, work = SingleFlight[int](), Work()
    leader, *followers = await start(flight, work, 3)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.gather(*followers) == [2, 2]


async def test_a_cancelled_follower_disturbs_nobody() -> None:
    flight, work = SingleFlight[int](), Work()
    leader, follower, other = await start(flight, work, 3)
    follower.cancel()
    with pytest.raises(asyncio.CancelledError):
        await follower
    work.go.set()
    assert await asyncio.gather(leader, other) == [1, 1]


async def test_a_failure_of_another_kind_is_not_shared() -> None:
    flight, work = SingleFlight[int](), Work()
    work.failure = ZeroDivisionError()
    tasks = await start(flight, work, 2)
    work.go.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert work.calls == 2
    assert all(isinstance(outcome, ZeroDivisionError) for outcome in outcomes)


async def test_flights_are_told_apart_by_key_and_forgotten_once_they_landed() -> None:
    flights, work = SingleFlightMap[str, int](), Work()
    tasks = [asyncio.create_task(flights.run(key, work)) for key in "aabba"]
    await asyncio.sleep(0)
    assert repr(flights) == "<SingleFlightMap of 2 keys>"
    work.go.set()
    assert await asyncio.gather(*tasks) == [1, 1, 2, 2, 1]
    assert repr(flights) == "<SingleFlightMap of 0 keys>"


async def test_a_flight_that_failed_or_was_cancelled_is_forgotten_too() -> None:
    flights, work = SingleFlightMap[str, int](), Work()
    first, second = (asyncio.create_task(flights.run("a", work)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    async with asyncio.timeout(5):
        while work.calls < 2:  # noqa: ASYNC110 - who waited takes over, a few turns later
            await asyncio.sleep(0)
    work.failure = NetworkError("gone")
    work.go.set()
    with pytest.raises(NetworkError):
        await second
    assert first.cancelled()
    assert repr(flights) == "<SingleFlightMap of 0 keys>"
