"""
Judges k6's threshold expressions, such as `p(95)<500`, by the samples of a metric.

Aggregations and operators are those of https://grafana.com/docs/k6/latest/using-k6/thresholds; a percentile lies
between the two samples nearest to it, as k6 reckons it.
"""

from __future__ import annotations

import operator
import re
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

__all__ = ["MAX_SAMPLES", "Samples", "Threshold", "parse_threshold"]

MAX_SAMPLES: Final = 4 << 20
"""Of one metric that are kept for its percentiles, eight bytes each."""

_EXPRESSION: Final = re.compile(
    r"\s*(avg|count|max|med|min|rate|value|p\(\s*(\d+(?:\.\d+)?)\s*\))\s*(<=|>=|<|>|===|==|!=)\s*(-?\d+(?:\.\d+)?)\s*",
    re.ASCII,
)
_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "===": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """
    Args:
        percentile: with the aggregation `p`, from 0 to 100.
    """

    aggregation: str
    percentile: float
    comparison: str
    limit: float

    @property
    def needs_samples(self) -> bool:
        """Whether sums do not do."""
        return self.aggregation in {"p", "med"}

    def holds(self, value: float) -> bool:
        return _OPERATORS[self.comparison](value, self.limit)


def parse_threshold(source: str) -> Threshold | None:
    """`None` for what is no threshold that we know."""
    match = _EXPRESSION.fullmatch(source) if len(source) < 200 else None  # noqa: PLR2004 - longer than any
    if match is None:
        return None
    percentile = float(match[2]) if match[2] else 50.0
    return Threshold(
        aggregation="p" if match[2] else match[1],
        percentile=min(percentile, 100.0),
        comparison=match[3],
        limit=float(match[4]),
    )


@dataclass(slots=True)
class Samples:
    """
    What is known of a metric.

    Args:
        kind: `counter`, `gauge`, `rate` or `trend`.
        kept: all samples, when some threshold needs them.
    """

    kind: str
    kept: array[float] | None = None
    count: int = 0
    total: float = 0.0
    not_zero: int = 0
    least: float = field(default=float("inf"))
    most: float = field(default=float("-inf"))
    last: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.not_zero += value != 0
        self.least, self.most, self.last = min(self.least, value), max(self.most, value), value
        if self.kept is not None and self.count <= MAX_SAMPLES:
            self.kept.append(value)

    def value(self, threshold: Threshold, elapsed: timedelta) -> float | None:
        """What the threshold is about; `None` when that cannot be told."""
        if not self.count or (self.kind == "counter" and threshold.aggregation == "rate" and not elapsed):
            return None
        if threshold.needs_samples:
            return self._percentile(threshold.percentile)
        counter = self.kind == "counter"
        return {
            "count": self.total if counter else float(self.count),
            "rate": self.total / (elapsed.total_seconds() or 1.0) if counter else self.not_zero / self.count,
            "avg": self.total / self.count,
            "min": self.least,
            "max": self.most,
            "value": self.last,
        }[threshold.aggregation]

    def _percentile(self, percentile: float) -> float | None:
        if self.kept is None or self.count > MAX_SAMPLES:
            return None
        values = sorted(self.kept)
        at = percentile / 100 * (len(values) - 1)
        below = int(at)
        above = min(below + 1, len(values) - 1)
        return values[below] + (values[above] - values[below]) * (at - below)
