"""Package calls per chunk: how much of the library each chunk of a blob passes through.

A group of two images in memory serves a blob in chunks of 64 KiB. `sys.setprofile` counts every
call, and every resumption of a coroutine, of code in the package; the transport in memory does
not count. A blob is read in two sizes, and the difference is divided by the chunks that the
reader gets, so that opening and closing do not count either.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import asupplemented
from asupplemented import LayoutCache, Session, supplement
from asupplemented.cache.sharing import settle
from asupplemented.testing import build_image, hold_in_memory

if TYPE_CHECKING:
    from types import FrameType

    from asupplemented.abc import Reference

PACKAGE = str(Path(asupplemented.__file__).parent)
IGNORED = str(Path(PACKAGE, "transports", "memory.py"))
MIB = 1024 * 1024
SIZES = (32 * MIB, 64 * MIB)


class CallCounter:
    """Counts calls of package functions, in all threads that start while it runs.

    Attributes:
        calls: By file and function.
    """

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()

    def __enter__(self) -> None:
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        name = code.co_filename
        if event == "call" and name.startswith(PACKAGE) and name != IGNORED:
            self.calls[name[len(PACKAGE) + 1 :], code.co_qualname] += 1


def build(size: int) -> tuple[Reference, str]:
    """A group of two images that both have a layer of a size, and the digest of that layer."""
    image = build_image(layers=[bytes(size)])
    images = [hold_in_memory(name, image) for name in ("top", "supplement")]
    return supplement(*images), image.layers[0]


async def read(
    reference: Reference, digest: str, *, shared: bool, cache: LayoutCache | None, warm: bool
) -> tuple[int, Counter[tuple[str, str]]]:
    """Read a blob; the chunks that came, and the calls that they took."""
    counter = CallCounter()
    async with Session(cache=cache) as session, reference.open(session) as image:
        if warm:
            async with image.open_blob(digest) as blob:
                async for _ in blob:
                    pass
            await settle(session)
        with counter:
            chunks = 0
            async with image.open_blob(digest, shared=shared) as blob:
                async for _ in blob:
                    chunks += 1
    return chunks, counter.calls


def measure(*, shared: bool, caching: bool, warm: bool) -> tuple[float, dict[str, float]]:
    """Calls per chunk: of all functions, and of each."""
    counts: list[tuple[int, Counter[tuple[str, str]]]] = []
    for size in SIZES:
        reference, digest = build(size)
        with tempfile.TemporaryDirectory() as directory:
            cache = LayoutCache(directory, max_bytes=8 * SIZES[1]) if caching else None
            reading = read(reference, digest, shared=shared, cache=cache, warm=warm)
            counts.append(asyncio.run(reading))
    (few, first), (many, second) = counts
    second.subtract(first)
    each = {":".join(name): count / (many - few) for name, count in second.most_common()}
    return sum(each.values()), each


CASES = {
    "alone": (False, False, False),
    "shared": (True, False, False),
    "shared, and stored in a cache": (True, True, False),
    "from a cache": (True, True, True),
}
"""How a blob is read: whether others may join, with a cache, and whether it is in there."""


def main() -> None:
    """Print a line of JSON for each way to read a blob; with ``-v``, each function, too."""
    for name, (shared, caching, warm) in CASES.items():
        total, each = measure(shared=shared, caching=caching, warm=warm)
        line = {"case": f"package calls per chunk, {name}", "calls": round(total, 1)}
        sys.stdout.write(json.dumps(line) + "\n")
        if "-v" in sys.argv:
            for function, calls in each.items():
                if calls >= 0.05:  # noqa: PLR2004 - what is rarer is no cost of a chunk
                    sys.stdout.write(f"  {calls:6.2f} {function}\n")


if __name__ == "__main__":
    main()
