"""The report of a run: tables and plots in ``docs/benchmarks``, and four rows in ``README.md``.

The pages are written by hand, but for blocks between two comments, which are written here. So the
numbers on a page are those of the results beside it, and a test compares them.
"""

from __future__ import annotations

import math
import re
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks import starting
from benchmarks.blobs import SHELL
from benchmarks.copying import LARGE, SKOPEO, SMALL
from benchmarks.memory import MEMORY_OF_BLOB
from benchmarks.opening import FAR, name_case
from benchmarks.peers.golang import GO
from benchmarks.peers.python import BARE
from benchmarks.plot import Axis, draw_lines, draw_ranking
from benchmarks.results import OURS
from benchmarks.serving import (
    CLIENTS,
    NGINX,
    NGINX_FILES,
    REGISTRY,
    name_cached,
    name_cold,
)
from benchmarks.targets import ALONE, TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.results import Results, Row

__all__ = ("draw_plots", "fill_page", "write_headlines", "write_report")

BUSY: Final = 2.0
"""Load from which on a report warns."""
COUNTS: Final = (1, 4, 16, 64, 256, 1024)
GROUPS: Final = {
    "opening": "Opening images and groups",
    "blobs": "Reading blobs",
    "copying": "Copying",
    "starting": "Starting",
    "manifests": "Manifests",
    "serving": "A proxy",
    "memory": "Memory",
}
NAMES: Final = (OURS, BARE, GO, "aioregistry", "python-dxf")
"""The contestants of the plots of opening; the tables have all of them."""


def write_report(results: Results, root: Path) -> None:
    """Write tables and plots.

    Args:
        results: Of a run.
        root: The clone.
    """
    directory = root / "docs" / "benchmarks"
    for path in directory.glob("*.svg"):
        path.unlink()
    for name, plot in draw_plots(results).items():
        (directory / f"{name}.svg").write_text(plot, encoding="utf-8")
    page, readme = directory / "index.md", root / "README.md"
    page.write_text(fill_page(page.read_text("utf-8"), results), encoding="utf-8")
    text = readme.read_text("utf-8")
    readme.write_text(_fill(text, "headlines", write_headlines(results)), encoding="utf-8")


def fill_page(page: str, results: Results) -> str:
    """Replace the blocks of the page of the benchmarks."""
    page = _fill(page, "targets", _write_targets(results))
    page = _fill(page, "plots", _link_plots(results))
    page = _fill(page, "machine", _write_machine(results))
    page = _fill(page, "notes", [f"- {note}" for note in results.notes] or ["Nothing."])
    return _fill(page, "tables", _write_tables(results))


def _fill(page: str, name: str, lines: Iterable[str]) -> str:
    """Replace what stands between the comments of a block."""
    begin, end = f"<!-- benchmarks: {name} -->", "<!-- end of benchmarks -->"
    block = "\n".join((begin, "", *lines, "", end))
    pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
    filled, count = re.subn(pattern, lambda _: block, page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the page has {count} blocks “{begin}”")
    return filled


def _warn_of_load(results: Results) -> list[str]:
    """A sentence if the machine did other work, too."""
    load = float(results.about.get("load before", 0))
    if load < BUSY:
        return []
    return [f"**The machine was busy with other work (load {load:g}): do not rely on this.**", ""]


def write_headlines(results: Results) -> list[str]:
    """The four rows of the README."""
    rows = (
        ("Open an index of 256 images, 20 ms away", name_case(256, FAR), OURS, GO),
        ("Copy 64 small images, 20 ms away", SMALL, OURS, SKOPEO),
        ("Read 1 GiB over http and verify it", "1 GiB over http", ALONE, SHELL),
        (f"Serve {CLIENTS} clients a blob that is not cached", name_cold(CLIENTS), OURS, NGINX),
    )
    lines = _warn_of_load(results)
    lines += ["| | here | compared with | times as fast |", "| --- | ---: | --- | ---: |"]
    for text, case, name, other in rows:
        ours, theirs = results.find(case, name), results.find(case, other)
        if ours is None or theirs is None:
            lines.append(f"| {text} | | not measured | |")
            continue
        here, there = _show_wall(ours), _show_wall(theirs)
        ratio = _digits(theirs.time_of(ours))
        lines.append(f"| {text} | {here} | {_quote(other)}: {there} | {ratio} |")
    return lines


def _write_targets(results: Results) -> list[str]:
    lines = _warn_of_load(results)
    lines += ["| case | target | measured | met |", "| --- | --- | ---: | --- |"]
    for target in TARGETS:
        figure = target.measure(results)
        case = _quote(target.case)
        if math.isnan(figure):
            lines.append(f"| {case} | {target.goal} | not measured | |")
        else:
            met = "yes" if target.is_met(figure) else "**no**"
            lines.append(f"| {case} | {target.goal} | {_digits(figure)} {target.unit} | {met} |")
    return lines


def _write_machine(results: Results) -> list[str]:
    rows = [f"| {name} | {value} |" for name, value in results.about.items()]
    return ["| | |", "| --- | --- |", *rows]


def _link_plots(results: Results) -> list[str]:
    lines: list[str] = []
    for name, plot in draw_plots(results).items():
        [title] = re.findall('aria-label="(.*?)"', plot)
        lines += ["", f"![{title}]({name}.svg)"]
    return lines[1:]


def _write_tables(results: Results) -> list[str]:
    lines: list[str] = []
    for group, title in GROUPS.items():
        rows = [row for row in results.rows if row.group == group]
        if rows:
            lines += ["", f"### {title}", "", *_write_group(results, rows)]
    return lines[1:]


def _write_group(results: Results, rows: Sequence[Row]) -> list[str]:
    measured = [row for row in rows if row.wall]
    lines: list[str] = []
    if measured:
        lines += [
            "| case | contestant | rounds | median (least to most) | CPU | time, ours = 1 |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
        ]
    case = ""
    for row in measured:
        ours = results.find_ours(row.case)
        ratio = "" if ours is None or row is ours else _digits(row.time_of(ours))
        name = "" if row.case == case else row.case
        cells = (
            name,
            _quote(row.name),
            str(len(row.wall)),
            _show_range(row),
            _show_cpu(row),
            ratio,
        )
        lines.append(f"| {' | '.join(cells)} |")
        case = row.case
    memory = [row for row in rows if row.memory]
    if memory:
        lines += ["", "| case | contestant | MiB |", "| --- | --- | ---: |"]
    for row in memory:
        name = "" if row.case == case else row.case
        lines.append(f"| {name} | {_quote(row.name)} | {_digits(median(row.memory))} |")
        case = row.case
    return lines[1:] if lines[:1] == [""] else lines


def _scale(row: Row) -> tuple[list[float], str]:
    """Times of the rounds, or throughput where the work is MiB, and the unit."""
    if row.unit == "MiB":
        return [row.size / seconds for seconds in row.wall], "MiB/s"
    if median(row.wall) >= 1:
        return list(row.wall), "s"
    return [1000 * seconds for seconds in row.wall], "ms"


def _show_wall(row: Row) -> str:
    """The median."""
    figures, unit = _scale(row)
    return f"{_digits(median(figures))} {unit}"


def _show_range(row: Row) -> str:
    """The median, and in brackets the least and the most."""
    figures, unit = _scale(row)
    middle, low, high = (_digits(pick(figures)) for pick in (median, min, max))
    return f"{middle} ({low} to {high}) {unit}"


def _show_cpu(row: Row) -> str:
    if not row.cpu:
        return ""
    value = median(row.cpu)
    if row.unit == "MiB":
        return f"{_digits(value / row.size * 1024)} s/GiB"
    if row.unit:
        return f"{_digits(value / row.size * 1e6)} us each"
    return f"{_digits(1000 * value)} ms"


def _digits(value: float) -> str:
    """Three digits, and no exponent."""
    if abs(value) >= 100:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):g}"


