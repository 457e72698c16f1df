"""Simulate the fleets: ``python -m benchmarks.fleet [--write docs]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.fleet.report import FLEETS, SMALL, draw_table, run_all, write_page


def main() -> None:
    """Run all scenarios, and print or write what came of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="DIR", help="update fleet.md and its plots")
    directory: Path | None = parser.parse_args().write
    small, outcomes = run_all([SMALL]), run_all(FLEETS)
    print(draw_table(outcomes))
    print(draw_table(small))
    if directory is not None:
        (directory / "images").mkdir(exist_ok=True)
        write_page(directory, outcomes, small)


if __name__ == "__main__":
    main()
