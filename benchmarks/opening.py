"""Opening images and groups over HTTP, against a bare aiohttp program.

The registry runs in a process of its own and answers at once, or 20 ms late. The bare program
does the same GETs at the same concurrency, and nothing with the bytes. The first image of a session
is measured in CPU time, over plain http (which the session finds out by trying TLS first) and over
verified TLS.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

import asupplemented as asup
from benchmarks.harness import interleave, report
from benchmarks.server import serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.server import Offer

ROUNDS = 7
CPU_ROUNDS = 41
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


async def open_first(offer: Offer) -> None:
    """Open one image in a new session."""
    async with (
        asup.Session(tls_verify=offer.tls) as session,
        asup.parse_reference(offer.reference("single-0")).open(session),
    ):
        pass


async def fetch_first(offer: Offer) -> None:
    """Get its manifest with a new client of aiohttp."""
    async with (
        aiohttp.ClientSession(headers=ACCEPT) as session,
        session.get(offer.manifest_url("single-0")) as response,
    ):
        await response.read()


async def fetch_bare(offer: Offer, concurrency: int) -> None:
    """Read the index, read every image: `concurrency` requests at a time."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=ACCEPT) as session:
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
        comparator="bare aiohttp: the same top and GETs, bytes thrown away",
        baseline=figures["bare"],
        goal="ratio <= 1.1" if instances == 256 and latency else None,  # noqa: PLR2004
    )


def measure_single(latency: float) -> None:
    """One image, in a session of its own: one round trip."""
    with serve(instances=0, singles=1, latency=latency) as offer:
        figures = interleave(
            {
                "ours": wall(lambda: open_first(offer)),
                "bare": wall(lambda: fetch_first(offer)),
            },
            ROUNDS,
        )
    report(
        f"open, docker://, one image that is no list, {1000 * latency:.0f} ms",
        "ms",
        figures["ours"],
        comparator="bare aiohttp: one GET",
        baseline=figures["bare"],
        goal="ratio <= 1.12",
    )


def cpu(run: Callable[[], Awaitable[None]]) -> Callable[[], float]:
    """Milliseconds of CPU of one run, the event loop's own start and end left out."""

    async def timed() -> float:
        started = time.process_time()
        await run()
        return 1000 * (time.process_time() - started)

    return lambda: asyncio.run(timed())


def measure_first(certificate: Path | None = None) -> None:
    """The first image of a session, CPU: this process trusts the certificate."""
    with serve(instances=0, singles=1, certificate=certificate) as offer:
        figures = interleave(
            {"ours": cpu(lambda: open_first(offer)), "bare": cpu(lambda: fetch_first(offer))},
            CPU_ROUNDS,
            warmup=3,
        )
    report(
        f"the first image of a session over {'verified TLS' if certificate else 'http'}, CPU",
        "ms",
        figures["ours"],
        comparator="bare aiohttp: the same GET with a new client",
        baseline=figures["bare"],
        goal="ratio <= 1.5" if certificate else "ratio <= 2.6",
    )


def measure_first_over_tls() -> None:
    """The same in a process that trusts a new authority: aiohttp reads those when imported."""
    try:
        import trustme  # noqa: PLC0415 - it is for tests, and may be missing
    except ModuleNotFoundError:
        sys.stderr.write("skipped: the first image over TLS needs trustme\n")
        return
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
    with tempfile.TemporaryDirectory() as scratch:
        certificate, trusted = Path(scratch) / "server.pem", Path(scratch) / "authority.pem"
        pair.write_to_path(certificate)
        authority.cert_pem.write_to_path(trusted)
        command = [sys.executable, "-m", "benchmarks.opening", str(certificate)]
        subprocess.run(command, env={**os.environ, "SSL_CERT_FILE": str(trusted)}, check=True)


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
        goal="ratio <= 1.7",
    )


def main() -> None:
    """Print the cases."""
    for latency in (0.0, 0.02):
        for instances in (1, 16, 64, 256):
            measure(instances, latency, 64)
    measure(256, 0.02, 256)
    measure_supplements(0.02)
    measure_single(0.02)
    measure_first()
    measure_first_over_tls()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure_first(Path(sys.argv[1]))
    else:
        main()
