"""Reading from a registry: what a manifest costs, and how fast a body comes.

Manifests: 1,000 of 1.5 KiB at concurrency 64, fetched and verified, against a bare aiohttp
client that does the same GETs with its fastest options and looks at nothing. Bodies: 1 GiB as
the adapter hands it on, unverified, against ``curl -o /dev/null``.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import ACCEPT
from asupplemented.model.name import ImageName
from asupplemented.session import Session
from asupplemented.transports import parse_reference
from asupplemented.transports.registry.reference import open_adapter
from benchmarks.harness import interleave, report
from benchmarks.server import serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asupplemented.abc import Source
    from asupplemented.transports.registry.adapter import RegistryAdapter
    from benchmarks.server import Offer

T = TypeVar("T")

MANIFESTS = 1000
CONCURRENCY = 64
ROUNDS = 15
BLOB_ROUNDS = 5
BLOB_SIZE = 1 << 30


async def fetch_each(items: Sequence[T], fetch: Callable[[T], Awaitable[object]]) -> None:
    """Fetch every item, so many at a time."""
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await fetch(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work())


def time_manifests(
    runner: asyncio.Runner,
    make: Callable[[], Sequence[T]],
    fetch: Callable[[T], Awaitable[object]],
) -> float:
    """CPU time per item in microseconds; that of making the items is not counted."""
    items = make()
    started = time.process_time()
    runner.run(fetch_each(items, fetch))
    return (time.process_time() - started) / len(items) * 1e6


def bare_client() -> aiohttp.ClientSession:
    """The fastest options that aiohttp has for this."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers=CIMultiDict([("Accept", media_type) for media_type in ACCEPT]),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    )


async def fetch_barely(client: aiohttp.ClientSession, url: URL) -> None:
    """One GET, read and forgotten."""
    response = await client.get(url)
    await response.read()


async def fetch_and_decode(source: Source, digest: Digest) -> None:
    """One manifest, verified and decoded."""
    (await source.get_manifest(digest)).parse()


def measure_manifests(offer: Offer) -> None:
    """Print what a manifest costs."""
    digests = [Digest(digest) for digest in offer.instances]

    def fresh_urls() -> list[URL]:
        # A URL object remembers what it was asked for; in real life each is asked for once.
        return [URL(offer.manifest_url(digest), encoded=True) for digest in digests]

    with asyncio.Runner() as runner:
        client = runner.run(_make(bare_client))
        session = Session(tls_verify=False)
        source: Source = runner.run(_open(session, offer))
        adapter = runner.run(_adapt(session, offer))
        measure = partial(time_manifests, runner)
        cases = {
            "bare": partial(measure, fresh_urls, partial(fetch_barely, client)),
            "fetched": partial(measure, digests.copy, adapter.fetch_manifest),
            "verified": partial(measure, digests.copy, source.get_manifest),
            "decoded": partial(measure, digests.copy, partial(fetch_and_decode, source)),
        }
        figures = interleave(cases, ROUNDS, warmup=2)
        for resource in (adapter, source, session):
            runner.run(resource.aclose())
        runner.run(client.close())
    goals = {"fetched": None, "verified": "ratio <= 1.15", "decoded": "ratio <= 1.25"}
    for name, goal in goals.items():
        report(
            f"{MANIFESTS} manifests over HTTP at concurrency {CONCURRENCY}, CPU, {name}",
            "us/manifest",
            figures[name],
            comparator="the same GETs by bare aiohttp with its fastest options",
            baseline=figures["bare"],
            goal=goal,
        )


async def read_body(adapter: RegistryAdapter, blob: Descriptor) -> None:
    """Read a body to its end."""
    received = 0
    async with adapter.open_blob(blob) as body:
        async for chunk in body:
            received += len(chunk)
    if received != blob.size:
        message = f"{received} bytes came"
        raise RuntimeError(message)


def measure_body(offer: Offer) -> None:
    """Print how fast a body comes, and what it costs."""
    if offer.blob is None:
        return
    blob = Descriptor(digest=offer.blob, size=offer.blob_size)
    cpu: dict[str, list[float]] = {"ours": [], "curl": []}
    with asyncio.Runner() as runner:
        session = Session(tls_verify=False)
        adapter = runner.run(_adapt(session, offer))

        def ours() -> float:
            return _timed(cpu["ours"], lambda: runner.run(read_body(adapter, blob)))

        def curl() -> float:
            command = ("curl", "-s", "-o", os.devnull, offer.blob_url)
            return _timed(cpu["curl"], lambda: subprocess.run(command, check=True))

        figures = interleave({"ours": ours, "curl": curl}, BLOB_ROUNDS)
        runner.run(adapter.aclose())
        runner.run(session.aclose())
    comparator = "curl -o /dev/null"
    name_of_case = "1 GiB over HTTP, unverified"
    report(name_of_case, "MB/s", figures["ours"], comparator=comparator, baseline=figures["curl"])
    report(
        f"{name_of_case}, CPU",
        "s",
        cpu["ours"][1:],
        comparator=comparator,
        baseline=cpu["curl"][1:],
    )


def _timed(cpu: list[float], work: Callable[[], object]) -> float:
    """Megabytes per second of one reading; its CPU time, children included, is written down."""
    before, started = os.times(), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - started, os.times()
    cpu.append(sum(after[:4]) - sum(before[:4]))
    return BLOB_SIZE / seconds / 1e6


async def _make(factory: Callable[[], T]) -> T:
    return factory()


async def _open(session: Session, offer: Offer) -> Source:
    return await parse_reference(offer.reference()).open(session)


async def _adapt(session: Session, offer: Offer) -> RegistryAdapter:
    name = ImageName.parse(offer.reference().removeprefix("docker://"))
    return await open_adapter(name, offer.reference(), session)


def main() -> None:
    """Print all cases."""
    with serve(instances=MANIFESTS) as offer:
        measure_manifests(offer)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "blob"
        with file.open("wb") as blob:
            blob.truncate(BLOB_SIZE)
        with serve(instances=1, file=file) as offer:
            measure_body(offer)


if __name__ == "__main__":
    main()
