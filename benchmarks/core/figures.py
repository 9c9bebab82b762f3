"""What a benchmark finds out: figures of ours beside those of our peers, and whether our aims are reached."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["BEST", "OURS", "Aim", "Better", "Figure", "Side"]

OURS: Final = "Fleetest"
BEST: Final = "best"
"""In an aim: whichever peer is best."""


class Better(StrEnum):
    """Which of two values is the better one."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """
    One of those that are measured.

    Args:
        samples: one for each round, in order.
        missing: why there are none on this machine.
    """

    name: str
    samples: tuple[float, ...] = ()
    missing: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """
    What we want of a figure.

    Args:
        limit: of the ratio of ours to a peer's, or with no `against` of our own value.
        against: a peer's name, or `BEST`.
    """

    limit: float
    against: str = ""

    def words(self, figure: Figure) -> str:
        """As in a table: `≥ 3 × the best`."""
        sign = "≥" if figure.better is Better.HIGHER else "≤"
        if not self.against:
            return f"{sign} {self.limit:g} {figure.unit}"
        return f"{sign} {self.limit:g} × {'the best' if self.against == BEST else self.against}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """
    One thing that was measured, of us and of our peers, in the same rounds.

    Args:
        notes: what a reader must know to judge it fairly.
    """

    name: str
    unit: str
    better: Better
    ours: Side
    peers: tuple[Side, ...] = ()
    aims: tuple[Aim, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[Side, ...]:
        """Ours first."""
        return (self.ours, *self.peers)

    @property
    def best(self) -> Side | None:
        """The best peer; `None` when no peer could be measured."""
        measured = [side for side in self.peers if side.samples]
        if not measured:
            return None
        return (max if self.better is Better.HIGHER else min)(measured, key=lambda side: side.median)

    def ratio(self, peer: Side) -> float | None:
        """Ours to theirs: the median over the rounds, since a machine that drifts slows both sides of a round."""
        pairs = list(zip(self.ours.samples, peer.samples, strict=False))
        return statistics.median(ours / theirs for ours, theirs in pairs) if pairs else None

    def reached(self, aim: Aim) -> bool | None:
        """Whether the aim is true; `None` when that could not be measured."""
        if not self.ours.samples:
            return None
        value: float | None = self.ours.median
        if aim.against:
            peer = self.best if aim.against == BEST else self._peer(aim.against)
            value = self.ratio(peer) if peer is not None else None
        if value is None:
            return None
        return value >= aim.limit if self.better is Better.HIGHER else value <= aim.limit

    def _peer(self, name: str) -> Side:
        return next(side for side in self.peers if side.name == name)
