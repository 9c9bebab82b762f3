"""The one schedule that all generators keep to, and the share of it that each of them has."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence

__all__ = ["Schedule", "share_of"]

_ALMOST = 1e-9


class Schedule:
    """
    A target that moves evenly from stage to stage.

    Args:
        start: the target at the beginning.
        stages: of each, how many seconds it takes, and the target at its end.

    Attributes:
        seconds: how long it takes in all.
    """

    def __init__(self, start: float, stages: Sequence[tuple[float, float]]) -> None:
        self._begins: list[float] = []
        self._sums: list[float] = []
        self._parts: list[tuple[float, float, float]] = []
        at, whole, before = 0.0, 0.0, start
        for length, target in stages:
            self._begins.append(at)
            self._sums.append(whole)
            self._parts.append((length, before, target))
            at += length
            whole += (before + target) / 2 * length
            before = target
        self.seconds = at
        self._whole = whole

    def target(self, at: float) -> float:
        """At a time from the beginning, in seconds."""
        number = min(max(bisect_right(self._begins, at) - 1, 0), len(self._parts) - 1)
        length, before, after = self._parts[number]
        share = min(max((at - self._begins[number]) / length, 0.0), 1.0)
        return before + (after - before) * share

    def arrivals(self, index: int, count: int) -> Iterator[float]:
        """
        When one generator of several begins its arrivals, in seconds from the beginning.

        The target is a rate, and an arrival is due each time that its integral reaches a whole number. The generators
        take turns, so that all together keep to the rate at every moment.
        """
        number = index
        while number < self._whole - _ALMOST:
            yield self._reaches(float(number))
            number += count

    def _reaches(self, whole: float) -> float:
        """When so many are due. In its stage, `before` x t + slope x t²/2 is what is left of them."""
        number = bisect_right(self._sums, whole) - 1
        length, before, after = self._parts[number]
        left, slope = whole - self._sums[number], (after - before) / length
        root = math.sqrt(max(before * before + 2 * slope * left, 0.0))
        at = 2 * left / (before + root) if before + root > 0 else 0.0
        return self._begins[number] + min(at, length)


def share_of(users: float, index: int, count: int) -> int:
    """How many of all users one generator of several has: they are dealt to all in turn."""
    whole = int(users + _ALMOST)
    return max(0, (whole - index + count - 1) // count)
