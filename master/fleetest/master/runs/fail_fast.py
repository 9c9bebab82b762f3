"""
Puts what is likely to fail first, as far as that does not lengthen the run.

Cases are taken in the order of their chance to fail by the seconds that they need, which finds the first failure
soonest (Smith's rule, 1956, as of a search for one thing in several places). They become short shards of their own in
front of all others, which leaves the long ones to start later. So the makespan of both orders is foretold, and fewer
cases are put first until it grows by `TOLERANCE` at most.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["TOLERANCE", "makespan", "most_that_may_come_first"]

TOLERANCE: Final = 0.05


def makespan(seconds: Sequence[float], slots: Sequence[float]) -> float:
    """
    How long shards of these lengths take when each slot that is free takes the next one.

    Args:
        slots: the speed of each; when several are free, the fastest comes first.
    """
    free = [(0.0, -speed) for speed in slots]
    heapq.heapify(free)
    ends = 0.0
    for each in seconds:
        at, negative_speed = free[0]
        end = at + each / -negative_speed
        ends = max(ends, end)
        heapq.heapreplace(free, (end, negative_speed))
    return ends


def most_that_may_come_first(number: int, lasts: Callable[[int], float]) -> int:
    """
    How many of the likeliest may come first.

    Args:
        lasts: the makespan when so many do.
    """
    limit = lasts(0) * (1 + TOLERANCE)
    while number and lasts(number) > limit:
        number //= 2
    return number
