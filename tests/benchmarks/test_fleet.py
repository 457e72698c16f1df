"""A fleet keeps the promises of the library, and the page about it says what the seed gives."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.fleet import clock
from benchmarks.fleet.network import Link, Machine, transfer
from benchmarks.fleet.report import SMALL, draw_table
from benchmarks.fleet.simulation import Outcome, Scenario, simulate

PAGE = Path(__file__).parents[2] / "docs/explanation/fleet.md"


@pytest.fixture(scope="module", params=Scenario, ids=lambda scenario: scenario.value)
def outcome(request: pytest.FixtureRequest) -> Outcome:
    return simulate(request.param, SMALL)


def test_no_node_is_left_behind(outcome: Outcome) -> None:
    assert len(outcome.ends) == SMALL.nodes
    assert len(outcome.first_bytes) == SMALL.nodes * outcome.blobs
    assert outcome.served_bytes >= SMALL.nodes * outcome.image_bytes


def test_upstream_is_asked_once_for_each_digest(outcome: Outcome) -> None:
    once = outcome.image_bytes + 100_000  # and some manifests
    if outcome.scenario is Scenario.PROXY:
        # What the dead proxy fetched is fetched again, and nodes ask for the rest of it as well.
        assert outcome.retries > 0
        assert outcome.blob_requests <= 2 * outcome.blobs
        assert outcome.upstream_bytes <= 2 * once
        return
    # What a dead upstream began is continued elsewhere, and no byte is sent twice.
    assert outcome.most == (2 if outcome.scenario is Scenario.UPSTREAM else 1)
    assert outcome.retries == 0
    assert outcome.image_bytes <= outcome.upstream_bytes <= once


def test_the_page_says_what_the_seed_gives(outcome: Outcome) -> None:
    *_, row = draw_table([outcome]).splitlines()
    assert row in PAGE.read_text(encoding="utf-8").partition("table small")[2]


def test_another_seed_gives_another_report() -> None:
    tiny = replace(SMALL, nodes=3)
    first, same, other = (simulate(Scenario.COLD, replace(tiny, seed=seed)) for seed in (5, 5, 6))
    assert first == same
    assert first.ends != other.ends


def test_a_link_is_shared_equally() -> None:
    async def measure() -> list[float]:
        loop, link = asyncio.get_running_loop(), Link(100)
        ends: dict[int, float] = {}

        async def send(delay: float, size: int) -> None:
            await asyncio.sleep(delay)
            await link.send(size)
            ends[size] = loop.time()

        await asyncio.gather(send(0, 300), send(1, 50), send(1, 350))
        return [ends[size] for size in (50, 300, 350)]

    # 1 s alone, then a third each for 1.5 s, then a half each for 3 s, then alone for 1.5 s
    assert clock.run(measure()) == pytest.approx([2.5, 5.5, 7.0])


def test_a_machine_that_dies_breaks_its_transfers() -> None:
    async def die() -> None:
        sender, receiver = Machine.of("sender", 100), Machine.of("receiver", 100)
        sending = asyncio.ensure_future(transfer(100, sender, receiver))
        await asyncio.sleep(0.5)
        sender.alive = False
        with pytest.raises(ConnectionResetError, match="sender"):
            await sending

    clock.run(die())


def test_a_wait_without_end_is_an_error() -> None:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(clock.StalledError):
        clock.run(wait())
