"""Reading blobs: one of 1 GiB from a registry, over TLS and from disk, and many small ones.

All contestants verify what they read, except in the case of a range. The comparator of the large
blob is what a shell script would do, ``curl | openssl dgst -sha256``. The registry sends files with
sendfile; for TLS, nginx stands before it. Files are made in memory, so no disk is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import subprocess
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiofiles
import aiohttp

import asupplemented as asup
from asupplemented.blobs.hashing import HASHING, Hashing
from asupplemented.model.digest import Digest
from asupplemented.testing.disk import write_layout
from asupplemented.testing.images import build_image
from asupplemented.transports.registry.options import RegistryLimits
from benchmarks.harness import SCRATCH, enter, timed, timed_async
from benchmarks.peers.golang import GO, find_go_package
from benchmarks.peers.python import Bare, Ours, OursAlone, find_peers
from benchmarks.programs import find_program, run_nginx_tls
from benchmarks.results import OURS
from benchmarks.server import LAYER_BYTES, serve

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from benchmarks.harness import Bench, Sample
    from benchmarks.peers.golang import GoPackage
    from benchmarks.peers.python import Peer
    from benchmarks.server import Offer

__all__ = ("SHELL", "read_by_shell", "run", "write_file")

MIB: Final = 1024 * 1024
SHELL: Final = "curl | openssl dgst"
OPENSSL: Final = "openssl dgst"
ON_LOOP: Final = f"{OURS}, hashed on the event loop"
STREAMS: Final = 64


def write_file(path: Path, mebibytes: int) -> None:
    """A file whose blocks all differ."""
    block = hashlib.shake_256(b"a blob").digest(MIB)
    with path.open("wb") as file:
        for number in range(mebibytes):
            file.write(number.to_bytes(8, "big") + block[8:])


def read_by_shell(url: str) -> None:
    """Read and hash a blob with well-known programs."""
    command = f"curl -sk {url} | openssl dgst -sha256"
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)  # noqa: S602 - our own words


def has_shell(bench: Bench) -> bool:
    """Whether both programs are there; notes it if they are not."""
    missing = [name for name in ("curl", "openssl") if find_program(name) is None]
    for name in missing:
        bench.note(f"{SHELL} skipped: {name} is not installed")
    return not missing


def compare_readers(
    bench: Bench,
    case: str,
    offer: Offer,
    readers: Sequence[type[Peer]],
    *,
    others: dict[str, Callable[[], Sample]],
    seconds: float,
    warm: bool = True,
) -> None:
    """Have readers and other contestants read the blob of a registry.

    Args:
        bench: The run.
        case: What they do.
        offer: The registry.
        readers: Clients in this process.
        others: Programs.
        seconds: As `Bench.compare` has it.
        warm: Whether readers warm up. Those of a large blob are warm: they have read smaller ones.
    """
    contestants: dict[str, Callable[[], Sample]] = {
        reader.name: partial(timed_async, partial(reader(offer).read_blob, str(offer.blob)))
        for reader in readers
    }
    contestants |= others
    cold = others if warm else contestants
    size = (offer.blob_size or 0) / MIB
    bench.compare(case, contestants, size=size, unit="MiB", seconds=seconds, cold=cold)


def measure_large(bench: Bench, path: Path, go: GoPackage | None) -> Digest:
    """1 GiB, over http and over TLS; returns its digest."""
    shell = has_shell(bench)
    with serve(instances=1, singles=1, file=path) as offer:
        others: dict[str, Callable[[], Sample]] = {}
        if shell:
            others[SHELL] = partial(timed, partial(read_by_shell, offer.blob_url))
        if go is not None:
            others[GO] = go.read(offer.reference("file"), str(offer.blob))
        readers: list[type[Peer]] = [OursAlone, Ours, Bare]
        case = "1 GiB over http"
        compare_readers(bench, case, offer, readers, others=others, seconds=18, warm=False)
        nginx = find_program("nginx")
        if nginx is None:
            bench.note("TLS skipped: nginx is not installed")
            return Digest(str(offer.blob))
        with run_nginx_tls(nginx, path.with_name("nginx"), path, offer) as port:
            secure = replace(offer, port=port, tls=True)
            others.pop(GO, None)
            if shell:
                others[SHELL] = partial(timed, partial(read_by_shell, secure.blob_url))
            readers = readers[:2] if bench.full else readers[:1]
            case = "1 GiB over TLS"
            compare_readers(bench, case, secure, readers, others=others, seconds=10, warm=False)
    return Digest(str(offer.blob))


def measure_readers(bench: Bench, scratch: Path, peers: Sequence[type[Peer]]) -> None:
    """What other libraries read: 256 MiB, and 64 MiB alone and shared."""
    path = scratch / "blob"
    both: list[type[Peer]] = [Ours, OursAlone]
    everyone: list[type[Peer]] = [*both, Bare, *peers]
    for mebibytes, readers, seconds in ((64, both, 2.0), (256, everyone, 8.0)):
        write_file(path, bench.pick(mebibytes, full=mebibytes, tiny=1))
        with serve(instances=1, singles=1, file=path) as offer:
            case = f"{mebibytes} MiB over http"
            compare_readers(bench, case, offer, readers, others={}, seconds=seconds)
        path.unlink()


@contextlib.asynccontextmanager
async def open_image(offer: Offer, threads: int | None = None) -> AsyncGenerator[asup.Source]:
    """The image, in a session that reads any number of bodies at once.

    Args:
        offer: The registry.
        threads: How many hash; None is what the session would choose.
    """
    options = asup.RegistryOptions(limits=RegistryLimits(bodies=STREAMS))
    session = asup.Session(tls_verify=False, settings=[options])
    session.resource(HASHING, lambda: Hashing(threads))
    async with (
        session,
        asup.parse_reference(offer.reference("single-0")).open(session) as image,
    ):
        yield image


@contextlib.asynccontextmanager
async def open_bare() -> AsyncGenerator[aiohttp.ClientSession]:
    """A client of aiohttp, made in an event loop."""
    async with aiohttp.ClientSession(auto_decompress=False) as client:
        yield client


async def read(stream: asup.BlobStream, expected: int) -> None:
    """Read a stream to its end, and throw the bytes away."""
    async with stream:
        async for _ in stream:
            pass
    if stream.received != expected:
        raise RuntimeError(f"{stream.received} bytes came of {expected}")


def blob_of(offer: Offer) -> asup.Descriptor:
    """The blob, as a manifest would name it."""
    return asup.Descriptor("application/octet-stream", offer.blob or "", offer.blob_size)


def measure_range(bench: Bench, scratch: Path) -> None:
    """A range, which cannot be hashed, in a session that is open."""
    path = scratch / "blob"
    write_file(path, bench.pick(512, full=512, tiny=9))
    with (
        serve(instances=1, singles=1, file=path) as offer,
        asyncio.Runner() as runner,
        contextlib.ExitStack() as scope,
    ):
        image = enter(runner, scope, open_image(offer))
        last = (offer.blob_size or 0) - 1  # the server knows no ranges, and sends all to both

        async def read_range() -> None:
            await read(image.open_blob(blob_of(offer), end=last), last)

        client = enter(runner, scope, open_bare())

        async def read_bare() -> None:
            async with client.get(offer.blob_url) as response:
                async for _ in response.content.iter_chunked(MIB):
                    pass

        bench.compare(
            "a range of 512 MiB, not hashed",
            {
                OURS: lambda: timed(lambda: runner.run(read_range())),
                Bare.name: lambda: timed(lambda: runner.run(read_bare())),
            },
            size=last / MIB,
            unit="MiB",
            seconds=4,
        )
    path.unlink()


def measure_streams(bench: Bench, scratch: Path) -> None:
    """Many verified streams at once, hashed by threads and on the event loop."""
    path = scratch / "blob"
    mebibytes = bench.pick(16, full=16, tiny=1)
    write_file(path, mebibytes)
    with (
        serve(instances=1, singles=1, file=path) as offer,
        asyncio.Runner() as runner,
        contextlib.ExitStack() as scope,
    ):

        async def read_many(image: asup.Source) -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(STREAMS):
                    stream = image.open_blob(blob_of(offer), shared=False)
                    group.create_task(read(stream, mebibytes * MIB))

        def contestant(threads: int | None) -> Callable[[], Sample]:
            image = enter(runner, scope, open_image(offer, threads))
            return lambda: timed(lambda: runner.run(read_many(image)))

        bench.compare(
            f"{STREAMS} streams of {mebibytes} MiB at once",
            {OursAlone.name: contestant(None), ON_LOOP: contestant(0)},
            size=STREAMS * mebibytes,
            unit="MiB",
            seconds=6,
        )
    path.unlink()


def measure_small(bench: Bench, peers: Sequence[type[Peer]]) -> None:
    """Blobs of 2 KiB."""
    count = bench.pick(512, full=2048, tiny=4)
    digests = [str(Digest.of(number.to_bytes(4) * (LAYER_BYTES // 4))) for number in range(count)]
    readers: list[type[Peer]] = [Ours, OursAlone, Bare, *peers]
    with serve(instances=1, singles=1, small=count) as offer:
        bench.compare(
            "blobs of 2 KiB",
            {
                reader.name: partial(timed_async, partial(reader(offer).read_blobs, digests))
                for reader in readers
            },
            size=count,
            unit="blobs",
            seconds=6,
        )


async def read_file(file: Path, block: int) -> None:
    """Read a blob with aiofiles, and hash it on the event loop."""
    seen = hashlib.sha256()
    async with aiofiles.open(file, "rb", buffering=0) as opened:
        while chunk := await opened.read(block):
            seen.update(chunk)
    if seen.hexdigest() != file.name:
        raise RuntimeError(f"{file} is corrupt")


async def read_layout(reference: str, digest: asup.Digest) -> None:
    """Read a blob of a layout as a verified stream."""
    async with (
        asup.Session() as session,
        asup.supplement(reference).open(session) as image,
        image.open_blob(digest) as blob,
    ):
        async for _ in blob:
            pass


def measure_disk(bench: Bench, file: Path, digest: Digest, go: GoPackage | None) -> None:
    """A layer of a layout on disk."""
    size = file.stat().st_size
    image = build_image("linux/amd64", [b"layer"])
    manifest = json.loads(image.raw)
    manifest["layers"][0] |= {"digest": digest, "size": size}
    raw = json.dumps(manifest).encode()
    root = file.with_name("layout")
    reference = write_layout(root, replace(image, raw=raw, digest=Digest.of(raw)))
    stored = file.rename(root / "blobs" / digest.algorithm / digest.encoded)
    contestants: dict[str, Callable[[], Sample]] = {
        OURS: partial(timed_async, partial(read_layout, reference, digest)),
    }
    if find_program("openssl") is None:
        bench.note(f"{OPENSSL} skipped: openssl is not installed")
    else:
        command = ["openssl", "dgst", "-sha256", str(stored)]
        work = partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
        contestants[OPENSSL] = partial(timed, work)
    if bench.full:
        for block in (64 * 1024, MIB):
            name = f"aiofiles in blocks of {block // 1024} KiB"
            contestants[name] = partial(timed_async, partial(read_file, stored, block))
    if go is not None and bench.full:
        contestants[GO] = go.read(reference, digest)
    bench.compare(
        "1 GiB from disk",
        contestants,
        size=size / MIB,
        unit="MiB",
        seconds=8,
        cold=contestants,
    )


def run(bench: Bench) -> None:
    """Measure all cases."""
    go, peers = find_go_package(bench), find_peers(bench, blobs=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        scratch, path = Path(name), Path(name, "large")
        measure_small(bench, peers)
        measure_range(bench, scratch)
        measure_readers(bench, scratch, peers)
        if bench.full:
            measure_streams(bench, scratch)
        write_file(path, bench.pick(1024, full=1024, tiny=1))
        digest = measure_large(bench, path, go)
        measure_disk(bench, path, digest, go)
