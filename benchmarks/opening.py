"""Opening a group over HTTP: wall time against a bare aiohttp program.

The registry runs in a process of its own and answers at once, or 20 ms late. The bare program
does the same ping, top and GETs at the same concurrency, and nothing with the bytes.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import aiohttp

import asupplemented as asup
from benchmarks.harness import interleave, report
from benchmarks.server import serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.server import Offer

ROUNDS = 7
SUPPLEMENTS = 16
ACCEPT = {
    "Accept": "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
}


async def open_ours(offer: Offer, lookahead: int, tags: tuple[str, ...] = ("all",)) -> None:
    """Open a group and close it."""
    group = asup.supplement(*map(offer.reference, tags))
    async with (
        asup.Session(tls_verify=False, lookahead=lookahead) as session,
        group.open(session),
    ):
        pass


async def fetch_bare(offer: Offer, concurrency: int) -> None:
    """Ping, read the index, read every image: `concurrency` requests at a time."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=ACCEPT) as session:
        async with session.get(f"{offer.url}/v2/") as response:
            await response.read()
        async with session.get(offer.manifest_url("all")) as response:
            index = json.loads(await response.read())
        todo = iter(index["manifests"])

        async def work() -> None:
            for entry in todo:
                async with session.get(offer.manifest_url(entry["digest"])) as response:
                    await response.read()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(index["manifests"]))):
                group.create_task(work())


def wall(run: Callable[[], Awaitable[None]]) -> Callable[[], float]:
    """Milliseconds of one run, the event loop's own start and end left out."""

    async def timed() -> float:
        started = time.perf_counter()
        await run()
        return 1000 * (time.perf_counter() - started)

    return lambda: asyncio.run(timed())


def measure(instances: int, latency: float, concurrency: int) -> None:
    """One size of index at one latency."""
    with serve(instances=instances, latency=latency) as offer:
        figures = interleave(
            {
                "ours": wall(lambda: open_ours(offer, concurrency)),
                "bare": wall(lambda: fetch_bare(offer, concurrency)),
            },
            ROUNDS,
        )
    report(
        f"open, docker://, {instances} images, {1000 * latency:.0f} ms, lookahead {concurrency}",
        "ms",
        figures["ours"],
        comparator="bare aiohttp: the same ping, top and GETs, bytes thrown away",
        baseline=figures["bare"],
        goal="ratio <= 1.3" if instances == 256 and latency else None,  # noqa: PLR2004
    )


def measure_supplements(latency: float) -> None:
    """Many single-image members on one registry: they open side by side."""
    tags = ("all", *(f"single-{number}" for number in range(SUPPLEMENTS)))
    with serve(instances=0, singles=SUPPLEMENTS, latency=latency) as offer:
        figures = interleave({"ours": wall(lambda: open_ours(offer, 64, tags))}, ROUNDS)
    trips = [value / (1000 * latency) for value in figures["ours"]]
    report(
        f"open, {SUPPLEMENTS} single-image supplements, {1000 * latency:.0f} ms per answer",
        "round trips",
        trips,
        comparator="one round trip",
        baseline=[1.0] * len(trips),
        goal="ratio <= 4",
    )


def main() -> None:
    """Print the cases."""
    for latency in (0.0, 0.02):
        for instances in (1, 16, 64, 256):
            measure(instances, latency, 64)
    measure(256, 0.02, 256)
    measure_supplements(0.02)


if __name__ == "__main__":
    main()
