"""Charts as inline SVG: curves with bands, reward histograms, dots with intervals, timelines."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 10, 34
MOST_POINTS = 240  # points of a drawn curve; longer ones show the mean of equal stretches

_SQUARE = ((-3.6, -3.6), (3.6, -3.6), (3.6, 3.6), (-3.6, 3.6))
_TRIANGLE = ((0.0, -4.8), (4.6, 3.4), (-4.6, 3.4))
_DIAMOND = ((0.0, -5.0), (5.0, 0.0), (0.0, 5.0), (-5.0, 0.0))
_SHAPES = {"c2": _SQUARE, "c3": _TRIANGLE, "c4": _DIAMOND, "c6": _SQUARE}  # other tones have circles

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve. `tone` names a colour of the page, c1 to c6."""

    name: str
    tone: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float] | None] | None = None  # [low, high] per point
    dashed: bool = False
    dots: bool = False


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Maps values to the coordinates of the drawing."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: float = LEFT
    height: float = HEIGHT

    def px(self, x: float) -> float:
        low, high = self.x
        return self.left + (x - low) / (high - low or 1.0) * (WIDTH - self.left - RIGHT)

    def py(self, y: float) -> float:
        low, high = self.y
        return self.height - BOTTOM - (y - low) / (high - low or 1.0) * (self.height - TOP - BOTTOM)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    percent: bool = False,
    x_ticks: Sequence[tuple[float, str]] | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """Curves over steps or rounds, with their bands, as a figure. `marks` are labelled vertical lines."""
    series = [s for s in map(_thin, series) if s.points]
    if not series:
        return _figure(title, "", '<p class="empty">Nothing measured yet.</p>')
    xs = [x for s in series for x, _ in s.points]
    pad = 0.06 * (max(xs) - min(xs)) if x_ticks else 0.0
    ticks = _ticks(*_value_range(series, percent))
    x_range = (min(xs) - pad, max(xs) + pad) if max(xs) > min(xs) else (min(xs) - 0.5, min(xs) + 0.5)
    frame = Frame(x=x_range, y=(ticks[0], ticks[-1]))
    labels = list(x_ticks or [(x, _short(x)) for x in _ticks(*frame.x) if frame.x[0] <= x <= frame.x[1]])
    body = [_y_axis(frame, ticks, percent), _x_axis(frame, labels, x_label), _marks(frame, marks)]
    body += [_band(frame, s) for s in series if s.band]
    body += [_curve(frame, s) for s in series]
    names = dict(labels) if x_ticks else {}
    return _figure(
        title, _legend(series), _svg("".join(body), title, _hover(frame, series, percent, names, x_label))
    )


def histogram(title: str, sides: Sequence[tuple[str, str, Sequence[int]]]) -> str:
    """Reward histograms side by side: (name, tone, 11 counts) each. Bars are shares."""
    shares = [(name, tone, [c / max(sum(counts), 1) for c in counts], counts) for name, tone, counts in sides]
    top = max((s for _, _, values, _ in shares for s in values), default=0.0)
    ticks = _ticks(0.0, max(top, 0.05))
    frame = Frame(x=(0, 11.6), y=(0, ticks[-1]))
    body = [_y_axis(frame, ticks, True)]
    places = [(i / 1.0, f"{i / 10:.1f}".replace("0.0", "0")) for i in range(0, 11, 2)] + [(11.1, "solved")]
    body.append(_x_axis(frame, places, "reward"))
    width = 0.84 / max(len(shares), 1)
    for side, (name, tone, values, counts) in enumerate(shares):
        for i, (value, count) in enumerate(zip(values, counts, strict=True)):
            left = (i if i < 10 else 10.6) + 0.08 + side * width
            x0, x1, y = frame.px(left), frame.px(left + width), frame.py(value)
            where = "solved" if i == 10 else f"reward {i / 10:.1f} to {(i + 1) / 10:.1f}"
            body.append(
                f'<rect class="bar {tone}" x="{x0:.1f}" y="{y:.1f}" width="{max(x1 - x0 - 0.6, 0.6):.1f}" '
                f'height="{max(frame.py(0) - y, 0):.1f}"><title>{escape(name)}, {where}: {count} '
                f"({100 * value:.1f} %)</title></rect>"
            )
    legend = _legend([Series(name=name, tone=tone, points=()) for name, tone, _, _ in shares], block=True)
    return _figure(title, legend, _svg("".join(body), title, None))


