"""Draw a table: bars or a histogram, and the strongest pair as a scatter plot.

Run in a workspace it takes what to draw from temp/chart.json and the rows from
context/files/load/rows.csv, writes SVG files to output/ and prints their names.
"""

import csv
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 720, 420
MAX_BARS = 12

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
"""Okabe and Ito's, told apart by the colour-blind too."""
_NO_GROUP = "#999999"
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 24, 56, 54
_LEGEND = 150
_MAX_LABEL_CHARS = 26

Row = dict[str, str]


def draw(spec: dict[str, Any], rows: Sequence[Row]) -> dict[str, str]:
    """Return the pictures, by file name."""
    labels = spec["labels"]
    group, measure, pair = spec["group"], spec["measure"], spec["pair"]
    pictures = {}
    if measure and group and (means := mean_by_group(rows, group, measure)):
        title = f"Mean {labels[measure]} by {labels[group]}"
        pictures["chart.svg"] = bars(title, means)
    elif measure:
        title = f"Distribution of {labels[measure]}"
        pictures["chart.svg"] = histogram(title, _numbers(rows, measure))
    elif group:
        title = f"Rows by {labels[group]}"
        pictures["chart.svg"] = bars(title, _count_by_group(rows, group))
    else:
        filled = [(labels[name], _filled(rows, name)) for name in labels]
        pictures["chart.svg"] = bars("Values in each column", filled)
    if pair:
        x, y = pair
        points = [
            (float(row[x]), float(row[y]), row[group] if group else "")
            for row in rows
            if row[x] and row[y]
        ]
        title = f"{labels[y]} over {labels[x]}"
        pictures["scatter.svg"] = scatter(title, points, labels[x], labels[y])
    return pictures


