"""Plots are valid SVG, and show the figures that they were given."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from benchmarks.plot import Axis, draw_bars, draw_lines, draw_ranking

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


def test_labels_at_the_ends_of_lines_do_not_cover_one_another() -> None:
    series = {
        "low": [(1.0, 1.0), (2.0, 5.0)],
        "same": [(1.0, 2.0), (2.0, 5.0)],
        "high": [(2.0, 9.0)],
    }
    axis = Axis("n", ticks=(1, 2))
    root, texts = read(draw_lines("t", series, axis, Axis("s"), direct=True))
    heights = {text.text: float(text.attrib["y"]) for text in root.iter(f"{SVG}text")}
    assert heights["high"] < heights["same"] - 15 < heights["low"] - 30
    assert len(list(root.iter(f"{SVG}circle"))) == 5
    assert not list(root.iter(f"{SVG}rect"))
    assert "1.5" not in texts


def test_bars_of_a_ranking_are_as_long_as_their_values() -> None:
    groups = {"far": {"a": 1234.0, "b": 617.0}, "near": {"b": 0.1234}}
    root, texts = read(draw_ranking("t", groups, "ms", "b"))
    bars = list(root.iter(f"{SVG}rect"))
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.1)
    assert widths[2] == 1.0
    assert bars[1].attrib["fill"] == bars[2].attrib["fill"] != bars[0].attrib["fill"]
    assert texts == ["t", "far", "a", "1,230 ms", "b", "617 ms", "near", "b", "0.123 ms"]


def test_nothing_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="nothing"):
        draw_ranking("t", {"group": {}}, "s", "")
    with pytest.raises(ValueError, match="nothing"):
        draw_lines("t", {}, Axis("x"), Axis("y"))
    with pytest.raises(ValueError, match="shorter"):
        draw_bars("t", ["left", "right"], {"one": [1.0]}, "side", Axis("s"))
