"""SVG charts without script: axes from the data, shapes by class, a text for those who do not see them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from include.results.pages.html import Html, el, figure

WIDTH, HEIGHT = 900, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 26, 44


@dataclass
class Chart:
    """One plot.

    :param x, y: ranges of the data, low and high.
    :param label: what it shows, in a sentence; read out instead of the picture.
    """

    label: str
    x: tuple[float, float]
    y: tuple[float, float]
    x_title: str
    y_title: str
    parts: list[Html] = field(default_factory=list)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point lies, in SVG units."""
        wide, high = self.x[1] - self.x[0] or 1.0, self.y[1] - self.y[0] or 1.0
        across = LEFT + (WIDTH - LEFT - RIGHT) * (x - self.x[0]) / wide
        down = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - self.y[0]) / high
        return round(across, 1), round(down, 1)

    def line(self, points: Sequence[tuple[float, float]], kind: str = "line") -> None:
        """Draw a line through points."""
        path = " ".join(f"{x},{y}" for x, y in (self.place(*point) for point in points))
        self.parts.append(el("polyline", points=path, class_=kind))

    def dot(self, x: float, y: float, title: str, kind: str = "dot", size: float = 4) -> None:
        """Draw a point with a title."""
        cx, cy = self.place(x, y)
        self.parts.append(el("circle", el("title", title), cx=cx, cy=cy, r=size, class_=kind))

    def across(self, y: float, text: str, kind: str) -> None:
        """Draw a horizontal line with a text."""
        _, at = self.place(self.x[0], y)
        self.parts.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_=kind))
        self.parts.append(el("text", text, x=WIDTH - RIGHT, y=at - 5, text_anchor="end", class_=kind))

    def upright(self, x: float, text: str, kind: str, *, row: int = 0) -> None:
        """Draw a vertical line with a text at its top."""
        at, _ = self.place(x, self.y[0])
        self.parts.append(el("line", x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM, class_=kind))
        end = at > WIDTH * 0.75
        anchor = "end" if end else "start"
        shift = -6 if end else 6
        self.parts.append(el("text", text, x=at + shift, y=TOP + 12 + 15 * row, text_anchor=anchor, class_=kind))

    def band(self, x: tuple[float, float], y: tuple[float, float], title: str) -> None:
        """Draw a filled range."""
        left, top = self.place(x[0], y[1])
        right, bottom = self.place(x[1], y[0])
        size = {"width": max(2.0, round(right - left, 1)), "height": max(2.0, round(bottom - top, 1))}
        self.parts.append(el("rect", el("title", title), x=left, y=top, class_="band", **size))

    def text(self, x: float, y: float, text: str, kind: str, anchor: str = "middle", lift: float = 0) -> None:
        """Write at a point."""
        at, down = self.place(x, y)
        self.parts.append(el("text", text, x=at, y=down - lift, text_anchor=anchor, class_=kind))

    def svg(self, x_ticks: Sequence[tuple[float, str]] | None = None) -> Html:
        """Return the picture."""
        grid: list[Html] = []
        for value in ticks(*self.y):
            _, at = self.place(self.x[0], value)
            grid.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="grid"))
            grid.append(el("text", figure(value), x=LEFT - 8, y=at + 4, text_anchor="end"))
        for value, text in x_ticks if x_ticks is not None else [(v, figure(v)) for v in ticks(*self.x)]:
            at, _ = self.place(value, self.y[0])
            grid.append(el("text", text, x=at, y=HEIGHT - BOTTOM + 18, text_anchor="middle"))
        titles = [
            el("text", self.y_title, x=8, y=14),
            el("text", self.x_title, x=WIDTH - RIGHT, y=HEIGHT - 6, text_anchor="end"),
        ]
        return el(
            "svg",
            el("title", self.label),
            grid,
            titles,
            self.parts,
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_label=self.label,
        )


LEAST_AIR = 1e-9


def spread(values: Sequence[float], *, zero: bool = False) -> tuple[float, float]:
    """Return a range that shows all values with some air; from zero when asked."""
    low, high = min(values), max(values)
    air = (high - low) * 0.12 or abs(high) * 0.1
    if air < LEAST_AIR:  # equal values, or ones that no axis can tell apart
        air = 1.0
    return (0.0 if zero else max(0.0, low - air) if low >= 0 else low - air), high + air


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers within a range."""
    raw = (high - low) / count or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def sparkline(values: Sequence[float | None], label: str) -> Html:
    """Return a series as a small line; gaps are gaps."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return el("span", "–", class_="soft")
    low, high = min(known), max(known)
    pieces: list[list[str]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            pieces.append([])
            continue
        x = 2 + 146 * place / (len(values) - 1)
        pieces[-1].append(f"{x:.1f},{31 - 28 * (value - low) / ((high - low) or 1):.1f}")
    lines = [el("polyline", points=" ".join(piece), class_="line") for piece in pieces if piece]
    return el("svg", lines, viewBox="0 0 150 34", class_="spark", role="img", aria_label=label)
