"""Line and bar plots as SVG, without a plotting library.

A plot is text that depends on its figures only, so a change of a plot is a change of the figures.
Text and lines are of a grey, and series of colours, that can be read on white and on black: an SVG
in a page cannot know which of the two the reader has chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ("Axis", "draw_bars", "draw_lines", "draw_ranking")

WIDTH: Final = 720
HEIGHT: Final = 400
LEFT: Final = 70
RIGHT: Final = 20
TOP: Final = 76
BOTTOM: Final = 58
LABELS: Final = 190
"""Width of the labels that stand beside lines or bars."""
ROW: Final = 24
"""Height of a bar of a ranking."""
TICKS: Final = 5
"""About so many ticks on an axis."""

MAX_POINTS: Final = 160
"""Points of a line; more of them cannot be seen."""

GREY: Final = "#7a828e"
COLOURS: Final = ("#3b82d6", "#e0752d", "#2a9d6f", "#b45fc9", "#c9a227", "#d64570")
"""Of the series, in order; from the seventh one on they are repeated."""

Point: TypeAlias = tuple[float, float]

_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:" + GREY + "}"
    ".title{font-size:16px;font-weight:600}"
    ".axis{stroke:" + GREY + ";fill:none}"
    ".grid{stroke:" + GREY + ";stroke-opacity:.25;fill:none}"
    ".line{fill:none;stroke-width:2;stroke-linejoin:round}"
)


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
        label: What is measured, with its unit.
        log: Whether it is logarithmic. All values are above 0 then.
        top: Where it ends, None for a bit above the greatest value.
        ticks: Where it has ticks, the first and the last at its ends; None for round numbers.
    """

    label: str
    log: bool = False
    top: float | None = None
    ticks: Sequence[float] | None = None


def draw_lines(
    title: str,
    series: Mapping[str, Sequence[Point]],
    x: Axis,
    y: Axis,
    *,
    direct: bool = False,
) -> str:
    """Draw one line for each series.

    Args:
        title: Above the plot.
        series: Label to points, in the order of their x.
        x: The horizontal axis.
        y: The vertical axis.
        direct: Whether labels stand at the ends of the lines, and points are marked: for a few
            points that were measured. Otherwise there is a legend.

    Raises:
        ValueError: There are no points.
    """
    points = [point for each in series.values() for point in each]
    right = WIDTH - (LABELS if direct else RIGHT)
    across = _Scale.of(x, [point[0] for point in points], LEFT, right)
    up = _Scale.of(y, [point[1] for point in points], HEIGHT - BOTTOM, TOP)
    parts = [*_draw_horizontal_axis(x, across, right), *_draw_vertical_axis(y, up, right)]
    for number, each in enumerate(series.values()):
        places = [(across.at(a), up.at(b)) for a, b in _thin(each)]
        path = " ".join(f"{a},{b}" for a, b in places)
        colour = _colour(number)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        if direct:
            parts += [f'<circle cx="{a}" cy="{b}" r="3.5" fill="{colour}"/>' for a, b in places]
    if not direct:
        return _finish(title, list(series), parts, right)
    ends = [(up.at(each[-1][1]), across.at(each[-1][0])) for each in series.values()]
    heights = _spread([end[0] for end in ends])
    for number, (label, (_, end), height) in enumerate(zip(series, ends, heights, strict=True)):
        style = f'style="fill:{_colour(number)}"'
        parts.append(_text(label, _round(end + 10), _round(height + 4), "start", style))
    return _finish(title, [], parts, right)


def _spread(heights: Sequence[float]) -> list[float]:
    """Move labels apart that would lie over one another; their order stays."""
    spread = list(heights)
    order = sorted(range(len(spread)), key=lambda number: -spread[number])
    for below, above in pairwise(order):
        spread[above] = min(spread[above], spread[below] - 16)
    return spread


def draw_ranking(
    title: str, groups: Mapping[str, Mapping[str, float]], unit: str, emphasis: str
) -> str:
    """Draw horizontal bars, each with its label on the left and its value on the right.

    Args:
        title: Above the plot.
        groups: Heading to label to value.
        unit: Of the values.
        emphasis: Bars with this in their label have a colour, the others are grey.

    Raises:
        ValueError: There are no values.
    """
    values = [value for each in groups.values() for value in each.values()]
    if not values:
        raise ValueError("there is nothing to draw")
    left, room = LEFT + LABELS, WIDTH - LEFT - LABELS - 90
    parts: list[str] = []
    top = 56.0
    for heading, each in groups.items():
        parts.append(_text(heading, LEFT - 50, top, "start", 'style="font-weight:600"'))
        top += 12
        for label, value in each.items():
            wide = _round(max(1.0, room * value / max(values)))
            colour = _colour(0) if emphasis in label else GREY
            size = f'width="{wide}" height="{ROW - 6}"'
            parts += [
                _text(label, left - 8, top + 13, "end"),
                f'<rect x="{left}" y="{top}" {size} fill="{colour}"/>',
                _text(f"{_show(_significant(value))} {unit}", left + wide + 8, top + 13, "start"),
            ]
            top += ROW
        top += 26
    return _wrap(title, parts, top - 20, LEFT - 50)


