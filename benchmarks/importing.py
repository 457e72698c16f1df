"""``import asupplemented`` against ``import aiohttp``: CPU above a bare interpreter."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile

from benchmarks.harness import interleave, report

ROUNDS = 15


def child_cpu(statement: str, cache: str) -> float:
    """CPU milliseconds of a fresh interpreter that runs one statement.

    Both packages are compiled beforehand, as an installed one is: the byte code is kept in
    `cache`, whatever the environment says about writing it.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def main() -> None:
    """Print the case."""
    with tempfile.TemporaryDirectory() as cache:
        figures = interleave(
            {
                "bare": lambda: child_cpu("pass", cache),
                "aiohttp": lambda: child_cpu("import aiohttp", cache),
                "asupplemented": lambda: child_cpu("import asupplemented", cache),
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
