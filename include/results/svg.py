"""Small SVG plots for reports: no script, no external fetch, readable in light and dark, titled for readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM = 460, 240, 56, 38
COLOURS = ("var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)")


@dataclass(frozen=True)
class Line:
    """One line of a plot: a name and (x, y) points in the order drawn."""

    name: str
    points: tuple[tuple[float, float], ...]


def plot(
    title: str,
    x_label: str,
    y_label: str,
    lines: Sequence[Line],
    *,
    mark_y: float | None = None,
    dots: bool = True,
) -> str:
    """Return an SVG line plot with both axes from zero.

    :param mark_y: a horizontal line, such as an SLO.
    """
    every = [point for line in lines for point in line.points]
    if not every:
        return f'<p class="empty">{escape(title)}: no data</p>'
    x_top = _nice(max(x for x, _ in every))
    y_top = _nice(max([y for _, y in every] + ([mark_y] if mark_y else [])))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>',
        f'<text class="t" x="{LEFT}" y="14">{escape(title)}</text>',
        *_grid(x_top, y_top),
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text x="{LEFT}" y="28" class="l">{escape(y_label)}</text>',
    ]
    for index, line in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        place = [_place(x, y, x_top, y_top) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in place)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        if dots:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in place]
        parts.append(
            f'<text x="{WIDTH - 8}" y="{44 + 14 * index}" text-anchor="end" fill="{colour}">{escape(line.name)}</text>'
        )
    if mark_y:
        _, y = _place(0, mark_y, x_top, y_top)
        parts.append(f'<line class="slo" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>')
    return "".join([*parts, "</svg>"])


def bars(title: str, parts: Sequence[tuple[str, float]], unit: str) -> str:
    """Return one stacked horizontal bar with a legend: a total split into named parts."""
    total = sum(value for _, value in parts)
    if total <= 0:
        return f'<p class="empty">{escape(title)}: no data</p>'
    position, drawn, legend = 0.0, [], []
    for index, (name, value) in enumerate(parts):
        colour, width = COLOURS[index % len(COLOURS)], 100 * value / total
        drawn.append(f'<rect x="{position:.2f}%" width="{width:.2f}%" height="22" fill="{colour}"/>')
        legend.append(f'<li style="--k:{colour}">{escape(name)} <b>{value:.1f} {unit}</b></li>')
        position += width
    label = f"{title}, {total:.1f} {unit} in all"
    bar = f'<svg class="bar" height="22" width="100%" role="img" aria-label="{escape(label)}">{"".join(drawn)}</svg>'
    return f'<figure><figcaption>{escape(label)}</figcaption>{bar}<ul class="legend">{"".join(legend)}</ul></figure>'


def _grid(x_top: float, y_top: float) -> list[str]:
    lines = []
    for step in range(5):
        y_value, x_value = y_top * step / 4, x_top * step / 4
        x, _ = _place(x_value, 0, x_top, y_top)
        _, y = _place(0, y_value, x_top, y_top)
        lines.append(f'<line class="g" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{y_value:g}</text>')
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x_value:g}</text>')
    return lines


def _place(x: float, y: float, x_top: float, y_top: float) -> tuple[float, float]:
    across = (WIDTH - 8 - LEFT) * x / x_top
    up = (HEIGHT - BOTTOM - 36) * y / y_top
    return LEFT + across, HEIGHT - BOTTOM - up


def _nice(top: float) -> float:
    if top <= 0:
        return 1.0
    power = 10.0 ** (len(str(int(top))) - 1) if top >= 1 else 10.0 ** -(len(f"{1 / top:.0f}"))
    for step in (1, 2, 4, 5, 8, 10, 20, 40, 50, 80, 100):
        if step * power >= top:
            return step * power
    return top
