"""Files of an ``oci:`` layout, in one hop for a batch or a block, compared with aiofiles.

aiofiles makes one hop to a thread for each call. That is right for files that are read at leisure,
and these figures say why manifests in batches and large blobs are read in another way.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import aiofiles

import asupplemented as asup
from asupplemented.supplemented.driver import BATCH
from asupplemented.testing.disk import write_layout
from asupplemented.testing.images import build_image
from benchmarks.harness import cpu_seconds, interleave, report
from benchmarks.layout import COUNT, write

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE_BY_SIDE = 16
"""Files that aiofiles reads concurrently."""
MIB = 1024 * 1024
BLOB = 256 * MIB
ROUNDS = 7


def read_batches(root: Path, files: Sequence[Path]) -> None:
    """Read, verify and parse manifests in batches."""
    digests = [asup.Digest(f"sha256:{file.name}") for file in files]

    async def run() -> None:
        reference = asup.parse_reference(f"oci:{root}")
        async with asup.Session() as session, reference.open(session) as source:
            for start in range(0, len(digests), BATCH):
                await source.get_manifests(digests[start : start + BATCH])

    asyncio.run(run())


def read_manifests(files: Sequence[Path]) -> None:
    """Open, read, close and hash each file with aiofiles."""
    waiting = iter(files)

    async def work() -> None:
        for file in waiting:
            async with aiofiles.open(file, "rb", buffering=0) as opened:
                raw = await opened.read()
            check(hashlib.sha256(raw).hexdigest(), file)

    async def run() -> None:
        await asyncio.gather(*(work() for _ in range(SIDE_BY_SIDE)))

    asyncio.run(run())


def read_blob(file: Path, block: int) -> None:
    """Read a blob with aiofiles, and hash it on the event loop."""

    async def run() -> None:
        seen = hashlib.sha256()
        async with aiofiles.open(file, "rb", buffering=0) as opened:
            while chunk := await opened.read(block):
                seen.update(chunk)
        check(seen.hexdigest(), file)

    asyncio.run(run())


def read_ours(reference: str, digest: asup.Digest) -> None:
    """Read a blob as a verified stream."""

    async def run() -> None:
        group = asup.supplement(reference)
        async with (
            asup.Session() as session,
            group.open(session) as image,
            image.open_blob(digest) as blob,
        ):
            async for _ in blob:
                pass

    asyncio.run(run())


def check(found: str, file: Path) -> None:
    """Compare a digest with the name of its file."""
    if found != file.name:
        message = f"{file} is corrupt"
        raise RuntimeError(message)


def main() -> None:
    """Print the cases."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        files = write(root / "many")
        image = build_image("linux/amd64", [hashlib.shake_128(b"a layer").digest(BLOB)])
        [layer] = image.layers
        reference = write_layout(root / "large", image)
        file = root / "large" / "blobs" / layer.algorithm / layer.encoded
        cases = {
            "batch": partial(read_batches, root / "many", files),
            "each": partial(read_manifests, files),
            "stream": partial(read_ours, reference, layer),
            "64 KiB": partial(read_blob, file, 64 * 1024),
            "1 MiB": partial(read_blob, file, MIB),
        }
        figures = interleave(
            {name: partial(cpu_seconds, run) for name, run in cases.items()}, ROUNDS
        )
    per_manifest, per_gib = 1e6 / COUNT, 1024 * MIB / BLOB
    scaled = {
        name: [each * (per_manifest if name in {"batch", "each"} else per_gib) for each in found]
        for name, found in figures.items()
    }
    report(
        f"read, verify and parse {COUNT} manifests of an oci: layout in batches of {BATCH}, CPU",
        "us/manifest",
        scaled["batch"],
        comparator=f"aiofiles (open, read, close) and sha256, {SIDE_BY_SIDE} files at a time",
        baseline=scaled["each"],
    )
    for block in ("64 KiB", "1 MiB"):
        report(
            "a verified blob of 256 MiB from an oci: layout, CPU",
            "s/GiB",
            scaled["stream"],
            comparator=f"aiofiles in blocks of {block}, hashed on the event loop",
            baseline=scaled[block],
        )


if __name__ == "__main__":
    main()
