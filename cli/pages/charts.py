"""Curves as SVG inside a page: crisp at each size, in the page's colours, without matplotlib."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence

from ..plots.style import needs_log
from .markup import Markup, tag
from .words import show_number

Point = tuple[float, float]
_WIDTH, _HEIGHT = 400, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 38
_MAX_POINTS = 400


@dataclasses.dataclass(frozen=True)
class Series:
    """A curve: its name, its points in order, and the class of its colour, `s0` to `s7`."""

    label: str
    points: Sequence[Point]
    color: str


@dataclasses.dataclass(frozen=True)
class Scale:
    """Values to places on the page, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Returns where a value lies."""
        low, high, value = (
            math.log10(v) if self.is_log else v for v in (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def line_chart(
    title: str, series: Sequence[Series], *, x_label: str, mark: Point | None = None
) -> Markup:
    """Returns a figure with curves; a value that is not a number is a gap.

    Args:
      title: Above the figure, and its name for those who do not see it.
      series: The curves.
      x_label: Below the axis.
      mark: A point with a ring, such as the best epoch.
    """
    series = [dataclasses.replace(one, points=thin(one.points)) for one in series if one.points]
    values = [y for one in series for _, y in one.points if math.isfinite(y)]
    if not values:
        return tag(
            "figure", tag("figcaption", title), tag("p", "No number is finite.", class_="none")
        )
    x_scale, y_scale = _scales([x for one in series for x, _ in one.points], values)
    parts = [*_grid(x_scale, y_scale, x_label)]
    for one in series:
        parts += _curve(one, x_scale, y_scale)
    if mark is not None and math.isfinite(mark[1]):
        x, y = x_scale(mark[0]), y_scale(mark[1])
        parts.append(tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=7, class_="best"))
    drawing = tag(
        "svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", tabindex="0",
        aria_label=_describe(title, series, x_label), data_x=x_label,
        data_series=_for_script(series, x_scale, y_scale),
    )  # fmt: skip
    keys = [tag("span", one.label, class_=f"key {one.color}") for one in series]
    if mark is not None:
        keys.append(tag("span", "best", class_="key best"))
    note = ", logarithmic" if y_scale.is_log else ""
    return tag(
        "figure", tag("figcaption", tag("b", title), note), drawing,
        tag("p", *keys, class_="keys"), class_="chart",
    )  # fmt: skip


def thin(points: Sequence[Point], limit: int = _MAX_POINTS) -> list[Point]:
    """Returns at most about `limit` points: of each stretch the lowest and the highest.

    Example:
      >>> thin([(0, 5.0), (1, 1.0), (2, 9.0), (3, 2.0)], limit=2)
      [(1, 1.0), (2, 9.0)]
    """
    size = -(-2 * len(points) // limit) if len(points) > limit else 1
    if size == 1:
        return list(points)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        finite = [p for p in stretch if math.isfinite(p[1])] or stretch[:1]
        ends = {min(finite, key=lambda p: p[1]), max(finite, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns round numbers from `low` to `high`, about `count` of them.

    Example:
      >>> ticks(0.0, 1.0)
      [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * f for f in (1, 2, 5, 10) if power * f >= 0.999 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 3 else (1, 2, 5)
    every = max(1, (last - first) // 6)
    values = [10.0**power * f for power in range(first, last + 1, every) for f in factors]
    return [value for value in values if low <= value <= high]


def _scales(xs: Sequence[float], ys: Sequence[float]) -> tuple[Scale, Scale]:
    low, high = _widened(min(xs), max(xs))
    x_scale = Scale(low, high, _LEFT, _WIDTH - _RIGHT)
    is_log = needs_log(ys)
    if is_log:
        low, high = min(ys) / 1.2, max(ys) * 1.2
    else:
        low, high = _widened(min(ys), max(ys))
        low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    return x_scale, Scale(low, high, _HEIGHT - _BOTTOM, _TOP, is_log)


def _widened(low: float, high: float) -> tuple[float, float]:
    if high - low > 1e-12 * max(abs(low), abs(high)):
        return low, high
    around = 0.5 * abs(low) or 0.5
    return low - around, high + around


def _grid(x_scale: Scale, y_scale: Scale, x_label: str) -> list[Markup]:
    parts = []
    make: Callable[[float, float], list[float]] = _log_ticks if y_scale.is_log else ticks
    for value in make(y_scale.low, y_scale.high):
        y = f"{y_scale(value):.1f}"
        parts.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        text = show_number(value)
        parts.append(tag("text", text, x=_LEFT - 6, y=y, dy="0.32em", text_anchor="end"))
    bottom = _HEIGHT - _BOTTOM
    for value in ticks(x_scale.low, x_scale.high):
        if value == int(value):  # steps and epochs
            x = f"{x_scale(value):.1f}"
            parts.append(tag("text", show_number(value), x=x, y=bottom + 16, text_anchor="middle"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(tag("text", x_label, x=middle, y=_HEIGHT - 5, text_anchor="middle"))
    return parts


def _curve(one: Series, x_scale: Scale, y_scale: Scale) -> list[Markup]:
    """Returns a path, and dots where there are few points."""
    words, dots, pen = [], [], "M"
    for x, y in one.points:
        if not math.isfinite(y):
            pen = "M"
            continue
        place = x_scale(x), y_scale(y)
        words.append(f"{pen}{place[0]:.1f} {place[1]:.1f}")
        dots.append(
            tag("circle", cx=f"{place[0]:.1f}", cy=f"{place[1]:.1f}", r=3, class_=one.color)
        )
        pen = "L"
    path = tag("path", d="".join(words), class_=f"curve {one.color}")
    return [path, *(dots if len(one.points) <= 25 else [])]


def _for_script(series: Sequence[Series], x_scale: Scale, y_scale: Scale) -> str:
    """Returns what the script needs to name the point under a pointer: places and values."""
    return json.dumps(
        [
            {
                "label": one.label,
                "points": [
                    [round(x_scale(x), 1), round(y_scale(y), 1), show_number(x), show_number(y)]
                    for x, y in one.points
                    if math.isfinite(y)
                ],
            }
            for one in series
        ],
        ensure_ascii=False,
    )


def _describe(title: str, series: Sequence[Series], x_label: str) -> str:
    words = [
        f"{one.label} from {show_number(one.points[0][1])} to {show_number(one.points[-1][1])}"
        for one in series
    ]
    return f"{title} by {x_label}: {'; '.join(words)}"
