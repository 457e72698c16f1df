"""Run the benchmarks that were named, or all of them: ``python -m benchmarks [MODULE ...]``."""

from __future__ import annotations

import sys
from importlib import import_module

MODULES = (
    "resolver",
    "memory",
    "importing",
    "layout",
    "files",
    "opening",
    "registry",
    "streams",
    "calls",
    "download",
    "overhead",
    "serving",
)
"""Each has a ``main()`` that prints its lines."""


def main(names: list[str]) -> int:
    """Run the benchmarks; the exit status is 2 if one does not exist."""
    unknown = [name for name in names if name not in MODULES]
    if unknown:
        sys.stderr.write(f"no such benchmark: {', '.join(unknown)}; there are {MODULES}\n")
        return 2
    for name in names or MODULES:
        import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
