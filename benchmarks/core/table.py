"""Figures as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.core.figures import Figure, Side

__all__ = ["number", "table", "verdict"]

_MANY = 100


def table(figure: Figure) -> Iterator[str]:
    """A heading, a line for each side, and one for each aim."""
    yield f"{figure.name} [{figure.unit}, {figure.better} is better]"
    for side in figure.sides:
        yield f"  {side.name:<24}{_samples(figure, side)}"
    for aim in figure.aims:
        yield f"  aim {aim.words(figure)}: {verdict(figure.reached(aim))}"
    for note in figure.notes:
        yield f"  ({note})"


def number(value: float) -> str:
    """Three digits or so."""
    return f"{value:,.0f}" if abs(value) >= _MANY else f"{value:.3g}"


def verdict(reached: bool | None) -> str:  # noqa: FBT001 - a value, not a switch
    """In a word."""
    return {True: "reached", False: "not yet", None: "not measured"}[reached]


def _samples(figure: Figure, side: Side) -> str:
    if not side.samples:
        return f"-  {side.missing}"
    words = f"{number(side.median):>9}   ({number(min(side.samples))} to {number(max(side.samples))})"
    ratio = None if side is figure.ours else figure.ratio(side)
    return words if ratio is None else f"{words:<36} ours is {ratio:.2f} of it"
