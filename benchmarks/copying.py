"""Copies from a registry to this machine: many small blobs, and a few large ones.

The images of an index, each with a config and a layer of 2 KiB, are copied from a registry that
answers 20 ms late, beside ``skopeo copy --all``. Ten layers of 64 MiB are copied from one that
answers at once, beside what a shell script would do: fetch them all at once with ``curl -Z``, then
hash them with openssl, one process for each core. The shell plans nothing and makes no layout.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asupplemented as asup
from asupplemented.aio.threads import usable_cores
from benchmarks.blobs import has_shell
from benchmarks.harness import SCRATCH, timed
from benchmarks.programs import find_program
from benchmarks.results import OURS
from benchmarks.server import REPOSITORY, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.harness import Bench, Sample
    from benchmarks.server import Offer

__all__ = ("LARGE", "SHELL", "SKOPEO", "SMALL", "run")

MIB: Final = 1024 * 1024
INSTANCES: Final = 64
LATENCY: Final = 0.02
LAYERS: Final = 10
SMALL: Final = f"copy an index of {INSTANCES} small images, 20 ms"
LARGE: Final = f"copy {LAYERS} layers of 64 MiB"
SKOPEO: Final = "skopeo copy --all"
SHELL: Final = "curl -Z, then openssl dgst"


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
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def fetch_by_shell(offer: Offer, digests: Sequence[str], target: Path) -> None:
    """Fetch blobs with curl, then hash them with openssl on all cores."""
    target.mkdir()
    fetch = ["curl", "-Z", "--no-progress-meter", "--fail"]
    for digest in digests:
        url = f"{offer.url}/v2/{REPOSITORY}/blobs/{digest}"
        fetch += ["-o", str(target / digest.partition(":")[2]), url]
    subprocess.run(fetch, check=True)
    files = [str(path) for path in target.iterdir()]
    cores = usable_cores()
    running = [
        subprocess.Popen(
            ["openssl", "dgst", "-sha256", *files[core::cores]], stdout=subprocess.PIPE
        )
        for core in range(min(cores, len(files)))
    ]
    printed = b"".join(process.communicate()[0] for process in running)
    if any(digest.partition(":")[2].encode() not in printed for digest in digests):
        raise RuntimeError("a blob that curl fetched has another digest")


def time_copy(scratch: Path, run: Callable[[Path], None]) -> Callable[[], Sample]:
    """A run into a directory that does not exist, and is removed afterwards."""

    def once() -> Sample:
        target = scratch / "target"
        try:
            return timed(lambda: run(target))
        finally:
            shutil.rmtree(target, ignore_errors=True)

    return once


def list_layers(offer: Offer) -> list[str]:
    """The digests of the large layers."""

    async def run() -> list[str]:
        async with (
            asup.Session(tls_verify=False) as session,
            asup.parse_reference(offer.reference("large")).open(session) as source,
        ):
            manifest = await source.get_manifest()
            return [layer.digest for layer in manifest.parse_image().layers]

    return asyncio.run(run())


def measure_small(bench: Bench, scratch: Path, *, skopeo: bool) -> None:
    """An index of small images, 20 ms away."""
    instances = bench.pick(INSTANCES, full=INSTANCES, tiny=2)
    with serve(instances=0, small=instances, latency=LATENCY) as offer:
        contestants = {OURS: time_copy(scratch, partial(copy_ours, offer, "small"))}
        if skopeo:
            contestants[SKOPEO] = time_copy(scratch, partial(copy_by_skopeo, offer, "small"))
        size = 2 * instances
        bench.compare(SMALL, contestants, size=size, unit="blobs", seconds=15, cold={SKOPEO})


def measure_large(bench: Bench, scratch: Path, *, skopeo: bool) -> None:
    """Large layers, at no distance."""
    mebibytes = bench.pick(64, full=64, tiny=1)
    files = [scratch / f"layer-{number}" for number in range(LAYERS)]
    for file in files:
        file.write_bytes(os.urandom(mebibytes * MIB))
    with serve(instances=0, large=files) as offer:
        contestants = {OURS: time_copy(scratch, partial(copy_ours, offer, "large"))}
        if has_shell(bench):
            fetch = partial(fetch_by_shell, offer, list_layers(offer))
            contestants[SHELL] = time_copy(scratch, fetch)
        if skopeo and bench.full:
            contestants[SKOPEO] = time_copy(scratch, partial(copy_by_skopeo, offer, "large"))
        size = LAYERS * mebibytes
        cold = {SHELL, SKOPEO}
        bench.compare(LARGE, contestants, size=size, unit="MiB", seconds=12, cold=cold)


def run(bench: Bench) -> None:
    """Measure both cases."""
    if not (skopeo := find_program("skopeo") is not None):
        bench.note("skopeo skipped: not installed")
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        scratch = Path(name)
        measure_small(bench, scratch, skopeo=skopeo)
        measure_large(bench, scratch, skopeo=skopeo)
