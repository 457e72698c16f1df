"""Closing on every path out: all of it, in order, and no cancellation is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asupplemented.abc import AsyncResource
from asupplemented.aio.closing import CLOSE_TIMEOUT, close_all, closing_on_error
from tests.suspending import run_leaping

if TYPE_CHECKING:
    from collections.abc import Iterator


class Thing(AsyncResource):
    """Takes a turn to close, or for ever, or fails."""

    def __init__(
        self, log: list[str], name: str, failure: Exception | None = None, *, hangs: bool = False
    ) -> None:
        self.log = log
        self.name = name
        self.failure = failure
        self.hangs = hangs

    async def aclose(self) -> None:
        self.log.append(self.name)
        await (asyncio.Event().wait() if self.hangs else asyncio.sleep(0))
        if self.failure is not None:
            raise self.failure


async def test_everything_is_closed_and_failures_leave_as_one_group() -> None:
    log: list[str] = []
    failures = [OSError("a"), ValueError("c")]
    things = [Thing(log, "a", failures[0]), Thing(log, "b"), Thing(log, "c", failures[1])]
    with pytest.raises(ExceptionGroup, match="closing the things") as caught:
        await close_all(things, "the things")
    assert log == ["a", "b", "c"]
    assert list(caught.value.exceptions) == failures


class PromptThing(Thing):
    """Closes without waiting, unless it has to wait."""

    def __init__(
        self, log: list[str], name: str, failure: Exception | None = None, *, waits: bool = False
    ) -> None:
        super().__init__(log, name, failure)
        self.waits = waits

    def close_at_once(self) -> bool:
        if self.waits:
            return False
        self.log.append(f"{self.name} at once")
        if self.failure is not None:
            raise self.failure
        return True


async def test_what_closes_without_waiting_closes_at_once_and_in_order() -> None:
    log: list[str] = []
    failure = OSError("b")

    def list_things() -> Iterator[Thing]:
        yield PromptThing(log, "a")
        log.append("the next one is taken")
        yield PromptThing(log, "b", failure)
        yield PromptThing(log, "c", waits=True)
        yield PromptThing(log, "d")

    with pytest.raises(ExceptionGroup) as caught:
        await close_all(list_things(), "the things")
    assert log == ["a at once", "the next one is taken", "b at once", "c", "d"]
    assert list(caught.value.exceptions) == [failure]


async def test_a_cancellation_waits_until_all_are_asked_to_close() -> None:
    log: list[str] = []
    task = asyncio.create_task(close_all([Thing(log, "a"), Thing(log, "b")], "the things"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["a", "b"]


def test_closing_has_a_time_limit_of_its_own() -> None:
    log: list[str] = []

    async def run() -> float:
        with pytest.raises(ExceptionGroup) as caught:
            await close_all([Thing(log, "a", hangs=True), Thing(log, "b")], "the things")
        assert caught.group_contains(TimeoutError)
        return asyncio.get_running_loop().time()

    assert run_leaping(run) == pytest.approx(CLOSE_TIMEOUT, rel=1e-3)
    assert log == ["a", "b"]


async def test_what_succeeds_is_not_closed() -> None:
    log: list[str] = []
    async with closing_on_error(lambda: [Thing(log, "a")], "the things"):
        pass
    assert log == []


async def test_the_error_prevails_and_notes_what_could_not_be_closed() -> None:
    log: list[str] = []
    with pytest.raises(KeyError) as caught:
        async with closing_on_error(lambda: [Thing(log, "a", OSError("stuck"))], "the things"):
            raise KeyError
    assert log == ["a"]
    assert caught.value.__notes__ == ["closing the things failed as well: stuck"]


async def test_SEC16_a_cancellation_while_closing_is_not_lost() -> None:
    log: list[str] = []
    failure = KeyError()

    async def fail() -> None:
        async with closing_on_error(lambda: [Thing(log, "a"), Thing(log, "b")], "the things"):
            raise failure

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.__cause__ is failure
    assert log == ["a", "b"]


async def test_cancelled_twice_is_cancelled() -> None:
    log: list[str] = []

    async def wait() -> None:
        async with closing_on_error(lambda: [Thing(log, "a"), Thing(log, "b")], "the things"):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.__notes__ == ["cancelled again while closing the things"]
    assert log == ["a", "b"]
