"""What a manifest costs, from a registry and in the resolver.

1,000 manifests of 1.5 KiB, 64 at a time, against a bare client of aiohttp that does the same GETs
with its fastest options and looks at nothing. The resolver alone is measured with manifests that
were read before.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from asupplemented.model.digest import Digest
from asupplemented.model.media_type import ACCEPT
from asupplemented.model.name import ImageName
from asupplemented.session import Session
from asupplemented.transports import parse_reference
from asupplemented.transports.registry.reference import open_adapter
from benchmarks import resolver
from benchmarks.harness import Sample, timed
from benchmarks.peers.python import BARE, CONCURRENCY
from benchmarks.results import OURS
from benchmarks.server import serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asupplemented.abc import Source
    from asupplemented.transports.registry.adapter import RegistryAdapter
    from asupplemented.transports.registry.mirrors import MirroredAdapter
    from benchmarks.harness import Bench
    from benchmarks.server import Offer

__all__ = ("CASE", "run")

T = TypeVar("T")

CASE: Final = "manifests over http"


async def fetch_each(items: Sequence[T], fetch: Callable[[T], Awaitable[object]]) -> None:
    """Fetch every item, so many at a time."""
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await fetch(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work())


def time_fetches(
    runner: asyncio.Runner,
    make: Callable[[], Sequence[T]],
    fetch: Callable[[T], Awaitable[object]],
) -> Sample:
    """Fetch every item; making the items is not counted."""
    items = make()
    return timed(lambda: runner.run(fetch_each(items, fetch)))


async def fetch_and_decode(source: Source, digest: Digest) -> None:
    """One manifest, verified and decoded."""
    (await source.get_manifest(digest)).parse()


def fastest_client() -> aiohttp.ClientSession:
    """A client with the fastest options that aiohttp has for this."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers=CIMultiDict([("Accept", media_type) for media_type in ACCEPT]),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    )


async def open_all(
    session: Session, offer: Offer
) -> tuple[Source, RegistryAdapter | MirroredAdapter]:
    """The repository, as a source and as its adapter."""
    name = ImageName.parse(offer.reference().removeprefix("docker://"))
    source = await parse_reference(offer.reference()).open(session)
    return source, await open_adapter(name, offer.reference(), session)


def run(bench: Bench) -> None:
    """Measure all cases."""
    count = bench.pick(1000, full=1000, tiny=4)
    with serve(instances=count) as offer, asyncio.Runner() as runner:
        digests = [Digest(digest) for digest in offer.instances]

        def fresh_urls() -> list[URL]:
            # A URL object remembers what it was asked for; in real life each is asked for once.
            return [URL(offer.manifest_url(digest), encoded=True) for digest in digests]

        async def make() -> tuple[Source, RegistryAdapter | MirroredAdapter]:
            return await open_all(session, offer)

        async def make_client() -> Callable[[URL], Awaitable[object]]:
            client = fastest_client()
            closing.append(client.close)

            async def fetch(url: URL) -> None:
                response = await client.get(url)
                await response.read()

            return fetch

        closing: list[Callable[[], Awaitable[object]]] = []
        session = Session(tls_verify=False)
        fetch_barely = runner.run(make_client())
        source, adapter = runner.run(make())
        closing += [adapter.aclose, source.aclose, session.aclose]
        measure = partial(time_fetches, runner)
        bench.compare(
            CASE,
            {
                OURS: partial(measure, digests.copy, partial(fetch_and_decode, source)),
                f"{OURS}, not decoded": partial(measure, digests.copy, source.get_manifest),
                f"{OURS}, not verified": partial(measure, digests.copy, adapter.fetch_manifest),
                BARE: partial(measure, fresh_urls, fetch_barely),
            },
            size=count,
            unit="manifests",
            seconds=5,
        )

        async def close() -> None:
            for aclose in closing:
                await aclose()

        runner.run(close())
    if bench.full:
        resolver.run(bench)
