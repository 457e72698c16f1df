"""One blob of 1 GiB from a registry, verified: throughput and memory against curl and openssl.

The registry runs in a process of its own and sends the file with sendfile. The comparator is
what a shell script would do: ``curl | openssl dgst -sha256``. It is read twice, by itself and so
that others could join, which writes it to a file beside.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asupplemented as asup
from benchmarks.harness import interleave, report, wall_seconds
from benchmarks.server import serve

if TYPE_CHECKING:
    from benchmarks.server import Offer

MIB = 1024 * 1024
SIZE = 1024
"""MiB."""
ROUNDS = 7
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - memory is the point


def write_file(path: Path) -> None:
    """A file that no layer between here and the wire can compress."""
    with Path("/dev/urandom").open("rb") as noise, path.open("wb") as file:
        for _ in range(SIZE):
            file.write(noise.read(MIB))


def read_ours(offer: Offer, *, shared: bool) -> None:
    """Open a session and an image, read the blob to its end."""

    async def run() -> None:
        descriptor = asup.Descriptor("application/octet-stream", offer.blob or "", offer.blob_size)
        async with (
            asup.Session(tls_verify=False) as session,
            asup.parse_reference(offer.reference("single-0")).open(session) as image,
            image.open_blob(descriptor, shared=shared) as blob,
        ):
            async for _ in blob:
                pass
            if not blob.verified:
                message = "the blob was not verified"
                raise RuntimeError(message)

    asyncio.run(run())


def read_by_shell(offer: Offer) -> None:
    """The same with well-known programs."""
    command = f"curl -s {offer.blob_url} | openssl dgst -sha256"
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)  # noqa: S602 - our own words


def main() -> None:
    """Print the cases."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        path = Path(scratch) / "blob"
        write_file(path)
        with serve(instances=1, singles=1, file=path) as offer:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            read_ours(offer, shared=True)
            growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            seconds = interleave(
                {
                    "alone": lambda: wall_seconds(lambda: read_ours(offer, shared=False)),
                    "joined": lambda: wall_seconds(lambda: read_ours(offer, shared=True)),
                    "shell": lambda: wall_seconds(lambda: read_by_shell(offer)),
                },
                ROUNDS,
            )
    for name, what in (("alone", "verified"), ("joined", "verified, which others could join")):
        report(
            f"1 GiB over HTTP, {what}",
            "MiB/s",
            [SIZE / value for value in seconds[name]],
            comparator="curl | openssl dgst -sha256",
            baseline=[SIZE / value for value in seconds["shell"]],
            goal="ratio >= 1.1" if name == "alone" else None,
        )
    report("1 GiB over HTTP, growth of peak memory", "MiB", [growth], goal="median <= 64")


if __name__ == "__main__":
    main()
