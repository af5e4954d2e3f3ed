"""Charts as inline SVG that follows the page's colours, made without any global figure state."""

import hashlib
import io
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib.style
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from kfp_finetune.reports.numbers import number, short

NOTHING = Markup('<p class="empty">Nothing recorded yet.</p>')

_WIDTH, _HEIGHT = 420, 252
_MANY_POINTS, _BUCKETS, _CROWDED = 2000, 500, 200
_BARS = 40
_LABEL_LIMIT = 60
_LEAST_APART = 0.16

# Matplotlib only takes real colours, so it draws in stand-ins that become CSS afterwards.
_INK = "#010101"
_MARK = "#010102"
_SERIES = ("#010111", "#010112", "#010113", "#010114")
_CSS = {
    _INK: "currentColor",
    _MARK: "var(--chart-mark, #b4530a)",
    _SERIES[0]: "var(--chart-1, #2563c9)",
    _SERIES[1]: "var(--chart-2, #b4530a)",
    _SERIES[2]: "var(--chart-3, #0f7b5f)",
    _SERIES[3]: "var(--chart-4, #8a3ffc)",
}
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.linewidth": 0.8,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 3,
    "xtick.major.pad": 5,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 11,
}


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Args:
        name: What the legend calls it.
        xs: Where its points lie, in drawing order.
        ys: Their values; one that is not finite leaves a gap.
        faint: Whether it is background for the next series, whose colour it then shares.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    faint: bool = False


def line_chart(series: Sequence[Series], x_label: str, y_label: str, from_zero: bool = False) -> Markup:
    """Draw lines over a common x axis.

    Args:
        series: The lines; those of more than 2000 points are thinned, keeping their extremes.
        x_label: What lies along the x axis.
        y_label: What is measured.
        from_zero: Whether the y axis begins at 0, so that heights can be compared.

    Returns:
        An `<svg>` element, or a sentence if no series has a finite point.
    """
    points = [_points(each) for each in series]
    if not any(np.isfinite(ys).any() for _, ys in points):
        return NOTHING
    with matplotlib.style.context(["default", _STYLE | {"svg.hashsalt": _key(series, x_label, y_label)}]):
        figure, axes = _axes(x_label, y_label)
        colour = 0
        crowded = len(series) == 1 and len(points[0][0]) > _CROWDED
        for each, (xs, ys) in zip(series, points, strict=True):
            _draw_line(axes, each, xs, ys, _SERIES[colour % len(_SERIES)], 1.1 if crowded or each.faint else 1.6)
            colour += not each.faint
        if len(series) > 1:
            look = {"borderpad": 0.1, "handlelength": 1.4, "columnspacing": 3}
            figure.legend(loc="outside upper right", ncols=len(series), **look)
        _fit(axes, points)
        if from_zero:
            axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        return _svg(figure, f"Line chart of {_plain(y_label)} by {_plain(x_label)}")


@dataclass(frozen=True)
class Point:
    """One of several measurements.

    Args:
        x: What it was made with: a number, or anything else, which gets a place of its own.
        y: What was measured; left out if it is not finite.
        is_marked: Whether it is the one to look at.
    """

    x: Any
    y: float
    is_marked: bool = False


def scatter_chart(points: Sequence[Point], x_label: str, y_label: str) -> Markup:
    """Draw measurements against what they were made with.

    Numbers that reach over more than a factor of ten lie on a logarithmic axis; what is no number lies side by side, in
    its order.

    Args:
        points: The measurements.
        x_label: What they were made with.
        y_label: What was measured.

    Returns:
        An `<svg>` element, or a sentence if no point is finite.
    """
    shown = sorted((point for point in points if math.isfinite(point.y)), key=lambda point: point.is_marked)
    if not shown:
        return NOTHING
    with matplotlib.style.context(["default", _STYLE | {"svg.hashsalt": _key(shown, x_label, y_label)}]):
        figure, axes = _axes(x_label, y_label)
        xs = _place_points(axes, points, shown)
        for x, point in zip(xs, shown, strict=True):
            colour, size, strength = (_MARK, 10, 1.0) if point.is_marked else (_SERIES[0], 7, 0.75)
            axes.plot([x], [point.y], "o", color=colour, alpha=strength, markersize=size, markeredgewidth=0)
        low, high = min(point.y for point in shown), max(point.y for point in shown)
        room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
        axes.set_ylim(low - room, high + room)
        return _svg(figure, f"{_plain(y_label)} by {_plain(x_label)}")


def _place_points(axes: Axes, points: Sequence[Point], shown: Sequence[Point]) -> list[float]:
    """Chooses the x axis for what points were made with, and gives the places of those that are shown."""
    if all(isinstance(point.x, int | float) and not isinstance(point.x, bool) for point in points):
        _scale_to_numbers(axes, sorted({float(point.x) for point in points}))
        return [float(point.x) for point in shown]
    places = list(dict.fromkeys(_name(point.x) for point in points))
    axes.set_xticks(range(len(places)), [_plain(place) for place in places])
    axes.set_xlim(-0.6, len(places) - 0.4)
    return [float(places.index(_name(point.x))) for point in shown]


