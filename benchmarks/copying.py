"""Copies from a registry to this machine: many small blobs, and a few large ones.

64 images of an index, each with a config and a layer of 2 KiB, are copied from a registry that
answers 20 ms late, beside ``skopeo copy --all``. Ten layers of 64 MiB are copied from one that
answers at once, beside what a shell script would do: fetch them all at once with ``curl -Z``, then
hash them with openssl, one process for each core. The shell plans nothing and makes no layout.

Files are made in memory (``/dev/shm``), so that the disk of the machine decides nothing.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asupplemented as asup
from asupplemented.aio.threads import usable_cores
from benchmarks.harness import interleave, report, wall_seconds
from benchmarks.programs import find_program
from benchmarks.server import REPOSITORY, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.server import Offer

MIB = 1024 * 1024
ROUNDS = 5
INSTANCES = 64
LATENCY = 0.02
LAYERS = 10
LAYER_BYTES = 64 * MIB
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - memory is the point


def copy_ours(offer: Offer, tag: str, target: Path) -> None:
    """Copy to a new layout."""

    async def run() -> None:
        async with asup.Session(tls_verify=False) as session:
            await asup.copy(offer.reference(tag), f"oci:{target}:copy", session)

    asyncio.run(run())


def copy_by_skopeo(offer: Offer, tag: str, target: Path) -> None:
    """The same with skopeo."""
    source, destination = offer.reference(tag), f"oci:{target}:copy"
    command = ["skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false", source, destination]
    subprocess.run(command, check=True)


def fetch_by_shell(offer: Offer, digests: Sequence[str], target: Path) -> None:
    """Fetch blobs with curl, then hash them with openssl on all cores."""
    target.mkdir()
    fetch = ["curl", "-s", "-Z", "--fail"]
    for digest in digests:
        url = f"{offer.url}/v2/{REPOSITORY}/blobs/{digest}"
        fetch += ["-o", str(target / digest.partition(":")[2]), url]
    subprocess.run(fetch, check=True, stderr=subprocess.DEVNULL)
    files = [str(path) for path in target.iterdir()]
    cores = usable_cores()
    running = [
        subprocess.Popen(
            ["openssl", "dgst", "-sha256", *files[core::cores]], stdout=subprocess.PIPE
        )
        for core in range(cores)
    ]
    printed = b"".join(process.communicate()[0] for process in running)
    if any(digest.partition(":")[2].encode() not in printed for digest in digests):
        message = "a blob that curl fetched has another digest"
        raise RuntimeError(message)


def timed(scratch: Path, run: Callable[[Path], None]) -> Callable[[], float]:
    """Seconds of a run into a directory that is not there, and is removed afterwards."""

    def once() -> float:
        target = scratch / "target"
        try:
            return wall_seconds(lambda: run(target))
        finally:
            shutil.rmtree(target, ignore_errors=True)

    return once


def measure_small(scratch: Path) -> None:
    """An index of small images, 20 ms away."""
    if find_program("skopeo") is None:
        print("skopeo is not installed: small copies are not compared", flush=True)
    with serve(instances=0, small=INSTANCES, latency=LATENCY) as offer:
        cases = {"ours": timed(scratch, lambda target: copy_ours(offer, "small", target))}
        if find_program("skopeo") is not None:
            cases["skopeo"] = timed(scratch, lambda target: copy_by_skopeo(offer, "small", target))
        figures = interleave(cases, ROUNDS)
    report(
        f"copy, {INSTANCES} small images, {1000 * LATENCY:.0f} ms",
        "s",
        figures["ours"],
        comparator="skopeo copy --all" if "skopeo" in figures else None,
        baseline=figures.get("skopeo"),
        goal="median <= 0.25, ratio <= 0.056",
    )


def measure_large(scratch: Path) -> None:
    """Large layers, at no distance."""
    files = [scratch / f"layer-{number}" for number in range(LAYERS)]
    for file in files:
        file.write_bytes(os.urandom(LAYER_BYTES))
    with serve(instances=0, large=files) as offer:
        digests = _list_layers(offer)
        figures = interleave(
            {
                "ours": timed(scratch, lambda target: copy_ours(offer, "large", target)),
                "shell": timed(scratch, lambda target: fetch_by_shell(offer, digests, target)),
            },
            ROUNDS,
        )
    for file in files:
        file.unlink()
    report(
        f"copy, {LAYERS} layers of {LAYER_BYTES // MIB} MiB",
        "s",
        figures["ours"],
        comparator="curl -Z, then openssl dgst -sha256 on all cores",
        baseline=figures["shell"],
        goal="ratio <= 0.8",
    )


def _list_layers(offer: Offer) -> list[str]:
    async def run() -> list[str]:
        async with (
            asup.Session(tls_verify=False) as session,
            asup.parse_reference(offer.reference("large")).open(session) as source,
        ):
            manifest = await source.get_manifest()
            return [layer.digest for layer in manifest.parse_image().layers]

    return asyncio.run(run())


def main() -> None:
    """Print the cases."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        measure_small(Path(scratch))
        measure_large(Path(scratch))


if __name__ == "__main__":
    main()
