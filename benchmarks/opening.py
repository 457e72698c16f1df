"""Opening images and groups: from a registry near and far, and from a layout on disk.

What a registry holds, and how late it answers, is the same for all contestants. The Go package
opens each group in a process that has opened it twice before, unless the registry is late, which
takes longer than anything that would have to warm up.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiofiles
import aiohttp

import asupplemented as asup
from asupplemented.testing import build_image, build_index
from asupplemented.testing.disk import write_layout
from benchmarks.harness import Sample, timed, timed_async
from benchmarks.peers.golang import GO, find_go_package
from benchmarks.peers.python import BARE, CONCURRENCY, Bare, Ours, find_peers
from benchmarks.results import OURS
from benchmarks.server import serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.harness import Bench
    from benchmarks.peers.golang import GoPackage
    from benchmarks.peers.python import Peer
    from benchmarks.server import Offer

__all__ = ("FAR", "name_case", "run")

FAR: Final = 0.02
SINGLES: Final = 16
AIOFILES: Final = 16
"""Files that aiofiles reads at the same time."""
FIRST_ROUNDS: Final = 41
ACCEPT: Final = {
    "Accept": "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
}


def name_case(instances: int, latency: float) -> str:
    """What the case of an index is called."""
    return f"open an index of {instances}, {1000 * latency:.0f} ms"


def measure_index(
    bench: Bench, instances: int, latency: float, peers: Sequence[type[Peer]], go: GoPackage | None
) -> None:
    """All images of an index."""
    with serve(instances=instances, latency=latency) as offer:
        contestants: dict[str, Callable[[], Sample]] = {}
        contenders: list[type[Peer]] = [Ours, Bare, *peers]
        for peer in contenders:
            contestants[peer.name] = partial(timed_async, peer(offer).open_all)
        if latency and instances > CONCURRENCY:
            for peer in contenders[:2]:
                wide = peer(offer, concurrency=instances)
                name = f"{peer.name}, {instances} at once"
                contestants[name] = partial(timed_async, wide.open_all)
        if go is not None:
            contestants[GO] = go.open(offer.reference(), warm=not latency)
        bench.compare(
            name_case(instances, latency),
            contestants,
            size=instances,
            unit="manifests",
            seconds=1.5 + instances / 32,
            cold={GO},
        )


def measure_group(
    bench: Bench, case: str, offer: Offer, go: GoPackage | None, tags: Sequence[str], size: int
) -> None:
    """A group of several members."""
    ours = Ours(offer)
    contestants: dict[str, Callable[[], Sample]] = {
        OURS: partial(timed_async, partial(ours.open_group, *tags))
    }
    if go is not None:
        contestants[GO] = go.open(*map(offer.reference, tags), warm=False)
    bench.compare(case, contestants, size=size, unit="manifests", seconds=4, cold={GO})


def measure_groups(bench: Bench, go: GoPackage | None) -> None:
    """16 single images beside a top, and an index whose images are half in another one."""
    with serve(instances=0, singles=SINGLES, latency=FAR) as offer:
        tags = ("all", *(f"single-{number}" for number in range(SINGLES)))
        case = f"open {SINGLES} supplements of one image, 20 ms"
        measure_group(bench, case, offer, go, tags, SINGLES)
    instances = bench.pick(64, full=256, tiny=4)
    with serve(instances=instances, latency=FAR) as offer:
        case = f"open two indexes of {instances // 2}, 20 ms"
        measure_group(bench, case, offer, go, ("half-0", "half-1"), instances)


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


def measure_one(bench: Bench, go: GoPackage | None) -> None:
    """One image that is no index, in a session of its own."""
    with serve(instances=0, singles=1, latency=FAR) as offer:
        contestants: dict[str, Callable[[], Sample]] = {
            OURS: partial(timed_async, partial(open_first, offer)),
            BARE: partial(timed_async, partial(fetch_first, offer)),
        }
        if go is not None:
            contestants[GO] = go.open(offer.reference("single-0"), warm=False)
        bench.compare("open one image, 20 ms", contestants, seconds=2, cold={GO})


def measure_first(bench: Bench) -> None:
    """The first image of a session, over http and verified TLS: what it costs in CPU.

    aiohttp reads the authorities that it trusts when it is imported, so the client of the server
    with a certificate is a new process. It alternates between both contestants itself.
    """
    with serve(instances=0, singles=1) as offer:
        bench.compare(
            "the first image of a session, http",
            {
                OURS: partial(timed_async, partial(open_first, offer)),
                BARE: partial(timed_async, partial(fetch_first, offer)),
            },
            seconds=2,
        )
    try:
        import trustme  # noqa: PLC0415 - it may be missing
    except ModuleNotFoundError:
        bench.note("the first image over TLS skipped: no trustme (pip install trustme)")
        return
    authority = trustme.CA()
    with tempfile.TemporaryDirectory() as scratch:
        certificate, trusted = Path(scratch, "server.pem"), Path(scratch, "authority.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        authority.cert_pem.write_to_path(trusted)
        rounds = bench.pick(FIRST_ROUNDS, full=2 * FIRST_ROUNDS, tiny=1)
        command = [sys.executable, "-m", "benchmarks.opening", str(certificate), str(rounds)]
        environment = os.environ | {"SSL_CERT_FILE": str(trusted)}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    for name, samples in json.loads(done.stdout).items():
        measured = [Sample(*sample) for sample in samples]
        bench.record("the first image of a session, verified TLS", name, measured)


def alternate_first(certificate: str, rounds: int) -> None:
    """Print samples of both ways to read the first image over TLS."""
    found: dict[str, list[tuple[float, float | None]]] = {OURS: [], BARE: []}
    ways: dict[str, Callable[[Offer], Awaitable[None]]] = {OURS: open_first, BARE: fetch_first}
    with serve(instances=0, singles=1, certificate=Path(certificate)) as offer:
        for number in range(-3, rounds):
            for name, work in ways.items():
                sample = timed_async(partial(work, offer))
                if number >= 0:
                    found[name].append((sample.wall, sample.cpu))
    print(json.dumps(found))


def write_images(root: Path, count: int) -> list[Path]:
    """Write a layout; returns the files of its manifests."""
    images = [
        build_image("linux/amd64", [f"layer {n}.{part}".encode() for part in range(5)])
        for n in range(count)
    ]
    write_layout(root, build_index(images))
    return [root / "blobs" / "sha256" / image.digest.encoded for image in images]


async def open_layout(root: Path) -> None:
    """One session, one group, closed again."""
    async with asup.Session() as session, asup.supplement(f"oci:{root}").open(session):
        pass


def check(raw: bytes, file: Path) -> None:
    """Compare bytes with the name of their file."""
    if hashlib.sha256(raw).hexdigest() != file.name:
        raise RuntimeError(f"{file} is corrupt")


def read_plainly(files: Sequence[Path]) -> None:
    """What a script would do: read, hash, decode, one after the other."""
    for file in files:
        raw = file.read_bytes()
        check(raw, file)
        json.loads(raw)


async def read_by_aiofiles(files: Sequence[Path]) -> None:
    """Open, read, close and hash each file with aiofiles."""
    waiting = iter(files)

    async def work() -> None:
        for file in waiting:
            async with aiofiles.open(file, "rb", buffering=0) as opened:
                check(await opened.read(), file)

    await asyncio.gather(*(work() for _ in range(AIOFILES)))


def measure_layout(bench: Bench, instances: int, go: GoPackage | None) -> None:
    """All images of a layout on disk."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "layout"
        files = write_images(root, instances)
        contestants: dict[str, Callable[[], Sample]] = {
            OURS: partial(timed_async, partial(open_layout, root)),
            "read, hash, json.loads": partial(timed, partial(read_plainly, files)),
            "aiofiles and sha256, 16 at once": partial(
                timed_async, partial(read_by_aiofiles, files)
            ),
        }
        if go is not None:
            contestants[GO] = go.open(f"oci:{root}")
        bench.compare(
            f"open a layout of {instances}",
            contestants,
            size=instances,
            unit="manifests",
            seconds=2,
            cold={GO},
        )


def run(bench: Bench) -> None:
    """Measure all cases, those with targets first."""
    go, peers = find_go_package(bench), find_peers(bench)
    most, *fewer = bench.pick((256, 64, 16, 1), full=(256, 1024, 64, 16, 1), tiny=(2,))
    many, *few = bench.pick((1024, 256, 64), full=(1024, 256, 64), tiny=(2,))
    for latency in (FAR, 0.0):
        measure_index(bench, most, latency, peers, go)
    measure_layout(bench, many, go)
    measure_one(bench, go)
    measure_groups(bench, go)
    measure_first(bench)
    for latency in (FAR, 0.0):
        for instances in fewer:
            measure_index(bench, instances, latency, peers, go)
    for instances in few:
        measure_layout(bench, instances, go)


if __name__ == "__main__":
    alternate_first(sys.argv[1], int(sys.argv[2]))