def _significant(value: float) -> float:
    """Three digits."""
    return float(f"{value:.3g}")


def draw_bars(
    title: str, groups: Sequence[str], series: Mapping[str, Sequence[float]], x_label: str, y: Axis
) -> str:
    """Draw groups of bars, each bar with its value.

    Args:
        title: Above the plot.
        groups: The labels of the groups.
        series: Label to one value for each group.
        x_label: What tells the groups apart.
        y: The vertical axis.

    Raises:
        ValueError: There are no values, or a series has not one for each group.
    """
    values = [value for each in series.values() for value in each]
    up = _Scale.of(y, values, HEIGHT - BOTTOM, TOP)
    parts = _draw_vertical_axis(y, up, WIDTH - RIGHT)
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    wide = 0.8 * room / len(series)
    for number, each in enumerate(series.values()):
        for group, value in zip(range(len(groups)), each, strict=True):
            left = LEFT + group * room + 0.1 * room + number * wide
            top, middle = up.at(value), _round(left + wide / 2)
            size = f'width="{_round(wide - 2)}" height="{_round(HEIGHT - BOTTOM - top)}"'
            parts += [
                f'<rect x="{_round(left + 1)}" y="{top}" {size} fill="{_colour(number)}"/>',
                _text(_show(value), middle, _round(top - 5), "middle"),
            ]
    for group, label in enumerate(groups):
        parts.append(_text(label, _round(LEFT + (group + 0.5) * room), HEIGHT - 34, "middle"))
    parts.append(_text(x_label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "middle"))
    return _finish(title, list(series), parts, WIDTH - RIGHT)


@dataclass(frozen=True)
class _Scale:
    """From values to pixels, between two ticks."""

    ticks: Sequence[float]
    log: bool
    start: float
    end: float

    @classmethod
    def of(cls, axis: Axis, values: Sequence[float], start: float, end: float) -> _Scale:
        if not values:
            raise ValueError("there is nothing to draw")
        most = max(values) if axis.top is None else axis.top
        found = _decades(min(values), most) if axis.log else _steps(most)
        ticks = axis.ticks or found
        return cls(ticks, axis.log, start, end)

    def at(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return _round(self.start + (value - low) / (high - low) * (self.end - self.start))


def _steps(most: float) -> list[float]:
    """Round numbers from 0 to the first one that is not below the greatest value."""
    least = (most or 1.0) / TICKS
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)
    return [round(number * step, 12) for number in range(math.ceil((most or 1.0) / step) + 1)]


def _decades(least: float, most: float) -> list[float]:
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def _thin(points: Sequence[Point]) -> Sequence[Point]:
    """The first point, the last one, and some of those between."""
    if len(points) <= MAX_POINTS:
        return points
    step = (len(points) - 1) / (MAX_POINTS - 1)
    return [points[round(number * step)] for number in range(MAX_POINTS)]


def _draw_horizontal_axis(axis: Axis, scale: _Scale, right: float) -> list[str]:
    parts = [_text(axis.label, (LEFT + right) / 2, HEIGHT - 10, "middle")]
    for tick in scale.ticks:
        at = scale.at(tick)
        parts += [
            f'<path class="grid" d="M{at} {TOP}V{HEIGHT - BOTTOM}"/>',
            _text(_show(tick), at, HEIGHT - 34, "middle"),
        ]
    return parts


def _draw_vertical_axis(axis: Axis, scale: _Scale, right: float) -> list[str]:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 18 {middle})"'
    parts = [_text(axis.label, 18, middle, "middle", turned)]
    for tick in scale.ticks:
        at = scale.at(tick)
        parts += [
            f'<path class="grid" d="M{LEFT} {at}H{right}"/>',
            _text(_show(tick), LEFT - 8, at + 4, "end"),
        ]
    return parts


def _finish(title: str, labels: Sequence[str], parts: Sequence[str], right: float) -> str:
    legend: list[str] = []
    left = float(LEFT)
    for number, label in enumerate(labels):
        legend += [
            f'<rect x="{_round(left)}" y="44" width="14" height="14" fill="{_colour(number)}"/>',
            _text(label, _round(left + 20), 56, "start"),
        ]
        left += 44 + 7.2 * len(label)
    frame = f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{right}"/>'
    return _wrap(title, [*legend, *parts, frame], HEIGHT, LEFT)


def _wrap(title: str, parts: Sequence[str], height: float, left: float) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{escape(title)}">'
    )
    heading = f'<text class="title" x="{left}" y="26">{escape(title)}</text>'
    lines = (head, f"<style>{_STYLE}</style>", heading, *parts, "</svg>")
    return "\n".join(lines) + "\n"


def _text(text: str, x: float, y: float, anchor: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def _show(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004


def _round(value: float) -> float:
    return round(value, 1)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
