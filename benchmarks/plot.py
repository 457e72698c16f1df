"""Line and bar plots as SVG, without a plotting library.

A plot is text that depends on its figures only, so a change of a plot is a change of the figures.
Text and lines are of a grey, and series of colours, that can be read on white and on black: an SVG
in a page cannot know which of the two the reader has chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ("Axis", "draw_bars", "draw_lines")

WIDTH: Final = 720
HEIGHT: Final = 400
LEFT: Final = 70
RIGHT: Final = 20
TOP: Final = 76
BOTTOM: Final = 58
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
    """

    label: str
    log: bool = False
    top: float | None = None


def draw_lines(title: str, series: Mapping[str, Sequence[Point]], x: Axis, y: Axis) -> str:
    """Draw one line for each series.

    Args:
        title: Above the plot.
        series: Label to points, in the order of their x.
        x: The horizontal axis.
        y: The vertical axis.

    Raises:
        ValueError: There are no points.
    """
    points = [point for each in series.values() for point in each]
    across = _Scale.of(x, [point[0] for point in points], LEFT, WIDTH - RIGHT)
    up = _Scale.of(y, [point[1] for point in points], HEIGHT - BOTTOM, TOP)
    parts = [*_draw_horizontal_axis(x, across), *_draw_vertical_axis(y, up)]
    for number, each in enumerate(series.values()):
        path = " ".join(f"{across.at(a)},{up.at(b)}" for a, b in _thin(each))
        parts.append(f'<polyline class="line" stroke="{_colour(number)}" points="{path}"/>')
    return _finish(title, list(series), parts)


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
    parts = _draw_vertical_axis(y, up)
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
    return _finish(title, list(series), parts)


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
        ticks = _decades(min(values), most) if axis.log else _steps(most)
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


def _draw_horizontal_axis(axis: Axis, scale: _Scale) -> list[str]:
    parts = [_text(axis.label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "middle")]
    for tick in scale.ticks:
        at = scale.at(tick)
        parts += [
            f'<path class="grid" d="M{at} {TOP}V{HEIGHT - BOTTOM}"/>',
            _text(_show(tick), at, HEIGHT - 34, "middle"),
        ]
    return parts


def _draw_vertical_axis(axis: Axis, scale: _Scale) -> list[str]:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 18 {middle})"'
    parts = [_text(axis.label, 18, middle, "middle", turned)]
    for tick in scale.ticks:
        at = scale.at(tick)
        parts += [
            f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>',
            _text(_show(tick), LEFT - 8, at + 4, "end"),
        ]
    return parts


def _finish(title: str, labels: Sequence[str], parts: Sequence[str]) -> str:
    legend: list[str] = []
    left = float(LEFT)
    for number, label in enumerate(labels):
        legend += [
            f'<rect x="{_round(left)}" y="44" width="14" height="14" fill="{_colour(number)}"/>',
            _text(label, _round(left + 20), 56, "start"),
        ]
        left += 44 + 7.2 * len(label)
    frame = f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">'
    )
    heading = f'<text class="title" x="{LEFT}" y="26">{escape(title)}</text>'
    lines = (head, f"<style>{_STYLE}</style>", heading, *legend, *parts, frame, "</svg>")
    return "\n".join(lines) + "\n"


def _text(text: str, x: float, y: float, anchor: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def _show(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004


def _round(value: float) -> float:
    return round(value, 1)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
