"""Slots: counted, given in order, and not kept by what idles."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.aio.slots import BlobSlots, Slot, Slots
from asupplemented.errors import SlotTimeoutError
from asupplemented.limits import MIB, SMALL_BLOB
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
    assert slots.in_use == 0


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
    assert slots.in_use == 0


async def test_a_slot_in_use_is_not_taken_away() -> None:
    slots = Slots(1, idle=0.0, limit=0.0)
    slot = await slots.acquire()
    with pytest.raises(SlotTimeoutError, match=r"no slot became free for 0\.0 s"):
        await slots.acquire()
    assert slot.resume()
    slot.release()
    assert slots.in_use == 0


async def test_an_operation_that_rests_later_is_found_too() -> None:
    slots = Slots(1, idle=0.0, limit=5)
    slot = await slots.acquire()
    waiting = asyncio.create_task(slots.acquire())
    await settle()
    assert not waiting.done()
    slot.rest()
    (await waiting).release()
    slot.release()
    assert slots.in_use == 0


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
    assert slots.in_use == 0


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
            assert 0 <= operations.slots.in_use <= 2
        await operations.end()
        assert operations.slots.in_use == 0

    asyncio.run(run())


# Weights


async def test_slots_weigh_no_more_than_the_capacity_and_come_in_order() -> None:
    slots = Slots(10)
    held = [await slots.acquire(4) for _ in range(2)]
    waiting = [asyncio.create_task(slots.acquire(weight)) for weight in (4, 2, 6)]
    await settle()
    assert [task.done() for task in waiting] == [False, False, False]  # none passes another one
    waiting[0].cancel()
    await settle()
    assert [task.done() for task in waiting] == [True, True, False]
    held[0].release()
    await settle()
    assert not waiting[2].done()
    held[1].release()
    (await waiting[2]).release()
    (await waiting[1]).release()
    assert slots.in_use == 0


async def test_one_slot_is_given_whatever_it_weighs() -> None:
    slots = Slots(10)
    (await slots.acquire(11)).release()
    held = await slots.acquire(1)
    waiting = asyncio.create_task(slots.acquire(11))
    await settle()
    assert not waiting.done()
    held.release()
    (await waiting).release()


async def test_RET07_many_small_blobs_or_few_large_ones() -> None:
    for size, count in ((0, 64), (2048, 64), (MIB, 24), (SMALL_BLOB, 6), (10**12, 6), (None, 6)):
        slots = BlobSlots(limit=0.0)
        weight = slots.weigh(size)
        held = [await slots.acquire(weight) for _ in range(count)]
        with pytest.raises(SlotTimeoutError):
            await slots.acquire(weight)
        for slot in held:
            slot.release()
    assert BlobSlots(1).weigh(1) == BlobSlots().weigh(None) * 6


async def test_RET11_a_refusal_leaves_room_for_half_and_answers_for_more() -> None:
    time = 0.0
    slots = BlobSlots(64, 64 * 8, limit=0.0, now=lambda: time)
    slots.record_refusal(-1.0)
    held = [await slots.acquire(8) for _ in range(32)]
    waiting = asyncio.create_task(slots.acquire(8))
    await settle()
    assert isinstance(waiting.exception(), SlotTimeoutError)
    time = 0.1
    slots.record_refusal(-1.0)  # of the same round trip
    for _ in range(32):
        slots.record_first_byte(0.05, 8)
    held.append(await slots.acquire(8))
    for slot in held:
        slot.release()
    assert slots.in_use == 0


async def test_RET11_what_waits_comes_in_when_time_has_opened_the_window() -> None:
    time = 0.0
    slots = BlobSlots(2, 16, now=lambda: time)
    slots.record_refusal(-1.0)
    held = await slots.acquire(8)
    waiting = asyncio.create_task(slots.acquire(8))
    await settle()
    assert not waiting.done()
    time = 60.0
    (await waiting).release()
    held.release()
