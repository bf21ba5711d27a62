"""Line and bar charts as SVG text, as many as the scorecard needs.

In: columns of numbers. Out: one SVG document of panels in rows. Pure; colours come from CSS classes at its head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

PANEL_WIDTH, PANEL_HEIGHT = 420, 190
LEFT, TOP, RIGHT, BOTTOM = 58, 30, 12, 26

STYLE = """
  text { font: 11px sans-serif; fill: #444 } .title { font-weight: bold; font-size: 12px; fill: #111 }
  .axis { stroke: #999; fill: none } .grid { stroke: #e8e8e8 } .line { fill: none; stroke-width: 1.4 }
  .many { stroke: #9db8d9; stroke-width: 0.7; fill: none } .simulated { stroke: #1f5fa8 }
  .recorded { stroke: #b5541c } .reference { stroke: #777; stroke-dasharray: 4 3 } .bar { stroke: none }
  rect.simulated { fill: #1f5fa8 } rect.recorded { fill: #b5541c }
"""


@dataclass
class Panel:
    """One chart. A series is (CSS class, xs, ys); bars stand on the lower edge."""

    title: str
    series: list[tuple[str, Sequence[float], Sequence[float]]] = field(default_factory=list)
    bars: bool = False
    floor: float | None = None
    """Lower end of the y axis; None: the smallest value."""

    def draw(self, x: float, y: float) -> str:
        """The panel with its upper left corner at (x, y)."""
        xs = [value for _, column, _ in self.series for value in column]
        ys = [value for _, _, column in self.series for value in column]
        if not xs:
            return f'<text class="title" x="{x + LEFT}" y="{y + 18}">{escape(self.title)}: too few events</text>'
        x_low, x_high = min(xs), max(max(xs), min(xs) + 1e-12)
        if self.bars:
            x_low, x_high = x_low - 0.5, x_high + 0.5  # room for half a bar at both ends
        y_low = min(ys) if self.floor is None else self.floor
        y_high = max(max(ys), y_low + 1e-12)
        width, height = PANEL_WIDTH - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM

        def place(at: float, value: float) -> tuple[float, float]:
            across = x + LEFT + width * (at - x_low) / (x_high - x_low)
            return across, y + TOP + height * (1 - (max(value, y_low) - y_low) / (y_high - y_low))

        parts = [f'<text class="title" x="{x + LEFT}" y="{y + 18}">{escape(self.title)}</text>']
        for step in range(5):
            value = y_low + (y_high - y_low) * step / 4
            _, up = place(x_low, value)
            parts.append(
                f'<line class="grid" x1="{x + LEFT}" x2="{x + LEFT + width}" y1="{up:.1f}" y2="{up:.1f}"/>'
            )
            parts.append(f'<text x="{x + LEFT - 5}" y="{up + 4:.1f}" text-anchor="end">{_label(value)}</text>')
        for at in (min(xs), (x_low + x_high) / 2, max(xs)):
            across, _ = place(at, y_low)
            parts.append(
                f'<text x="{across:.1f}" y="{y + TOP + height + 15}" text-anchor="middle">{_label(at)}</text>'
            )
        for style, column, values in self.series:
            points = [place(at, value) for at, value in zip(column, values, strict=True)]
            if self.bars:
                bar = max(1.0, 0.8 * width / max(1, len(points)))
                bottom = y + TOP + height
                parts += [
                    f'<rect class="bar {style}" x="{a - bar / 2:.1f}" '
                    f'y="{b:.1f}" width="{bar:.1f}" height="{bottom - b:.1f}"/>'
                    for a, b in points
                ]
            else:
                text = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
                parts.append(f'<polyline class="line {style}" points="{text}"/>')
        parts.append(f'<rect class="axis" x="{x + LEFT}" y="{y + TOP}" width="{width}" height="{height}"/>')
        return "\n".join(parts)


def _label(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def document(title: str, rows: Sequence[Sequence[Panel]]) -> str:
    """All panels, row by row."""
    width = PANEL_WIDTH * max(len(row) for row in rows)
    height = 30 + PANEL_HEIGHT * len(rows)
    body = [
        panel.draw(column * PANEL_WIDTH, 30 + row * PANEL_HEIGHT)
        for row, panels in enumerate(rows)
        for column, panel in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><style>{STYLE}</style><rect width="100%" height="100%" fill="white"/>\n'
        f'<text class="title" x="12" y="20">{escape(title)}</text>\n' + "\n".join(body) + "\n</svg>\n"
    )