def mean_by_group(
    rows: Iterable[Row], group: str, measure: str
) -> list[tuple[str, float]]:
    """Return each group's mean, the largest first."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row[group] and row[measure]:
            values.setdefault(row[group], []).append(float(row[measure]))
    means = [(name, statistics.fmean(found)) for name, found in values.items()]
    return sorted(means, key=lambda item: (-item[1], item[0]))


def _count_by_group(rows: Iterable[Row], group: str) -> list[tuple[str, float]]:
    counts: dict[str, float] = {}
    for row in rows:
        if row[group]:
            counts[row[group]] = counts.get(row[group], 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _filled(rows: Iterable[Row], name: str) -> float:
    return sum(bool(row[name]) for row in rows)


def _numbers(rows: Iterable[Row], name: str) -> list[float]:
    return [float(row[name]) for row in rows if row[name]]


def bars(title: str, items: Sequence[tuple[str, float]]) -> str:
    """Horizontal bars from zero, with their values."""
    shown = items[:MAX_BARS]
    values = [value for _, value in shown]
    left, right = 210, 90
    colours = _coloured(label for label, _ in shown)
    scale = _scale(min(0, *values), max(0, *values), left, WIDTH - right)
    step = (HEIGHT - _TOP - 20) / len(shown)
    zero = scale(0)
    parts = [f'<path d="M{zero:.1f} {_TOP}V{HEIGHT - 20}" stroke="#444"/>']
    for index, (label, value) in enumerate(shown):
        y = _TOP + step * (index + 0.5)
        end, height = scale(value), min(40.0, step * 0.7)
        colour = colours[label]
        parts += [
            f'<rect x="{min(zero, end):.1f}" y="{y - height / 2:.1f}" fill="{colour}" '
            f'width="{abs(end - zero):.1f}" height="{height:.1f}" rx="2"/>',
            _text(left - 12, y + 4, label, anchor="end"),
            _text(max(zero, end) + 8, y + 4, number(value)),
        ]
    return _picture(title, parts)


def histogram(title: str, values: Sequence[float]) -> str:
    """How often values fall into ranges of the same width."""
    low, high = min(values), max(values)
    bins = max(1, min(20, math.ceil(math.sqrt(len(values))))) if high > low else 1
    counts = [0] * bins
    for value in values:
        place = (value - low) / (high - low) * bins if high > low else 0
        counts[min(bins - 1, int(place))] += 1
    if high == low:
        low, high = low - 0.5, high + 0.5
    x = _scale(low, high, _LEFT, WIDTH - _RIGHT)
    y = _scale(0, max(counts), HEIGHT - _BOTTOM, _TOP)
    parts = _axes(x, y, (low, high), (0, max(counts)), "", "rows")
    for index, count in enumerate(counts):
        start = x(low + (high - low) * index / bins)
        end = x(low + (high - low) * (index + 1) / bins)
        parts.append(
            f'<rect x="{start + 1:.1f}" y="{y(count):.1f}" fill="{_COLOURS[0]}" '
            f'width="{end - start - 2:.1f}" height="{y(0) - y(count):.1f}"/>'
        )
    return _picture(title, parts)


def scatter(
    title: str, points: Sequence[tuple[float, float, str]], x_label: str, y_label: str
) -> str:
    """Points in the colours of their groups."""
    colours = _coloured(point[2] for point in points)
    end = WIDTH - _RIGHT - (_LEGEND if any(colours) else 0)
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    x = _scale(min(xs), max(xs), _LEFT + 8, end - 8)
    y = _scale(min(ys), max(ys), HEIGHT - _BOTTOM - 8, _TOP + 8)
    x_range, y_range = (min(xs), max(xs)), (min(ys), max(ys))
    parts = _axes(x, y, x_range, y_range, x_label, y_label, end=end)
    parts += [
        f'<circle cx="{x(at_x):.1f}" cy="{y(at_y):.1f}" r="3.5" '
        f'fill="{colours[group]}" fill-opacity="0.65"/>'
        for at_x, at_y, group in points
    ]
    if any(colours):
        parts += _legend(colours, end + 18)
    return _picture(title, parts)


def _legend(colours: dict[str, str], left: int) -> Iterator[str]:
    for index, (group, colour) in enumerate(colours.items()):
        top = _TOP + 14 + 22 * index
        yield f'<circle cx="{left}" cy="{top}" r="5" fill="{colour}"/>'
        yield _text(left + 12, top + 4, (group or "none")[:18])


def number(value: float) -> str:
    """A figure to read: no more digits than say something."""
    size = abs(value)
    if value == int(value) and size < 1e15:
        return f"{int(value):,}"
    if size >= 1e15 or size < 1e-4:
        return f"{value:.4g}"
    return f"{value:,.{1 if size >= 1000 else 2 if size >= 1 else 4}f}"


def _coloured(groups: Iterable[str]) -> dict[str, str]:
    """A colour for each group, the same in every picture of the same groups."""
    found = set(groups)
    named = sorted(found - {""})
    colours = dict(zip(named, itertools.cycle(_COLOURS), strict=False))
    if "" in found:
        colours[""] = _NO_GROUP if named else _COLOURS[0]
    return colours


def _scale(
    low: float, high: float, start: float, end: float
) -> Callable[[float], float]:
    extent = high - low
    if extent <= 0:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / extent * (end - start)


def _axes(
    x: Callable[[float], float],
    y: Callable[[float], float],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_label: str,
    y_label: str,
    *,
    end: int = WIDTH - _RIGHT,
) -> list[str]:
    bottom = HEIGHT - _BOTTOM
    parts = []
    for value in _ticks(*y_range):
        line = f"M{_LEFT} {y(value):.1f}H{end}"
        parts.append(f'<path d="{line}" stroke="#e4e4e4"/>')
        parts.append(_text(_LEFT - 8, y(value) + 4, number(value), anchor="end"))
    parts += [
        _text(x(value), bottom + 18, number(value), anchor="middle")
        for value in _ticks(*x_range)
    ]
    parts.append(f'<path d="M{_LEFT} {bottom}H{end}" stroke="#444"/>')
    parts.append(_text((_LEFT + end) / 2, HEIGHT - 12, x_label, anchor="middle"))
    parts.append(_text(_LEFT - 8, _TOP - 10, y_label, anchor="start"))
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """Round values between ``low`` and ``high``, some five of them."""
    rough = (high - low) / 5
    if rough <= 0:
        return [low]
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next((it for it in (1, 2, 5) if unit * it >= rough), 10)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def _text(x: float, y: float, words: str, *, anchor: str = "start") -> str:
    shown = _clean(words, _MAX_LABEL_CHARS)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{shown}</text>'


def _clean(words: str, limit: int) -> str:
    # XML has no form for control characters.
    shown = "".join(char if char.isprintable() else "\ufffd" for char in words)
    return escape(shown if len(shown) <= limit else shown[: limit - 1] + "…")


def _picture(title: str, parts: Iterable[str]) -> str:
    title = _clean(title, 80)
    head = f'''\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"
  width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="13" fill="#222">
<title>{title}</title>
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>
<text x="20" y="30" font-size="17" font-weight="600">{title}</text>'''
    return "\n".join([head, *parts, "</svg>\n"])


def main() -> None:
    spec = json.loads(Path("temp/chart.json").read_bytes())
    with Path("context/files/load/rows.csv").open(encoding="utf-8", newline="") as file:
        pictures = draw(spec, list(csv.DictReader(file)))
    for name, picture in pictures.items():
        Path("output", name).write_text(picture, encoding="utf-8")
    sys.stdout.buffer.write(json.dumps({"files": list(pictures)}).encode())


if __name__ == "__main__":
    main()
