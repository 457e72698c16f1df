"""``import asupplemented`` against ``import aiohttp``: CPU above a bare interpreter."""

from __future__ import annotations

import resource
import subprocess
import sys

from benchmarks.harness import interleave, report

ROUNDS = 15


def child_cpu(statement: str) -> float:
    """CPU milliseconds of a fresh interpreter that runs one statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def main() -> None:
    """Print the case."""
    figures = interleave(
        {
            "bare": lambda: child_cpu("pass"),
            "aiohttp": lambda: child_cpu("import aiohttp"),
            "asupplemented": lambda: child_cpu("import asupplemented"),
        },
        ROUNDS,
    )
    bare = figures["bare"]
    ours = [value - base for value, base in zip(figures["asupplemented"], bare, strict=True)]
    theirs = [value - base for value, base in zip(figures["aiohttp"], bare, strict=True)]
    report(
        "import asupplemented, CPU above bare Python",
        "ms",
        ours,
        comparator="import aiohttp, CPU above bare Python",
        baseline=theirs,
        goal="ratio <= 0.5",
    )


if __name__ == "__main__":
    main()
