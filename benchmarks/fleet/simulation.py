"""Scenarios, and what came of them."""

from __future__ import annotations

import asyncio
import enum
import random
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asupplemented.testing import build_image, hold_in_memory
from benchmarks.fleet import clock
from benchmarks.fleet.network import Machine
from benchmarks.fleet.nodes import Expected, Node
from benchmarks.fleet.proxies import NAME, Proxy, Services
from benchmarks.fleet.servers import Bucket, Redis, Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.testing import BuiltImage

__all__ = ("Fleet", "Outcome", "Scenario", "simulate")

MBIT: Final = 1_000_000 / 8
"""Bytes per second."""
KIB: Final = 1024

LAYERS: Final = (4608, 64, 512, 1536, 16, 768, 256, 1024, 128, 32, 384, 1)
"""KiB of the layers, base layer first. The library holds back a blob of up to 4 MiB until all of it
is verified, so the first one is larger."""

MIRROR_RATE: Final = 100 * MBIT
ORIGIN_RATE: Final = 50 * MBIT
SLOW_RATE: Final = 8 * MBIT
BUCKET_RATE: Final = 10_000 * MBIT
PROXY_RATE: Final = 1_000 * MBIT
NODE_RATES: Final = (100 * MBIT, 250 * MBIT, 1_000 * MBIT)

MIRROR_LATENCY: Final = 0.02
ORIGIN_LATENCY: Final = 0.08

SPREAD: Final = 10.0
"""Seconds in which the nodes begin."""

DEATH: Final = 1 / 3
"""The part of the image that the mirror has sent when something dies."""

RESTART: Final = 20.0
"""Seconds after which a proxy that died serves again."""

CHUNK: Final = 128 * KIB
"""Bytes of a body that the registries send at once."""

LIMIT: Final = 3600.0
"""Seconds after which a node that is not done counts as left behind."""

SCRATCH: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - only for speed


class Scenario(enum.Enum):
    """What goes wrong."""

    COLD = "cold"
    SLOW = "slow upstream"
    PROXY = "dying proxy"
    UPSTREAM = "dying upstream"


