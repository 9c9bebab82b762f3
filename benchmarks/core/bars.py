"""A figure as a small picture: one bar a side, medians as lengths, minima and maxima as whiskers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.core.figures import Figure, Side
from benchmarks.core.table import number

__all__ = ["bars"]

_WIDTH: Final = 680
_LABELS: Final = 170
_NUMBERS: Final = 120
_ROW: Final = 30
_TOP: Final = 14
_STYLE: Final = """
text { font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #24292f; }
.ours { fill: #1a7f5a; } .theirs { fill: #b6bec8; } .range { stroke: #57606a; stroke-width: 1.2; fill: none; }
.name-ours, .number-ours { font-weight: 600; } .missing { fill: #6e7781; font-style: italic; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .ours { fill: #3fb98a; } .theirs { fill: #59636e; } .range { stroke: #b1bac4; }
  .missing { fill: #8b949e; }
}"""


def bars(figure: Figure) -> str:
    """The picture as SVG, for light and dark pages."""
    height = _TOP * 2 + _ROW * len(figure.sides)
    longest = max((max(side.samples) for side in figure.sides if side.samples), default=1.0) or 1.0
    scale = (_WIDTH - _LABELS - _NUMBERS) / longest
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img">',
        f"<title>{escape(figure.name)}, {escape(figure.unit)}, {figure.better} is better</title>",
        f"<style>{_STYLE}</style>",
    ]
    for index, side in enumerate(figure.sides):
        lines += _bar(figure, side, _TOP + index * _ROW, scale)
    return "\n".join([*lines, "</svg>", ""])


def _bar(figure: Figure, side: Side, top: float, scale: float) -> Iterator[str]:
    kind = "ours" if side is figure.ours else "theirs"
    middle = top + _ROW / 2
    base = middle + 4.5
    yield f'<text class="name-{kind}" x="{_LABELS - 10}" y="{base:g}" text-anchor="end">{escape(side.name)}</text>'
    if not side.samples:
        yield f'<text class="missing" x="{_LABELS}" y="{base:g}">{escape(side.missing)}</text>'
        return
    length, low, high = (_LABELS + value * scale for value in (side.median, min(side.samples), max(side.samples)))
    yield (
        f'<rect class="{kind}" x="{_LABELS}" y="{top + 5}" width="{max(length - _LABELS, 1):.1f}" '
        f'height="{_ROW - 10}" rx="2"/>'
    )
    yield (f'<path class="range" d="M{low:.1f} {middle - 4:g}v8m0-4H{high:.1f}m0-4v8"/>')
    yield (
        f'<text class="number-{kind}" x="{max(high, length) + 8:.1f}" y="{base:g}">'
        f"{number(side.median)} {escape(figure.unit)}</text>"
    )
