"""Pictures of a study as SVG: text that opens anywhere, with a tip under every point."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = (
    "#1b6ca8", "#d1495b", "#2e933c", "#8d5fd3", "#c77f1a", "#00798c", "#6b705c", "#b5179e",
    "#5f0f40", "#3a5a40", "#9a031e", "#415a77",
)  # fmt: skip
WIDTH, HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 16, 48


@dataclass(frozen=True)
class Series:
    """x, mean, lowest and highest over seeds, each with a tip."""

    name: str
    points: Sequence[tuple[float, float, float, float]]
    tips: Sequence[str]


@dataclass(frozen=True)
class Whisker:
    """A value with its interval; without one where there is none."""

    name: str
    value: float
    interval: tuple[float, float] | None
    tip: str
    differs: bool


def curves(series: Sequence[Series], x_label: str, y_label: str) -> str:
    """A line a series with the range of its seeds as a band."""
    points = [point for one in series for point in one.points]
    x_ticks = ticks(0.0, max((p[0] for p in points), default=1.0))
    y_ticks = ticks(
        min((p[2] for p in points), default=0.0), max((p[3] for p in points), default=1)
    )
    x_of = _scale(x_ticks[0], x_ticks[-1], _LEFT, WIDTH - _RIGHT)
    y_of = _scale(y_ticks[0], y_ticks[-1], HEIGHT - _BOTTOM, _TOP)
    parts = [_frame(x_ticks, y_ticks, x_of, y_of, x_label, y_label)]
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        upper = [f"{x_of(x):.1f},{y_of(high):.1f}" for x, _, _, high in one.points]
        lower = [f"{x_of(x):.1f},{y_of(low):.1f}" for x, _, low, _ in reversed(one.points)]
        line = [f"{x_of(x):.1f},{y_of(mean):.1f}" for x, mean, _, _ in one.points]
        at = _TOP + 14 + 18 * number
        parts.append(f'<g class="series" data-name="{_text(one.name)}">')
        if one.points:  # else its name alone says that it has none
            parts.append(
                f'<path class="band" d="M{" L".join(upper + lower)} Z" fill="{colour}" '
                f'fill-opacity="0.15"/>'
            )
            parts.append(
                f'<path class="line" d="M{" L".join(line)}" fill="none" stroke="{colour}" '
                f'stroke-width="1.8"/>'
            )
        for (x, mean, _, _), tip in zip(one.points, one.tips, strict=True):
            parts.append(
                f'<circle cx="{x_of(x):.1f}" cy="{y_of(mean):.1f}" r="3.2" fill="{colour}" '
                f'data-tip="{_text(tip)}"><title>{_text(tip)}</title></circle>'
            )
        parts.append(
            f'<rect x="{WIDTH - _RIGHT + 16}" y="{at - 9}" width="12" height="10" fill="{colour}"/>'
            f'<text x="{WIDTH - _RIGHT + 34}" y="{at}">{_text(one.name)}</text></g>'
        )
    return _svg(HEIGHT, parts)


def whiskers(rows: Sequence[Whisker], x_label: str) -> str:
    """Differences to the baseline, which is the line at 0."""
    height = _TOP + _BOTTOM + 30 * max(len(rows), 1)
    ends = [0.0] + [x for row in rows for x in (*(row.interval or ()), row.value)]
    x_ticks = ticks(min(ends), max(ends))
    x_of = _scale(x_ticks[0], x_ticks[-1], 200, WIDTH - 30)
    parts = []
    for x in x_ticks:
        parts.append(
            f'<line x1="{x_of(x):.1f}" x2="{x_of(x):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}" '
            f'stroke="{"#444" if x == 0 else "#ddd"}"/>'
            f'<text x="{x_of(x):.1f}" y="{height - _BOTTOM + 16}" text-anchor="middle">'
            f"{_tick(x)}</text>"
        )
    for number, row in enumerate(rows):
        y = _TOP + 15 + 30 * number
        colour = COLOURS[0] if row.differs else "#888"
        parts.append(f'<g class="whisker"><text x="190" y="{y + 4}" text-anchor="end">')
        parts.append(f"{_text(row.name)}</text>")
        if row.interval:
            low, high = (x_of(x) for x in row.interval)
            parts.append(
                f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{colour}" '
                f'stroke-width="2"/>'
            )
        parts.append(
            f'<circle cx="{x_of(row.value):.1f}" cy="{y}" r="5" fill="{colour}" '
            f'data-tip="{_text(row.tip)}"><title>{_text(row.tip)}</title></circle></g>'
        )
    parts.append(
        f'<text x="{(200 + WIDTH - 30) / 2}" y="{height - 10}" text-anchor="middle">'
        f"{_text(x_label)}</text>"
    )
    return _svg(height, parts)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from below `low` to above `high`."""
    if not high > low:
        low, high = low - 0.5 * abs(low or 1.0), high + 0.5 * abs(high or 1.0)
    rough = (high - low) / wanted
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 2.5, 5, 10) if unit * k >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * k for k in range(first, last + 1)]


def _scale(low: float, high: float, begin: float, end: float):
    return lambda value: begin + (value - low) / (high - low) * (end - begin)


def _frame(x_ticks, y_ticks, x_of, y_of, x_label: str, y_label: str) -> str:
    parts = []
    for y in y_ticks:
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y_of(y):.1f}" y2="{y_of(y):.1f}" '
            f'stroke="#ddd"/><text x="{_LEFT - 8}" y="{y_of(y) + 4:.1f}" text-anchor="end">'
            f"{_tick(y)}</text>"
        )
    for x in x_ticks:
        parts.append(
            f'<text x="{x_of(x):.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">'
            f"{_tick(x)}</text>"
        )
    parts.append(
        f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{_text(x_label)}</text>"
        f'<text transform="translate(16 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{_text(y_label)}</text>"
    )
    return "".join(parts)


def _svg(height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}" height="{height:.0f}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
    )


def _tick(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.2g}"


def _text(value: str) -> str:
    return html.escape(value, quote=True)
