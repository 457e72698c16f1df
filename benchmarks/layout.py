"""Opening an ``oci:`` layout of 1,024 images: CPU per manifest, everything included."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from pathlib import Path

import asupplemented as asup
from asupplemented.testing.disk import write_layout
from asupplemented.testing.images import build_image, build_index
from benchmarks.harness import cpu_seconds, interleave, report

COUNT = 1024
ROUNDS = 9


def write(root: Path) -> list[Path]:
    """Write the layout; returns the files of its manifests."""
    images = [
        build_image("linux/amd64", [f"layer {n}.{part}".encode() for part in range(5)])
        for n in range(COUNT)
    ]
    write_layout(root, build_index(images))
    return [root / "blobs" / "sha256" / image.digest.encoded for image in images]


def open_ours(root: Path) -> None:
    """One session, one group, closed again."""

    async def run() -> None:
        async with asup.Session() as session, asup.supplement(f"oci:{root}").open(session) as image:
            if len(image.resolution.sources) != COUNT + 1:
                message = "not all manifests were read"
                raise RuntimeError(message)

    asyncio.run(run())


def read_plainly(files: list[Path]) -> None:
    """What a script would do: read, hash, decode, one after the other."""
    for file in files:
        raw = file.read_bytes()
        if hashlib.sha256(raw).hexdigest() != file.name:
            message = f"{file} is corrupt"
            raise RuntimeError(message)
        json.loads(raw)


def main() -> None:
    """Print the case."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "layout"
        files = write(root)
        per_manifest = 1e6 / COUNT
        figures = interleave(
            {
                "ours": lambda: cpu_seconds(lambda: open_ours(root)) * per_manifest,
                "plain": lambda: cpu_seconds(lambda: read_plainly(files)) * per_manifest,
            },
            ROUNDS,
        )
    report(
        f"open an oci: layout of {COUNT} images, CPU",
        "us/manifest",
        figures["ours"],
        comparator="read_bytes, hashlib.sha256 and json.loads, file by file",
        baseline=figures["plain"],
        goal="median <= 30",
    )


if __name__ == "__main__":
    main()
