"""Plots are valid SVG, and show the figures that they were given."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from benchmarks.plot import Axis, draw_bars, draw_lines

SVG = "{http://www.w3.org/2000/svg}"


def read(plot: str) -> tuple[ET.Element, list[str]]:
    root = ET.fromstring(plot)  # noqa: S314 - it was written here
    return root, [text.text or "" for text in root.iter(f"{SVG}text")]


def test_lines_run_from_the_first_point_to_the_last() -> None:
    curve = [(float(x), float(x * x)) for x in range(1001)]
    root, texts = read(draw_lines("a < b", {"one & all": curve}, Axis("s"), Axis("MiB")))
    (line,) = root.iter(f"{SVG}polyline")
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert points[0] == (70, 342)
    assert points[-1] == (700, 76)
    assert 100 < len(points) < len(curve)
    assert points == sorted(points)
    assert texts[:2] == ["a < b", "one & all"]
    assert {"0", "200", "1,000", "1,000,000", "s", "MiB"} <= set(texts)


def test_a_logarithmic_axis_has_decades() -> None:
    across = Axis("s", log=True)
    root, texts = read(draw_lines("", {"": [(0.02, 0.0), (2.0, 1.0)]}, across, Axis("%", top=100)))
    assert {"0.01", "0.1", "1", "10", "100"} <= set(texts)
    (line,) = root.iter(f"{SVG}polyline")
    first, last = (float(pair.partition(",")[0]) for pair in line.attrib["points"].split())
    assert last - first == pytest.approx(2 * 630 / 3, abs=0.1)


def test_bars_are_as_high_as_their_values() -> None:
    series = {"one": [1.0, 2.5], "two": [0.0, 5.0]}
    root, texts = read(draw_bars("t", ["left", "right"], series, "side", Axis("s")))
    heights = [float(bar.get("height", "")) for bar in root.iter(f"{SVG}rect")][2:]
    assert heights == pytest.approx([266 / 5, 266 / 2, 0, 266], abs=0.1)
    assert {"left", "right", "side", "one", "two", "2.5", "5"} <= set(texts)


def test_nothing_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="nothing"):
        draw_lines("t", {}, Axis("x"), Axis("y"))
    with pytest.raises(ValueError, match="shorter"):
        draw_bars("t", ["left", "right"], {"one": [1.0]}, "side", Axis("s"))