@dataclass(frozen=True)
class Fleet:
    """How large the fleet is, and its chance."""

    nodes: int
    proxies: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario.

    Attributes:
        fleet: The fleet.
        scenario: The scenario.
        blobs: Blobs of the image.
        image_bytes: Bytes of its blobs.
        blob_requests: Requests for blobs, by digest: to both registries together.
        most: The most requests for one digest.
        manifest_requests: Requests for manifests and tags to both registries.
        probes: Requests for one byte of a blob.
        upstream_bytes: Bytes that the registries sent.
        bucket_bytes: Bytes that object storage sent.
        served_bytes: Bytes that nodes got from proxies.
        first_bytes: Seconds to the first byte of each blob at each node, sorted.
        ends: When each node that finished had the whole image, sorted.
        retries: Requests that nodes had to send again.
    """

    fleet: Fleet
    scenario: Scenario
    blobs: int
    image_bytes: int
    blob_requests: int
    most: int
    manifest_requests: int
    probes: int
    upstream_bytes: int
    bucket_bytes: int
    served_bytes: int
    first_bytes: Sequence[float]
    ends: Sequence[float]
    retries: int

    @property
    def last(self) -> float:
        """When the last node had the image."""
        return self.ends[-1]

    def first_byte(self, part: float) -> float:
        """The time in which a part of all blobs, from 0 to 1, had begun."""
        return self.first_bytes[min(int(part * len(self.first_bytes)), len(self.first_bytes) - 1)]


def simulate(scenario: Scenario, fleet: Fleet) -> Outcome:
    """Run a scenario.

    Raises:
        CorruptError: A node got wrong bytes.
        StalledError: A node waits for what cannot happen.
        TimeoutError: A node was not done after an hour of its time.
    """
    with tempfile.TemporaryDirectory(dir=SCRATCH) as directory:
        return clock.run(_simulate(scenario, fleet, Path(directory)))


def build(seed: int) -> BuiltImage:
    """The image: layers of random bytes."""
    rng = random.Random(seed)  # noqa: S311 - for a simulation
    return build_image(layers=[rng.randbytes(size * KIB) for size in LAYERS])


async def _simulate(scenario: Scenario, fleet: Fleet, directory: Path) -> Outcome:
    rng = random.Random(fleet.seed)  # noqa: S311 - for a simulation
    image = build(fleet.seed)
    registries = _registries(image, scenario)
    services = Services(
        registries, Bucket(Machine.of("bucket", BUCKET_RATE)), Redis(), clock.virtual_clock(rng)
    )
    proxies = [
        Proxy(Machine.of(f"proxy-{number}", PROXY_RATE), services, directory / str(number))
        for number in range(fleet.proxies)
    ]
    nodes, delays = _nodes(fleet, proxies, Expected(image), rng)
    async with AsyncExitStack() as stack:
        for proxy in proxies:
            stack.push_async_callback(proxy.aclose)
            await proxy.start()
        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
            for node, delay in zip(nodes, delays, strict=True):
                group.create_task(node.pull(delay))
            if scenario is Scenario.PROXY:
                group.create_task(_kill_proxy(proxies, registries))
            elif scenario is Scenario.UPSTREAM:
                group.create_task(_kill_upstream(registries))
    return _sum_up(scenario, fleet, image, services, proxies, nodes)


def _registries(image: BuiltImage, scenario: Scenario) -> tuple[Registry, ...]:
    """The origin, which is the top, and a mirror, which is preferred."""
    held = replace(hold_in_memory(NAME, image), chunk=CHUNK)
    rate = SLOW_RATE if scenario is Scenario.SLOW else MIRROR_RATE
    return (
        Registry(Machine.of("origin.example", ORIGIN_RATE), held, ORIGIN_LATENCY),
        Registry(Machine.of("mirror.example", rate), held, MIRROR_LATENCY),
    )


def _nodes(
    fleet: Fleet, proxies: Sequence[Proxy], expected: Expected, rng: random.Random
) -> tuple[list[Node], list[float]]:
    """The nodes, spread evenly over the proxies, and when each begins."""
    nodes: list[Node] = []
    for number in range(fleet.nodes):
        own = number % len(proxies)
        machine = Machine.of(f"node-{number}", rng.choice(NODE_RATES))
        nodes.append(Node(machine, (*proxies[own:], *proxies[:own]), expected, rng))
    return nodes, [rng.uniform(0, SPREAD) for _ in nodes]


async def _kill_proxy(proxies: Sequence[Proxy], registries: Sequence[Registry]) -> None:
    """Kill the proxy that fetches the most, and start it again later."""
    await registries[-1].wait_until_sent(DEATH)
    victim = max(proxies, key=lambda each: sum(r.streams[each.machine] for r in registries))
    await victim.die()
    await asyncio.sleep(RESTART)
    await victim.start()


async def _kill_upstream(registries: Sequence[Registry]) -> None:
    await registries[-1].wait_until_sent(DEATH)
    registries[-1].machine.alive = False


def _sum_up(
    scenario: Scenario,
    fleet: Fleet,
    image: BuiltImage,
    services: Services,
    proxies: Sequence[Proxy],
    nodes: Sequence[Node],
) -> Outcome:
    asked = [item for each in services.registries for item in each.asked.items()]
    by_digest = {
        digest: sum(number for (_, what), number in asked if what == digest)
        for digest in image.blobs
    }
    return Outcome(
        fleet=fleet,
        scenario=scenario,
        blobs=len(image.blobs),
        image_bytes=sum(map(len, image.blobs.values())),
        blob_requests=sum(by_digest.values()),
        most=max(by_digest.values()),
        manifest_requests=sum(number for (_, what), number in asked if what not in by_digest),
        probes=sum(each.probes for each in services.registries),
        upstream_bytes=sum(each.sent for each in services.registries),
        bucket_bytes=services.bucket.sent,
        served_bytes=sum(each.served for each in proxies),
        first_bytes=sorted(seconds for node in nodes for seconds in node.first_bytes),
        ends=sorted(node.ended for node in nodes if node.ended is not None),
        retries=sum(node.retries for node in nodes),
    )
