"""How many rounds of requests and how many hops to a thread a copy takes: counted, not timed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.threads import Workers
from asupplemented.cache.layout.layout_cache import LayoutCache
from asupplemented.session import Session
from asupplemented.testing import FakeRegistry
from asupplemented.testing.images import build_image, build_index
from asupplemented.transfer.copy import copy
from asupplemented.transports import parse_reference
from tests.members import hold
from tests.suspending import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import Any

    from asupplemented.testing.images import BuiltIndex

IMAGES = 32


def build(images: int) -> BuiltIndex:
    """An index of images, each of which has a layer and a config of its own."""
    return build_index([build_image(layers=[b"%d" % number]) for number in range(images)])


class Gate:
    """Has all answers of a registry wait, and lets them go together."""

    def __init__(self) -> None:
        self.waiting = 0
        self._opened = asyncio.Event()

    async def sleep(self, _: float) -> None:
        opened = self._opened
        self.waiting += 1
        await opened.wait()

    async def wait_for(self, count: int) -> None:
        """Wait until so many answers wait."""
        # Not in a busy loop, which would keep the threads that write from running.
        await wait_until(lambda: self.waiting == count, every=0.005)

    def release(self) -> None:
        opened, self._opened = self._opened, asyncio.Event()
        self.waiting = 0
        opened.set()


async def copy_to(reference: str, path: Path) -> None:
    async with Session(tls_verify=False) as session:
        await copy(reference, f"oci:{path}:copy", session)


async def prefetch_to(reference: str, path: Path) -> None:
    async with (
        Session(tls_verify=False, cache=LayoutCache(path, 1 << 30)) as session,
        parse_reference(reference).open(session) as source,
    ):
        await source.prefetch()


@pytest.mark.parametrize(
    ("fetch", "rounds"),
    [
        # The top; the others, and the ping that tells of signatures; all layers and configs.
        (copy_to, [1, IMAGES + 1, 2 * IMAGES]),
        (prefetch_to, [1, IMAGES, 2 * IMAGES]),
    ],
)
async def test_as_many_small_blobs_as_manifests_in_one_round(
    fetch: Callable[[str, Path], Awaitable[None]], rounds: list[int], tmp_path: Path
) -> None:
    gate = Gate()
    async with FakeRegistry(latency=1.0, sleep=gate.sleep) as registry:
        fetching = asyncio.ensure_future(fetch(registry.add("app", build(IMAGES)), tmp_path / "x"))
        for count in rounds:
            await gate.wait_for(count)
            gate.release()
        await fetching
        assert len(registry.requests) == sum(rounds)


@pytest.mark.parametrize("concurrency", [1, None])
async def test_a_small_blob_takes_one_hop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int | None
) -> None:
    """The whole copy takes few others: the directory, its mark, the look-up, the list."""
    hops = 0
    real = Workers.submit

    def submit(workers: Workers, func: Callable[[], Any]) -> Any:
        nonlocal hops
        hops += 1
        return real(workers, func)

    monkeypatch.setattr(Workers, "submit", submit)
    counted = []
    for images in (2, 12):
        hops = 0
        async with Session() as session:
            reference = hold("app", build(images))
            target = f"oci:{tmp_path / str(images)}:copy"
            await copy(reference, target, session, concurrency=concurrency)
        counted.append(hops)
    blobs, manifests = 20, 10
    few, many = counted
    assert few <= 20
    if concurrency == 1:
        assert many - few <= blobs + manifests
        assert many - few >= blobs
    else:
        assert many - few <= blobs