def _quote(name: str) -> str:
    """A name for a cell of a table."""
    return name.replace("|", "\\|")


def draw_plots(results: Results) -> Mapping[str, str]:
    """Name of the file, without its ending, to the plot. What was not measured is left out."""
    plots: dict[str, str] = {}
    for latency, name in ((FAR, "opening-far"), (0.0, "opening-near")):
        series = _points_of_opening(results, latency)
        if series:
            plots[name] = draw_lines(
                f"Opening an index: {1000 * latency:.0f} ms to each answer",
                series,
                Axis("images in the index", log=True, ticks=_ticks(series)),
                Axis("milliseconds", log=True),
                direct=True,
            )
    clients = _points_of_serving(results)
    if clients:
        plots["serving"] = draw_lines(
            "A proxy: one blob for many clients at the same moment",
            clients,
            Axis("clients", log=True, ticks=_ticks(clients)),
            Axis("MiB/s to all clients", log=True),
            direct=True,
        )
    rankings = {
        "blobs": (
            "Reading and verifying 1 GiB: more is better",
            ("1 GiB over http", "1 GiB over TLS", "1 GiB from disk"),
            "MiB/s",
        ),
        "copying": ("Copying to a layout: less is better", (SMALL, LARGE), "s"),
        "starting": ("CPU of a new process: less is better", (starting.CASE,), "ms"),
        "memory": ("Peak memory of reading a large blob: less is better", (MEMORY_OF_BLOB,), "MiB"),
    }
    for name, (title, cases, unit) in rankings.items():
        groups = {case: _bars(results, case, unit) for case in cases if case in results.cases()}
        if groups:
            plots[name] = draw_ranking(title, groups, unit, OURS)
    return plots


def _bars(results: Results, case: str, unit: str) -> dict[str, float]:
    """Contestants and what their bars show; the library is first."""
    rows = sorted(results.cases()[case], key=lambda row: row.name != OURS)
    if unit == "MiB":
        return {row.name: median(row.memory) for row in rows if row.memory}
    if unit == "ms":
        return {row.name: 1000 * median(row.cpu) for row in rows}
    if unit == "s":
        return {row.name: median(row.wall) for row in rows}
    return {row.name: row.size / median(row.wall) for row in rows}


def _points_of_opening(results: Results, latency: float) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for name in NAMES:
        for count in COUNTS:
            row = results.find(name_case(count, latency), name)
            if row is not None:
                found.setdefault(name, []).append((count, 1000 * median(row.wall)))
    return found


def _points_of_serving(results: Results) -> dict[str, list[tuple[float, float]]]:
    lines = (
        (f"{OURS}, cached", name_cached, OURS),
        (f"{OURS}, cold", name_cold, OURS),
        (f"{NGINX}, cold", name_cold, NGINX),
        (f"{NGINX_FILES}", name_cached, NGINX_FILES),
        (f"{REGISTRY}, files", name_cached, REGISTRY),
    )
    found: dict[str, list[tuple[float, float]]] = {}
    for label, name_of, name in lines:
        for count in COUNTS:
            row = results.find(name_of(count), name)
            if row is not None:
                found.setdefault(label, []).append((count, row.size / median(row.wall)))
    return found


def _ticks(series: Mapping[str, Sequence[tuple[float, float]]]) -> Sequence[float] | None:
    """One tick for each number that was measured."""
    ticks = sorted({point[0] for points in series.values() for point in points})
    return ticks if len(ticks) > 1 else None
