"""What reading through the library costs beyond reading: streams over HTTP, alone and many.

One stream that hashes nothing, for it is a range, against a bare client of aiohttp that takes
the same bytes by ``iter_chunked``; one whole blob that might be shared against one that is not;
and many verified streams against the same with all hashing on the event loop. The registry is a
process of its own, so the CPU time is that of the readers.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

import asupplemented as asup
from asupplemented.hashing import HASHING, Hashing
from asupplemented.transports.registry.options import RegistryLimits
from benchmarks.harness import cpu_seconds, interleave, report, wall_seconds
from benchmarks.server import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.server import Offer

MIB = 1024 * 1024
SIZE = 512
"""MiB of the blob of a lone reader."""
MANY = 64
SMALL = 16
"""MiB of the blob that many readers have."""
ROUNDS = 9
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - memory is the point


def write(path: Path, mebibytes: int) -> None:
    """A file whose blocks all differ."""
    block = hashlib.shake_256(b"a blob").digest(MIB)
    with path.open("wb") as file:
        for number in range(mebibytes):
            file.write(number.to_bytes(8, "big") + block[8:])


def make_session(hashing: Hashing | None = None) -> asup.Session:
    """A session that lets a registry send any number of bodies at once."""
    options = asup.RegistryOptions(limits=RegistryLimits(bodies=MANY))
    session = asup.Session(tls_verify=False, settings=[options])
    if hashing is not None:
        session.resource(HASHING, lambda: hashing)
    return session


async def read(stream: asup.BlobStream) -> int:
    """Read a stream to its end, and throw the bytes away."""
    async with stream:
        async for _ in stream:
            pass
    return stream.received


async def read_bare(url: str) -> int:
    """The blob by aiohttp and nothing else."""
    received = 0
    async with (
        aiohttp.ClientSession(auto_decompress=False) as http,
        http.get(url) as response,
    ):
        async for chunk in response.content.iter_chunked(MIB):
            received += len(chunk)
    return received


async def read_ours(
    offer: Offer,
    *,
    end: int | None = None,
    shared: bool = True,
    streams: int = 1,
    hashing: Hashing | None = None,
) -> int:
    """Open an image, and read its blob through so many streams at once."""
    blob = asup.Descriptor("application/octet-stream", offer.blob or "", offer.blob_size)
    async with (
        make_session(hashing) as session,
        asup.parse_reference(offer.reference("single-0")).open(session) as image,
    ):
        received = await asyncio.gather(
            *(read(image.open_blob(blob, end=end, shared=shared)) for _ in range(streams))
        )
    return sum(received)


def run(work: Callable[[], Coroutine[None, None, int]], expected: int) -> Callable[[], None]:
    """A call that reads, and makes sure that it was everything."""

    def call() -> None:
        if (received := asyncio.run(work())) != expected:
            message = f"{received} bytes came of {expected}"
            raise RuntimeError(message)

    return call


def measure_range(offer: Offer) -> None:
    """One stream that hashes nothing."""
    size = SIZE * MIB
    end = size - 1  # the server knows no ranges: it sends as much to both
    figures = interleave(
        {
            "ours": lambda: cpu_seconds(run(lambda: read_ours(offer, end=end), end)),
            "bare": lambda: cpu_seconds(run(lambda: read_bare(offer.blob_url), size)),
        },
        ROUNDS,
    )
    report(
        f"{SIZE} MiB over HTTP through a stream, not hashed, CPU",
        "s/GiB",
        [value * 1024 / SIZE for value in figures["ours"]],
        comparator="aiohttp iter_chunked(1 MiB), CPU",
        baseline=[value * 1024 / SIZE for value in figures["bare"]],
        goal="ratio <= 1.1",
    )


def measure_lone_reader(offer: Offer) -> None:
    """One reader of a blob that others might join, against one whom nobody can join."""
    size = SIZE * MIB
    joined = run(lambda: read_ours(offer), size)
    alone = run(lambda: read_ours(offer, shared=False), size)
    figures = interleave(
        {
            "joined wall": lambda: SIZE / wall_seconds(joined),
            "alone wall": lambda: SIZE / wall_seconds(alone),
            "joined cpu": lambda: cpu_seconds(joined) * 1024 / SIZE,
            "alone cpu": lambda: cpu_seconds(alone) * 1024 / SIZE,
        },
        ROUNDS,
    )
    report(
        f"{SIZE} MiB over HTTP, verified, which others could join, wall",
        "MiB/s",
        figures["joined wall"],
        comparator="shared=False, wall",
        baseline=figures["alone wall"],
    )
    report(
        f"{SIZE} MiB over HTTP, verified, which others could join, CPU",
        "s/GiB",
        figures["joined cpu"],
        comparator="shared=False, CPU",
        baseline=figures["alone cpu"],
    )


def measure_many(offer: Offer) -> None:
    """Many verified streams, none of which is shared."""
    size = SMALL * MANY * MIB

    def read_many(hashing: Callable[[], Hashing]) -> Callable[[], None]:
        return run(
            lambda: read_ours(offer, shared=False, streams=MANY, hashing=hashing()), size
        )

    beside, inline = read_many(Hashing), read_many(lambda: Hashing(threads=0))
    gib = size / MIB / 1024
    figures = interleave(
        {
            "beside": lambda: cpu_seconds(beside) / gib,
            "inline": lambda: cpu_seconds(inline) / gib,
            "beside wall": lambda: size / MIB / wall_seconds(beside),
            "inline wall": lambda: size / MIB / wall_seconds(inline),
        },
        ROUNDS,
    )
    report(
        f"{MANY} verified streams of {SMALL} MiB, CPU",
        "s/GiB",
        figures["beside"],
        comparator="the same, hashed on the event loop, CPU",
        baseline=figures["inline"],
        goal="ratio <= 1.15",
    )
    report(
        f"{MANY} verified streams of {SMALL} MiB, wall",
        "MiB/s",
        figures["beside wall"],
        comparator="the same, hashed on the event loop, wall",
        baseline=figures["inline wall"],
    )


def main() -> None:
    """Print the cases."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        large, small = Path(scratch) / "large", Path(scratch) / "small"
        write(large, SIZE)
        write(small, SMALL)
        with serve(instances=1, singles=1, file=large) as offer:
            measure_range(offer)
            measure_lone_reader(offer)
        with serve(instances=1, singles=1, file=small) as offer:
            measure_many(offer)


if __name__ == "__main__":
    main()