def _scale_to_numbers(axes: Axes, xs: Sequence[float]) -> None:
    """Chooses scale, limits and ticks for numbers; few that lie apart are the ticks."""
    if is_log := xs[0] > 0 and xs[-1] > 10 * xs[0]:
        axes.set_xscale("log")
        axes.set_xlim(xs[0] / 1.5, xs[-1] * 1.5)
    else:
        room = 0.08 * (xs[-1] - xs[0]) or 1.0
        axes.set_xlim(xs[0] - room, xs[-1] + room)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=all(x == int(x) for x in xs)))
    on_axis = [math.log(x) for x in xs] if is_log else list(xs)
    apart = _LEAST_APART * (on_axis[-1] - on_axis[0])
    if all(after - before >= apart for before, after in pairwise(on_axis)):
        axes.set_xticks(xs, [number(x) for x in xs])
        axes.xaxis.set_minor_locator(NullLocator())
    elif is_log:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _name(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class Bars:
    """How often values occur.

    Args:
        edges: Where the bars begin, and where the last one ends.
        counts: Values in each bar, its beginning included and its end not.
        is_open: Whether the last bar has all that lies beyond it too.
    """

    edges: Sequence[float]
    counts: Sequence[int]
    is_open: bool = False


def count_in_bars(values: Sequence[int], marks: Mapping[str, float]) -> Bars:
    """Count values in about 40 bars of one width, in whole and round steps; a long tail is gathered in the last one.

    Args:
        values: What is counted.
        marks: Values to point out, by their name; bars reach to those that are near.

    Returns:
        The bars; none if there are no values.
    """
    if not len(values):
        return Bars([], [])
    numbers = np.asarray(values, dtype=float)
    edges = _edges(numbers, marks)
    counts, _ = np.histogram(np.clip(numbers, edges[0], (edges[-2] + edges[-1]) / 2), edges)
    return Bars(edges.tolist(), counts.tolist(), bool(numbers.max() >= edges[-1]))


def histogram(bars: Bars, x_label: str, y_label: str, marks: Mapping[str, float]) -> Markup:
    """Draw how often values occur, with a dashed line at each mark.

    The x label says if the last bar is open; a mark far from all values is named at the edge.

    Args:
        bars: From `count_in_bars`, with the same marks.
        x_label: What the values are.
        y_label: What a bar counts.
        marks: Values to point out, by their name.

    Returns:
        An `<svg>` element, or a sentence if there are no values.
    """
    if not bars.counts:
        return NOTHING
    edges = bars.edges
    if bars.is_open:
        x_label = f"{x_label} (last bar: {number(math.ceil(edges[-2]))} and more)"
    with matplotlib.style.context(["default", _STYLE | {"svg.hashsalt": _key(bars, x_label, y_label, marks)}]):
        figure, axes = _axes(x_label, y_label)
        axes.stairs(bars.counts, edges, fill=True, color=_SERIES[0], alpha=0.75, linewidth=0)
        pad = 2 * (edges[1] - edges[0]) if len(edges) < 5 else 0
        axes.set_xlim(edges[0] - pad, edges[-1] + pad)
        axes.set_ylim(0, max(bars.counts) * (1.08 + 0.12 * len(marks)))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        for place, (name, value) in enumerate(marks.items()):
            _draw_mark(axes, _plain(name), value, 0.98 - 0.1 * place)
        return _svg(figure, f"Histogram of {_plain(x_label)}")


def _points(series: Series) -> tuple[np.ndarray, np.ndarray]:
    xs, ys = np.asarray(series.xs, dtype=float), np.asarray(series.ys, dtype=float)
    keep = np.isfinite(xs)
    xs, ys = xs[keep], np.where(np.isfinite(ys), ys, np.nan)[keep]
    if len(ys) <= _MANY_POINTS:
        return xs, ys
    buckets = np.array_split(np.arange(len(ys)), _BUCKETS)
    kept = np.array([index for bucket in buckets for index in _telling(bucket, ys)])
    return xs[kept], ys[kept]


def _telling(bucket: np.ndarray, ys: np.ndarray) -> list[int]:
    """Choose the points of a bucket that its picture needs: lowest, highest, and one gap if there is any."""
    gaps = np.isnan(ys[bucket])
    kept = {int(bucket[gaps][0])} if gaps.any() else set()
    if not gaps.all():
        kept |= {int(bucket[np.nanargmin(ys[bucket])]), int(bucket[np.nanargmax(ys[bucket])])}
    return sorted(kept)


def _draw_line(axes: Axes, series: Series, xs: np.ndarray, ys: np.ndarray, colour: str, width: float) -> None:
    strength = 0.4 if series.faint else 1.0
    axes.plot(xs, ys, color=colour, alpha=strength, linewidth=width, label=_plain(series.name))
    there = np.concatenate([[False], np.isfinite(ys), [False]])
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    axes.plot(xs[alone], ys[alone], "o", color=colour, alpha=strength, markersize=5, markeredgewidth=0, clip_on=False)


def _fit(axes: Axes, points: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Choose limits and ticks: whole steps on the x axis, no room below zero for what is never negative."""
    xs = np.concatenate([xs for xs, _ in points])
    whole = bool((xs == np.floor(xs)).all())
    if xs.min() == xs.max():
        axes.set_xlim(xs[0] - 1, xs[0] + 1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=whole, min_n_ticks=1))
    if axes.get_ylim()[0] < 0 <= min(np.nanmin(ys) for _, ys in points if np.isfinite(ys).any()):
        axes.set_ylim(bottom=0)


def _draw_mark(axes: Axes, name: str, value: float, height: float) -> None:
    left, right = axes.get_xlim()
    label = f"{name} {number(value)}"
    if value < left or value > right:
        text, x, side = (f"← {label}", 0.01, "left") if value < left else (f"{label} →", 0.99, "right")
    else:
        axes.axvline(value, color=_MARK, linestyle=(0, (4, 3)), linewidth=1.4)
        x, side = (value - left) / (right - left), "left"
        text, x, side = (label, x + 0.015, "left") if x < 0.5 else (label, x - 0.015, "right")
    axes.text(x, height, text, color=_MARK, ha=side, va="top", fontsize=11, transform=axes.transAxes)


def _edges(values: np.ndarray, marks: Mapping[str, float]) -> np.ndarray:
    """Choose bin edges over most of the values and the marks near them, in whole, round steps."""
    low, high = float(values.min()), float(values.max())
    most = float(np.quantile(values, 0.99, method="inverted_cdf"))
    if high - low > 3 * max(most - low, 1.0):
        high = most + 0.25 * max(most - low, 4.0)
    if 0 <= low <= high / 2:
        low = 0.0
    reach = 2 * max(high - low, 4.0)
    near = [mark for mark in marks.values() if low - reach <= mark <= high + reach]
    low, high = min([low, *near]), max([high, *(mark + 0.03 * (mark - low) for mark in near)])
    step = _round_step((high - low) / _BARS)
    start = math.floor(low / step) * step - (0.5 if step == 1 else 0)
    return start + step * np.arange(math.floor((high - start) / step) + 2)


def _round_step(least: float) -> int:
    if least <= 1:
        return 1
    power = 10 ** math.floor(math.log10(least))
    return next(int(factor * power) for factor in (1, 2, 5, 10) if factor * power >= least)


def _axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.grid(axis="y", color=_INK, alpha=0.14, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(_plain(x_label), loc="right", fontsize=11, labelpad=6)
    axes.set_title(_plain(y_label), loc="left", fontsize=11, pad=10)
    axes.xaxis.set_major_formatter(_Ticks())
    axes.yaxis.set_major_formatter(_Ticks())
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


class _Ticks(Formatter):
    """Write the ticks of an axis alike, with as many digits as tell them apart."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return number(x)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Label all ticks of an axis."""
        largest = max((abs(value) for value in values), default=0.0)
        steps = [abs(after - before) for before, after in pairwise(values)]
        step = min((step for step in steps if step > 0), default=largest)
        if largest == 0 or largest < 1e-3 or largest >= 1e10:
            return ["0" if abs(value) < step / 1e6 else short(value) for value in values]
        unit, suffix = (1e6, "M") if largest >= 1e7 else (1.0, "")
        decimals = next((d for d in range(9) if abs(round(step / unit, d) * unit - step) < step / 100), 9)
        written = [f"{value / unit:,.{decimals}f}".replace("-", "−") for value in values]
        return [text + suffix if text.strip("−0.") else text.lstrip("−") for text in written]


def _svg(figure: Figure, description: str) -> Markup:
    drawn = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(drawn, format="svg", transparent=True, metadata=metadata)
    root = ElementTree.fromstring(drawn.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib.update({name.rpartition("}")[2]: element.attrib.pop(name) for name in list(element.attrib)})
    for defs in root.findall("defs"):
        for style in defs.findall("style"):
            defs.remove(style)
    wanted = set(re.findall(r'(?:url\(|href=")#([^)"]+)', drawn.getvalue()))
    for element in root.iter():
        _restyle(element, wanted)
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": root.attrib["viewBox"],
        "width": "100%",
        "role": "img",
        "aria-label": description,
        "style": "stroke-linejoin: round; stroke-linecap: butt",
    }
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _restyle(element: ElementTree.Element, wanted: set[str]) -> None:
    """Turn stand-in colours into CSS, take the page's font, and drop what no picture needs."""
    attributes = element.attrib
    if attributes.get("id") not in wanted:
        attributes.pop("id", None)
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    if "d" in attributes:
        path = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}", attributes["d"])
        attributes["d"] = path.replace("\n", "")
    if "style" in attributes:
        style = re.sub(r"font-family:[^;]*;?\s*", "", attributes["style"])
        attributes["style"] = re.sub(r"#0101\d\d", lambda found: _CSS[found[0]], style)


def _plain(text: str) -> str:
    """Put the text on one short line of characters that XML can hold."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= _LABEL_LIMIT else line[: _LABEL_LIMIT - 1] + "…"


def _key(*inputs: object) -> str:
    return hashlib.sha256(repr(inputs).encode("utf-8", "replace")).hexdigest()[:16]