@dataclass(frozen=True, kw_only=True)
class DotRow:
    """One row of a dot chart: a mean with its interval, and the values it is made from."""

    name: str
    mean: float | None
    low: float | None
    high: float | None
    values: dict[int, float]  # seed -> value; empty where the mean is not over seeds
    strong: bool = False


def dot_chart(title: str, rows: Sequence[DotRow], *, percent: bool = False, zero: bool = False) -> str:
    """Methods as rows: a dot per seed, a diamond for the mean, a bar for the interval."""
    rows = [row for row in rows if row.mean is not None]
    if not rows:
        return _figure(title, "", '<p class="empty">Nothing measured yet.</p>')
    values = [v for r in rows for v in (*r.values.values(), r.low, r.high) if v is not None] + [0.0] * zero
    pad = 0.08 * (max(values) - min(values)) or 0.05
    low, high = min(values) - pad, max(values) + pad
    if percent and not zero:  # shares end at 0 and 1; an interval of Student's may go beyond
        low, high = max(low, min(0.0, *values)), min(high, max(1.0, *values))
    ticks = _ticks(low, high, most=6)
    left = 22 + 6.4 * min(max(len(row.name) for row in rows), 24)
    frame = Frame(x=(ticks[0], ticks[-1]), y=(0, 1), left=left, height=TOP + BOTTOM + 34 * len(rows))
    labels = [(x, _tick_text(x, ticks, percent)) for x in ticks]
    body = [_x_axis(frame, labels, "", grid=True)]
    if zero:
        body.append(_vertical(frame, 0.0, "zero"))
    for i, row in enumerate(rows):
        body.append(_dot_row(frame, row, TOP + 34 * (i + 0.5), percent))
    return _figure(title, "", _svg("".join(body), title, None, height=frame.height))


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A part of a timeline: what went on, the kind of work with its tone, and for how many seconds."""

    name: str
    kind: str
    tone: str
    seconds: float


def timeline(title: str, rows: Sequence[tuple[str, Sequence[Stretch]]]) -> str:
    """Runs as rows: what each did one after the other, in minutes from its start."""
    longest = max((sum(s.seconds for s in stretches) for _, stretches in rows), default=0.0) / 60
    if not longest:
        return _figure(title, "", '<p class="empty">Nothing measured yet.</p>')
    ticks = _ticks(0.0, longest, most=6)
    left = 22 + 6.4 * min(max(len(name) for name, _ in rows), 24)
    frame = Frame(x=(0.0, max(longest, ticks[-2])), y=(0, 1), left=left, height=TOP + BOTTOM + 22 * len(rows))
    labels = [(x, _tick_text(x, ticks, False)) for x in ticks if x <= frame.x[1]]
    body = [_x_axis(frame, labels, "minutes", grid=True)]
    for i, (name, stretches) in enumerate(rows):
        y, start = TOP + 22 * i, 0.0
        short = name if len(name) <= 24 else f"{name[:23]}…"
        body.append(f'<text class="name" x="{left - 12:.1f}" y="{y + 15}">{escape(short)}</text>')
        for part in stretches:
            x0, x1 = frame.px(start / 60), frame.px((start + part.seconds) / 60)
            start += part.seconds
            width = max(x1 - x0 - 0.4, 0.2)
            body.append(
                f'<rect class="bar {part.tone}" x="{x0:.1f}" y="{y + 3}" width="{width:.1f}" height="16">'
                f"<title>{escape(name)}, {escape(part.name)}: {part.seconds:.1f} s</title></rect>"
            )
    kinds = {part.kind: part.tone for _, stretches in rows for part in stretches}
    legend = _legend([Series(name=kind, tone=tone, points=()) for kind, tone in kinds.items()], block=True)
    return _figure(title, legend, _svg("".join(body), title, None, height=frame.height))


def _dot_row(frame: Frame, row: DotRow, y: float, percent: bool) -> str:
    name = row.name if len(row.name) <= 24 else f"{row.name[:23]}…"
    weight = " strong" if row.strong else ""
    parts = [f'<text class="name{weight}" x="{frame.left - 12:.1f}" y="{y + 4:.1f}">{escape(name)}</text>']
    if row.low is not None and row.high is not None:
        x0, x1 = frame.px(row.low), frame.px(row.high)
        parts.append(f'<path class="whisker{weight}" d="M{x0:.1f},{y:.1f}H{x1:.1f}"/>')
    for seed, value in row.values.items():
        text = f"seed {seed}: {_value_text(value, percent)}"
        place = f'cx="{frame.px(value):.1f}" cy="{y:.1f}" r="3.4"'
        parts.append(f'<circle class="seed" {place}><title>{text}</title></circle>')
    x = frame.px(row.mean or 0.0)
    over = f" over {len(row.values)} seeds" if row.values else ""
    text = f"{escape(row.name)}: mean {_value_text(row.mean or 0.0, percent)}{over}"
    diamond = f"M{x:.1f},{y - 6.5:.1f}l6.5,6.5l-6.5,6.5l-6.5,-6.5z"
    parts.append(f'<path class="mean{weight}" d="{diamond}"><title>{text}</title></path>')
    return "".join(parts)


def _thin(series: Series) -> Series:
    """Drop what is not finite; replace a long curve by the means of equal stretches."""
    if series.band is not None:
        return series
    points = [p for p in series.points if math.isfinite(p[1])]
    if len(points) > MOST_POINTS:
        size = math.ceil(len(points) / MOST_POINTS)
        chunks = [points[i : i + size] for i in range(0, len(points), size)]
        points = [(c[-1][0], sum(y for _, y in c) / len(c)) for c in chunks]
    return Series(name=series.name, tone=series.tone, points=points, dashed=series.dashed, dots=series.dots)


def _value_range(series: Sequence[Series], share: bool) -> tuple[float, float]:
    """From the least to the largest value; around a constant one, which as a share has the whole axis."""
    values = [y for s in series for _, y in s.points]
    values += [v for s in series for pair in s.band or () if pair for v in pair]
    low, high = min(values), max(values)
    if high > low:
        return low, high
    return (0.0, 1.0) if share else (low - 0.05 * abs(low or 1), high + 0.05 * abs(high or 1))


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers that enclose [low, high], about `most` of them."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(m for m in (1, 2, 2.5, 5, 10) if (high - low) / (step * m) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _short(value: float) -> str:
    if abs(value) >= 10000:
        return f"{value / 1000:g}k"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:g}"


def _tick_text(value: float, ticks: Sequence[float], percent: bool) -> str:
    if percent:
        return f"{100 * value:.3g} %".replace("-", "−")
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    if abs(value) >= 10000 or (value and step < 1e-3):
        return (f"{value:.1e}" if step < 1e-3 else _short(value)).replace("-", "−")
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    digits += round(step * 10**digits, 6) % 1 != 0
    return f"{value:.{digits}f}".replace("-", "−")


def _value_text(value: float, percent: bool) -> str:
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def _y_axis(frame: Frame, ticks: Sequence[float], percent: bool) -> str:
    right = WIDTH - RIGHT
    return "".join(
        f'<path class="grid" d="M{frame.left:.1f},{frame.py(y):.1f}H{right}"/>'
        f'<text class="tick y" x="{frame.left - 7:.1f}" y="{frame.py(y) + 3.5:.1f}">'
        f"{_tick_text(y, ticks, percent)}</text>"
        for y in ticks
    )


def _x_axis(frame: Frame, ticks: Sequence[tuple[float, str]], label: str, grid: bool = False) -> str:
    base = frame.height - BOTTOM
    parts = [f'<path class="axis" d="M{frame.left:.1f},{base:.1f}H{WIDTH - RIGHT}"/>']
    for x, text in ticks:
        if grid:
            parts.append(f'<path class="grid" d="M{frame.px(x):.1f},{TOP}V{base:.1f}"/>')
        parts.append(f'<text class="tick x" x="{frame.px(x):.1f}" y="{base + 14:.1f}">{escape(text)}</text>')
    middle = (frame.left + WIDTH - RIGHT) / 2
    parts.append(f'<text class="label" x="{middle:.1f}" y="{frame.height - 5:.1f}">{escape(label)}</text>')
    return "".join(parts)


def _vertical(frame: Frame, x: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{frame.px(x):.1f},{TOP}V{frame.height - BOTTOM:.1f}"/>'


def _marks(frame: Frame, marks: Sequence[tuple[float, str]]) -> str:
    inside = [(x, text) for x, text in marks if frame.x[0] <= x <= frame.x[1]]
    return "".join(
        _vertical(frame, x, "mark")
        + f'<text class="marktext" x="{frame.px(x) + 3:.1f}" y="{TOP + 7}">{escape(text)}</text>'
        for x, text in inside
    )


def _band(frame: Frame, series: Series) -> str:
    bands = [(x, b) for (x, _), b in zip(series.points, series.band or (), strict=True) if b]
    if len(bands) == 1:
        x, (low, high) = bands[0]
        path = f"M{frame.px(x):.1f},{frame.py(low):.1f}V{frame.py(high):.1f}"
        return f'<path class="error {series.tone}" d="{path}"/>'
    outline = [(x, high) for x, (_, high) in bands] + [(x, low) for x, (low, _) in reversed(bands)]
    if not outline:
        return ""
    path = "L".join(f"{frame.px(x):.1f},{frame.py(y):.1f}" for x, y in outline)
    return f'<path class="band {series.tone}" d="M{path}Z"/>'


def _curve(frame: Frame, series: Series) -> str:
    places = [(frame.px(x), frame.py(y)) for x, y in series.points]
    dash = " dashed" if series.dashed else ""
    path = "L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<path class="curve {series.tone}{dash}" d="M{path}"/>']
    if series.dots or len(places) == 1:
        parts += [_marker(series, x, y) for x, y in places]
    return "".join(parts)


def _marker(series: Series, x: float, y: float) -> str:
    """Tones differ by shape too, not by colour alone: circles, squares, triangles and diamonds in turn."""
    if (corners := _SHAPES.get(series.tone)) is None:
        return f'<circle class="dot {series.tone}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    path = "L".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<path class="dot {series.tone}" d="M{path}Z"/>'


def _legend(series: Sequence[Series], block: bool = False) -> str:
    if len(series) < 2 and not block:
        return f"<span>{escape(series[0].name)}</span>" if series[0].name else ""
    classes = [f"key{' block' * block} {s.tone}{' dashed' * s.dashed}" for s in series]
    return "".join(f'<span class="{c}">{escape(s.name)}</span>' for c, s in zip(classes, series, strict=True))


def _hover(
    frame: Frame, series: Sequence[Series], percent: bool, names: dict[float, str], x_label: str
) -> dict:
    return {
        "label": x_label,
        "names": {f"{x:g}": name for x, name in names.items()},
        "percent": percent,
        "series": [
            {
                "name": s.name,
                "tone": s.tone,
                "points": [
                    [float(f"{x:g}"), float(f"{y:.5g}"), round(frame.px(x), 1), round(frame.py(y), 1)]
                    for x, y in s.points
                ],
            }
            for s in series
        ],
    }


def _svg(body: str, title: str, hover: dict | None, height: float = HEIGHT) -> str:
    data = f' data-hover="{escape(json.dumps(hover, separators=(",", ":")))}"' if hover else ""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}"{data}>{body}</svg>'
    )


def _figure(title: str, legend: str, content: str) -> str:
    caption = f'<figcaption><b>{escape(title)}</b><span class="legend">{legend}</span></figcaption>'
    return f'<figure class="chart">{caption}{content}</figure>'
