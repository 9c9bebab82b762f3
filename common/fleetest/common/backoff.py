"""How long to wait before the next try at something that just failed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """
    Exponential back-off with full jitter: a random part of `first * factor ** n`, which grows up to `longest`.

    The jitter keeps a fleet that lost the same peer in the same second from coming back in the same second. Source:
    Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015, where full jitter needs the fewest
    calls and the least time of the four kinds compared.

    Args:
        first: the longest wait after the first failure.
        fraction: draws from [0, 1); give another to make waits predictable.
    """

    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(seconds=30)
    factor: float = 2.0
    fraction: Callable[[], float] = field(default=random.random, repr=False)

    def ceiling(self, failures: int) -> timedelta:
        """The longest wait after so many failures in a row, the first being 1."""
        assert failures >= 1, "there is nothing to wait for before the first failure"
        try:
            return min(self.longest, self.first * self.factor ** (failures - 1))
        except OverflowError:
            return self.longest

    def delay(self, failures: int) -> timedelta:
        """How long to wait after so many failures in a row, the first being 1."""
        return self.ceiling(failures) * self.fraction()
