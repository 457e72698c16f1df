"""What reading through the library costs beyond reading: streams over HTTP, alone and many.

One stream that hashes nothing, for it is a range, against a bare client of aiohttp that takes
the same bytes by ``iter_chunked``; one whole blob that might be shared against one that is not;
and many verified streams against the same with all hashing on the event loop. The registry is a
process of its own, so the CPU time is that of the readers.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import aiohttp

import asupplemented as asup
from asupplemented.blobs.hashing import HASHING, Hashing
from asupplemented.transports.registry.options import RegistryLimits
from benchmarks.harness import cpu_seconds, interleave, report, wall_seconds
from benchmarks.server import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from benchmarks.server import Offer

T = TypeVar("T")

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


def make_session(threads: int | None = None) -> asup.Session:
    """A session that lets a registry send any number of bodies at once.

    Args:
        threads: How many hash; None is what the session would choose.
    """
    options = asup.RegistryOptions(limits=RegistryLimits(bodies=MANY))
    session = asup.Session(tls_verify=False, settings=[options])
    session.resource(HASHING, lambda: Hashing(threads))
    return session


@contextlib.asynccontextmanager
async def open_image(offer: Offer, threads: int | None = None) -> AsyncIterator[asup.Source]:
    """The image, in a session of its own."""
    async with (
        make_session(threads) as session,
        asup.parse_reference(offer.reference("single-0")).open(session) as image,
    ):
        yield image


@contextlib.asynccontextmanager
async def open_bare() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of aiohttp as it comes."""
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        yield http


def enter(
    runner: asyncio.Runner,
    scope: contextlib.ExitStack,
    manager: contextlib.AbstractAsyncContextManager[T],
) -> T:
    """Enter something on the loop of a runner, to be left with the scope."""

    async def come_in() -> T:
        return await manager.__aenter__()

    async def leave() -> None:
        await manager.__aexit__(None, None, None)

    entered = runner.run(come_in())
    scope.callback(lambda: runner.run(leave()))
    return entered


def blob_of(offer: Offer) -> asup.Descriptor:
    """The blob, as a manifest would name it."""
    return asup.Descriptor("application/octet-stream", offer.blob or "", offer.blob_size)


async def read(stream: asup.BlobStream, expected: int) -> None:
    """Read a stream to its end, and throw the bytes away."""
    async with stream:
        async for _ in stream:
            pass
    if stream.received != expected:
        message = f"{stream.received} bytes came of {expected}"
        raise RuntimeError(message)


async def read_bare(http: aiohttp.ClientSession, url: str) -> None:
    """The blob by aiohttp and nothing else."""
    async with http.get(url) as response:
        async for _ in response.content.iter_chunked(MIB):
            pass


def measure_lone_reader(offer: Offer) -> None:
    """One stream at a time, in a session that is open."""
    size, blob = SIZE * MIB, blob_of(offer)
    last = size - 1  # of a range; the server knows none, and sends as much to all
    with asyncio.Runner() as runner, contextlib.ExitStack() as scope:
        image = enter(runner, scope, open_image(offer))
        http = enter(runner, scope, open_bare())

        def cpu(work: Callable[[], Coroutine[None, None, None]]) -> Callable[[], float]:
            return lambda: cpu_seconds(lambda: runner.run(work())) * 1024 / SIZE

        def wall(work: Callable[[], Coroutine[None, None, None]]) -> Callable[[], float]:
            return lambda: SIZE / wall_seconds(lambda: runner.run(work()))

        async def in_part() -> None:
            await read(image.open_blob(blob, end=last), last)

        async def joined() -> None:
            await read(image.open_blob(blob), size)

        async def alone() -> None:
            await read(image.open_blob(blob, shared=False), size)

        figures = interleave(
            {
                "range": cpu(in_part),
                "bare": cpu(lambda: read_bare(http, offer.blob_url)),
                "joined": cpu(joined),
                "alone": cpu(alone),
                "joined wall": wall(joined),
                "alone wall": wall(alone),
            },
            ROUNDS,
        )
    report(
        f"{SIZE} MiB over HTTP through a stream, not hashed, CPU",
        "s/GiB",
        figures["range"],
        comparator="aiohttp iter_chunked(1 MiB), CPU",
        baseline=figures["bare"],
        goal="ratio <= 1.1",
    )
    report(
        f"{SIZE} MiB over HTTP, verified, which others could join, CPU",
        "s/GiB",
        figures["joined"],
        comparator="shared=False, CPU",
        baseline=figures["alone"],
    )
    report(
        f"{SIZE} MiB over HTTP, verified, which others could join, wall",
        "MiB/s",
        figures["joined wall"],
        comparator="shared=False, wall",
        baseline=figures["alone wall"],
    )


def measure_many(offer: Offer) -> None:
    """Many verified streams, none of which is shared."""
    size, blob = SMALL * MIB, blob_of(offer)
    total = SMALL * MANY
    with asyncio.Runner() as runner, contextlib.ExitStack() as scope:
        beside = enter(runner, scope, open_image(offer))
        inline = enter(runner, scope, open_image(offer, threads=0))

        async def read_many(image: asup.Source) -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(MANY):
                    group.create_task(read(image.open_blob(blob, shared=False), size))

        figures = interleave(
            {
                "beside": lambda: cpu_seconds(lambda: runner.run(read_many(beside))) * 1024 / total,
                "inline": lambda: cpu_seconds(lambda: runner.run(read_many(inline))) * 1024 / total,
                "beside wall": lambda: total / wall_seconds(lambda: runner.run(read_many(beside))),
                "inline wall": lambda: total / wall_seconds(lambda: runner.run(read_many(inline))),
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
            measure_lone_reader(offer)
        with serve(instances=1, singles=1, file=small) as offer:
            measure_many(offer)


if __name__ == "__main__":
    main()
