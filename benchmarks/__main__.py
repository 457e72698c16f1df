"""Run the benchmarks: ``python -m benchmarks [GROUP ...] [--full]``.

A run of all groups writes its results, tables and plots to ``docs/benchmarks``, and four rows to
``README.md``. ``python -m benchmarks report`` renders them again from the results.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.harness import Bench
from benchmarks.machine import describe_machine
from benchmarks.peers.golang import find_go_package
from benchmarks.report import write_report
from benchmarks.results import Results

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ("GROUPS", "main", "run_groups")

GROUPS: Final = {
    "opening": 80.0,
    "starting": 13.0,
    "manifests": 7.0,
    "copying": 30.0,
    "blobs": 70.0,
    "serving": 35.0,
    "memory": 14.0,
}
"""Module to the seconds that it takes, in the order in which they run."""

SECONDS: Final = 255.0
"""How long a quick run of all may take. Installing what it needs comes on top."""

ROOT: Final = Path(__file__).parent.parent


def run_groups(bench: Bench, names: Collection[str]) -> None:
    """Run groups."""
    planned = {name: seconds for name, seconds in GROUPS.items() if name in names}
    for name in list(planned):
        seconds = planned.pop(name)
        bench.begin_group(name, seconds, sum(planned.values()))
        try:
            import_module(f"benchmarks.{name}").run(bench)
        except Exception as error:  # noqa: BLE001 - the other groups are still wanted
            traceback.print_exc()
            bench.note(f"{name} failed: {type(error).__name__}: {error}")
            bench.failed = True


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; the exit status is 1 if the library failed in a case."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("group", nargs="*", help=f"of {', '.join(GROUPS)}; or: report")
    parser.add_argument("--full", action="store_true", help="all cases, and more rounds")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="how long it may take, unless --full"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="write results and report to this clone, even if groups are chosen",
    )
    options = parser.parse_args(arguments)
    names: list[str] = options.group or list(GROUPS)
    root: Path = options.output or ROOT
    results = root / "docs" / "benchmarks" / "results.jsonl"
    if names == ["report"]:
        write_report(Results.read(results), root)
        return 0
    if unknown := set(names) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    scale = "full" if options.full else "quick"
    bench = Bench(None if options.full else options.seconds, scale)
    bench.results.about = describe_machine(scale)
    find_go_package(bench)  # builds it the first time, which is no part of what is measured
    run_groups(bench, names)
    if options.output or set(names) == set(GROUPS):
        results.parent.mkdir(parents=True, exist_ok=True)
        bench.results.write(results)
        write_report(Results.read(results), root)  # what `report` renders again, digit for digit
    for note in bench.results.notes:
        print(f"note: {note}", file=sys.stderr)
    return int(bench.failed)


if __name__ == "__main__":
    sys.exit(main())
