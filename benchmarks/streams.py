"""Blob streams: a large blob verified from disk, and what a stream costs by itself.

The file lies in memory (``/dev/shm`` where there is one), so that no disk is measured. Its
comparator is ``openssl dgst -sha256`` on the same file: one thread, nothing but read and hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import resource
import subprocess
import tempfile
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Self

from asupplemented import Descriptor, Digest, Session
from asupplemented.abc import BlobCandidate
from asupplemented.aio.threads import run_opening
from asupplemented.blobs.blob_file import open_blob_file
from asupplemented.blobs.stream import VerifiedStream
from benchmarks.harness import cpu_seconds, interleave, report, wall_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from asupplemented.abc import BlobFile, Context, RawBlob

MIB = 1024 * 1024
SIZE = 1024 * MIB
PIECE = 256 * 1024
"""A chunk as a fast network gives them."""
ROUNDS = 7
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - memory is the point


class Disk(BlobCandidate):
    """A candidate that has the blob in a file."""

    reference = "file"
    local = True

    def __init__(self, path: Path, context: Context) -> None:
        self._path = path
        self._context = context

    def open(self, start: int = 0, end: int | None = None, etag: str | None = None) -> RawBlob:
        """Not asked, since there is a file."""
        raise NotImplementedError

    async def open_file(self) -> BlobFile | None:
        """The file."""
        return await run_opening(
            self._context, lambda: open_blob_file(self._path), lambda late: late.close()
        )


class Memory(BlobCandidate):
    """A candidate, and its one answer: the same piece again and again, at no cost."""

    reference = "memory"
    start = 0
    size = SIZE
    etag = None

    def __init__(self, piece: bytes) -> None:
        self._pieces = repeat(piece, SIZE // len(piece))

    def open(self, start: int = 0, end: int | None = None, etag: str | None = None) -> RawBlob:
        """The answer."""
        del start, end, etag
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is held."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


def read(
    digest: Digest, make: Callable[[Session], BlobCandidate], *, end: int | None = None
) -> Callable[[], None]:
    """Read a stream to its end and throw the bytes away."""

    async def run() -> None:
        descriptor = Descriptor(digest=digest, size=SIZE)
        async with Session() as session:
            stream = VerifiedStream(descriptor, [make(session)], session, end=end)
            async with stream:
                async for _ in stream:
                    pass
            if stream.received != (end or SIZE):
                message = f"the stream ended after {stream.received} bytes"
                raise RuntimeError(message)

    return lambda: asyncio.run(run())


def openssl(path: Path) -> None:
    """The comparator."""
    subprocess.run(["openssl", "dgst", "-sha256", str(path)], check=True, capture_output=True)


def children_cpu(work: Callable[[], object]) -> float:
    """CPU time of the processes that a call starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def write(path: Path) -> Digest:
    """Write the blob; returns its digest."""
    with path.open("wb") as file:
        block = hashlib.shake_256(b"a blob").digest(MIB)
        for number in range(SIZE // MIB):
            file.write(number.to_bytes(8, "big") + block[8:])
    with path.open("rb") as file:
        return Digest(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")


def measure_disk() -> None:
    """A file, verified: wall and CPU against openssl, and the memory that it takes."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        path = Path(scratch) / "blob"
        digest = write(path)
        ours = read(digest, lambda session: Disk(path, session))
        before = peak_mib()
        ours()
        growth = peak_mib() - before
        figures = interleave(
            {
                "wall": lambda: SIZE / MIB / wall_seconds(ours),
                "openssl wall": lambda: SIZE / MIB / wall_seconds(lambda: openssl(path)),
                "cpu": lambda: cpu_seconds(ours),
                "openssl cpu": lambda: children_cpu(lambda: openssl(path)),
            },
            ROUNDS,
        )
    report(
        "1 GiB from disk, verified, wall",
        "MiB/s",
        figures["wall"],
        comparator="openssl dgst -sha256 on the same file, wall",
        baseline=figures["openssl wall"],
        goal="ratio >= 0.8",
    )
    report(
        "1 GiB from disk, verified, CPU",
        "s/GiB",
        figures["cpu"],
        comparator="openssl dgst -sha256 on the same file, CPU",
        baseline=figures["openssl cpu"],
        goal="ratio <= 1.25",
    )
    report("1 GiB from disk, growth of peak memory", "MiB", [growth], goal="median <= 64")


def peak_mib() -> float:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_stream() -> None:
    """A stream by itself: chunks that cost nothing, hashed and not."""
    piece = bytes(range(256)) * (PIECE // 256)
    count = SIZE // PIECE

    def hash_plainly() -> Digest:
        hasher = hashlib.sha256()
        for _ in range(count):
            hasher.update(piece)
        return Digest(f"sha256:{hasher.hexdigest()}")

    digest = hash_plainly()
    figures = interleave(
        {
            "verified": lambda: cpu_seconds(read(digest, lambda _: Memory(piece))),
            "plain": lambda: cpu_seconds(hash_plainly),
            "wall": lambda: wall_seconds(read(digest, lambda _: Memory(piece))),
            "plain wall": lambda: wall_seconds(hash_plainly),
            "range": lambda: (
                cpu_seconds(read(digest, lambda _: Memory(piece), end=SIZE - PIECE)) / count * 1e6
            ),
        },
        ROUNDS,
    )
    report(
        "1 GiB in chunks of 256 KiB through a stream, verified, CPU",
        "s/GiB",
        figures["verified"],
        comparator="hashlib.sha256 on the same chunks, CPU",
        baseline=figures["plain"],
    )
    report(
        "1 GiB in chunks of 256 KiB through a stream, verified, wall",
        "s/GiB",
        figures["wall"],
        comparator="hashlib.sha256 on the same chunks, wall",
        baseline=figures["plain wall"],
    )
    report("a stream without hashing (a range), CPU per chunk", "us/chunk", figures["range"])


def main() -> None:
    """Print the cases."""
    measure_disk()
    measure_stream()


if __name__ == "__main__":
    main()
