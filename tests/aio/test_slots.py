"""Slots: counted, given in order, and not kept by what idles."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.aio.slots import Slot, Slots
from asupplemented.errors import SlotTimeoutError
from tests.suspending import settle


async def test_slots_are_counted_and_given_in_order() -> None:
    slots = Slots(2)
    held = [await slots.acquire() for _ in range(2)]
    waiting = [asyncio.create_task(slots.acquire()) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    for each in held:
        each.release()
        each.release()
    await settle()
    assert [task.done() for task in waiting] == [True, True, True]
    for task in waiting[1:]:
        (await task).release()
    assert slots.free == 2


async def test_a_slot_that_rests_is_kept_as_long_as_no_other_operation_waits() -> None:
    slots = Slots(1, idle=0.0)
    slot = await slots.acquire()
    slot.rest()
    await settle()
    assert slot.resume()
    slot.release()


async def test_the_slot_that_has_rested_longest_is_given_to_who_waits() -> None:
    slots = Slots(2, idle=0.0, limit=5)
    first, second = [await slots.acquire() for _ in range(2)]
    first.rest()
    second.rest()
    third = await slots.acquire()
    assert (first.resume(), second.resume()) == (False, True)
    again = asyncio.create_task(first.regain())
    await settle()
    assert not again.done()
    third.release()
    await again
    assert first.resume()
    for each in (first, second):
        each.release()
    assert slots.free == 2


async def test_a_slot_in_use_is_not_taken_away() -> None:
    slots = Slots(1, idle=0.0, limit=0.0)
    slot = await slots.acquire()
    with pytest.raises(SlotTimeoutError, match="all 1 slots"):
        await slots.acquire()
    assert slot.resume()
    slot.release()
    assert slots.free == 1


async def test_an_operation_that_rests_later_is_found_too() -> None:
    slots = Slots(1, idle=0.0, limit=5)
    slot = await slots.acquire()
    waiting = asyncio.create_task(slots.acquire())
    await settle()
    assert not waiting.done()
    slot.rest()
    (await waiting).release()
    slot.release()
    assert slots.free == 1


async def test_a_slot_that_is_released_while_it_waits_again_is_given_back() -> None:
    slots = Slots(1, idle=0.0, limit=5)
    slot = await slots.acquire()
    slot.rest()
    other = await slots.acquire()
    assert not slot.resume()
    again = asyncio.create_task(slot.regain())
    await settle()
    slot.release()
    other.release()
    await again
    assert slots.free == 1


async def work(slot: Slot) -> None:
    if not slot.resume():
        await slot.regain()


class Operations:
    """Operations that come, rest, work, are cancelled and end in any order."""

    def __init__(self) -> None:
        self.slots = Slots(2, idle=0.0)
        self.acquiring: dict[int, asyncio.Task[Slot]] = {}
        self.working: list[asyncio.Task[None]] = []

    def take_step(self, number: int, step: str) -> None:
        task = self.acquiring.get(number)
        if task is None:
            if step == "acquire":
                self.acquiring[number] = asyncio.create_task(self.slots.acquire())
        elif step == "cancel":
            task.cancel()
        elif task.done() and not task.cancelled():
            slot = task.result()
            if step == "rest":
                slot.rest()
            elif step == "work":
                self.working.append(asyncio.create_task(work(slot)))
            elif step == "release":
                slot.release()
                del self.acquiring[number]

    async def end(self) -> None:
        for each in self.working:
            each.cancel()
        await asyncio.gather(*self.working, return_exceptions=True)
        while self.acquiring:
            for number, task in list(self.acquiring.items()):
                if task.done():
                    del self.acquiring[number]
                    if not task.cancelled():
                        task.result().release()
            await asyncio.sleep(0)


STEPS = st.tuples(
    st.integers(0, 5), st.sampled_from(["acquire", "rest", "work", "release", "cancel"])
)


@given(st.lists(STEPS, max_size=60))
def test_no_slot_is_ever_lost_or_made(steps: list[tuple[int, str]]) -> None:
    async def run() -> None:
        operations = Operations()
        for number, step in steps:
            operations.take_step(number, step)
            await asyncio.sleep(0)
            assert 0 <= operations.slots.free <= 2
        await operations.end()
        assert operations.slots.free == 2

    asyncio.run(run())
