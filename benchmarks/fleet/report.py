"""Tables, plots, and the page that shows them."""

from __future__ import annotations

import re
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Final

from asupplemented.aio.threads import usable_cores
from benchmarks.fleet.simulation import Fleet, Scenario, simulate
from benchmarks.plot import Axis, draw_bars, draw_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.fleet.simulation import Outcome

__all__ = ("FLEETS", "SEED", "SMALL", "draw_table", "run_all", "write_page")

SEED: Final = 1
FLEETS: Final = tuple(Fleet(nodes=1000, proxies=proxies, seed=SEED) for proxies in (1, 5, 20))
SMALL: Final = Fleet(nodes=40, proxies=3, seed=SEED)
"""Small enough for a test."""

SHOWN: Final = FLEETS[1]
"""The fleet whose scenarios are drawn over time."""

MIB: Final = 2**20

_COLUMNS: Final[Sequence[str]] = (
    "scenario",
    "proxies",
    "blob requests",
    "most for one blob",
    "other requests",
    "upstream MiB",
    "storage MiB",
    "first byte 50 %",
    "90 %",
    "99 %",
    "last node",
    "asked again",
)


def run_all(fleets: Sequence[Fleet]) -> list[Outcome]:
    """Run every scenario with every fleet, as many at a time as there are cores."""
    cases = [(scenario, fleet) for scenario in Scenario for fleet in fleets]
    with ProcessPoolExecutor(usable_cores()) as pool:
        return list(pool.map(simulate, *zip(*cases, strict=True)))


def draw_table(outcomes: Sequence[Outcome]) -> str:
    """A table in Markdown; each row ends with a line break."""
    rows = [_COLUMNS, ["---", *["---:"] * (len(_COLUMNS) - 1)], *map(_row, outcomes)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(outcome: Outcome) -> Sequence[str]:
    return (
        outcome.scenario.value,
        str(outcome.fleet.proxies),
        str(outcome.blob_requests),
        str(outcome.most),
        str(outcome.manifest_requests + outcome.probes),
        f"{outcome.upstream_bytes / MIB:.1f}",
        f"{outcome.bucket_bytes / MIB:.1f}",
        *(_show(outcome.first_byte(part)) for part in (0.5, 0.9, 0.99)),
        f"{outcome.last:.1f} s",
        str(outcome.retries),
    )


def _show(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def draw_plots(outcomes: Sequence[Outcome]) -> Mapping[str, str]:
    """The plots by the names of their files."""
    by_fleet = {fleet: [each for each in outcomes if each.fleet == fleet] for fleet in FLEETS}
    shown = by_fleet[SHOWN]
    nodes, proxies = SHOWN.nodes, SHOWN.proxies
    return {
        "fleet-last-node.svg": draw_bars(
            f"Until the last of {nodes:,} nodes has the image",
            [scenario.value for scenario in Scenario],
            {_plural(fleet.proxies): [each.last for each in by_fleet[fleet]] for fleet in FLEETS},
            "scenario",
            Axis("seconds"),
        ),
        "fleet-progress.svg": draw_lines(
            f"Nodes that have the image, {proxies} proxies",
            {each.scenario.value: [(0.0, 0.0), *_count(each.ends)] for each in shown},
            Axis("seconds"),
            Axis("nodes"),
        ),
        "fleet-first-byte.svg": draw_lines(
            f"Blobs whose first byte has come, {proxies} proxies",
            {each.scenario.value: _percentages(each.first_bytes) for each in shown},
            Axis("seconds from the first request of a node for the blob", log=True),
            Axis("% of the blobs of all nodes", top=100),
        ),
    }


def _plural(proxies: int) -> str:
    return "1 proxy" if proxies == 1 else f"{proxies} proxies"


def _count(moments: Sequence[float]) -> list[tuple[float, float]]:
    return [(moment, number) for number, moment in enumerate(moments, 1)]


def _percentages(values: Sequence[float]) -> list[tuple[float, float]]:
    return [(value, 100 * number / len(values)) for number, value in enumerate(values, 1)]


def write_page(docs: Path, outcomes: Sequence[Outcome], small: Sequence[Outcome]) -> None:
    """Put the tables into ``fleet.md``, and the plots beside it.

    Args:
        docs: The directory of the site.
        outcomes: Of all fleets of `FLEETS`.
        small: Of the fleet `SMALL`.
    """
    page = docs / "explanation" / "fleet.md"
    text = page.read_text(encoding="utf-8")
    for name, table in {"fleet": draw_table(outcomes), "small": draw_table(small)}.items():
        text = _replace(text, name, table)
    page.write_text(text, encoding="utf-8")
    for name, plot in draw_plots(outcomes).items():
        (docs / "images" / name).write_text(plot, encoding="utf-8")


def _replace(text: str, name: str, table: str) -> str:
    """Put a table between the comments that have its name."""
    begin, end = f"<!-- table {name} -->\n", f"<!-- end of table {name} -->\n"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(text) is None:
        message = f"the page has no place for the table {name}: write {begin}{end}"
        raise ValueError(message)
    return pattern.sub(lambda _: f"{begin}\n{table}\n{end}", text)
