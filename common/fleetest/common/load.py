"""
What load tests measure, and what is asked of that.

Latencies travel as histograms, never as percentiles: those of several generators cannot be put together again.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from fleetest.common.errors import InvalidRequest

__all__ = [
    "LIVE_WINDOW",
    "LoadPlan",
    "LoadRow",
    "LoadSample",
    "RequestSample",
    "Threshold",
    "parse_threshold",
    "quantity_text",
]

LIVE_WINDOW: Final = timedelta(seconds=10)
"""Over so long go the figures that are shown while load is generated."""

_LATENCIES: Final = ("mean", "min", "max")
_COUNTS: Final = ("errors", "requests")
_LONGEST_SECONDS: Final = 3600.0
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_MOST_CHARACTERS: Final = 200
_PERCENTILE: Final = r"p(?:100|[0-9]{1,2}(?:\.[0-9]{1,3})?)"
_EXPRESSION: Final = re.compile(
    rf"\s*({_PERCENTILE}|[a-z_0-9.]+)\s*(<=|>=|<|>)\s*([0-9]{{1,12}}(?:\.[0-9]{{1,6}})?)\s*([a-z%/]*)\s*", re.ASCII
)
_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_HINT: Final = "As in `p95 < 300ms`, `error_rate < 1%`, `throughput > 500/s`, `max <= 2s`, `requests >= 1000`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """
    What is to hold of what was measured.

    Args:
        metric: `p50`, `p99.9` and so on, `mean`, `min`, `max`, `error_rate`, `errors`, `requests` or `throughput`.
        comparison: `<`, `<=`, `>` or `>=`.
        limit: of latencies in seconds, of the error rate a share from 0 to 1, of throughput a number for each second.
        request: the name of the requests that it is about; empty: all of them.
    """

    metric: str
    comparison: str
    limit: float
    request: str = ""

    def __str__(self) -> str:
        name = f"{self.request}: " if self.request else ""
        return f"{name}{self.metric} {self.comparison} {quantity_text(self.metric, self.limit)}"

    @property
    def percentile(self) -> float | None:
        """From 0 to 100; `None` for any other metric."""
        return float(self.metric[1:]) if re.fullmatch(_PERCENTILE, self.metric) else None

    def holds(self, value: float) -> bool:
        return _COMPARISONS[self.comparison](value, self.limit)


def parse_threshold(text: str, *, request: str = "") -> Threshold:
    """
    Read a threshold such as `p95 < 300ms`.

    Raises:
        InvalidRequest: it is none; the message says what is wrong with it.
    """
    match = _EXPRESSION.fullmatch(text) if len(text) <= _MOST_CHARACTERS else None
    if match is None:
        raise InvalidRequest(f"'{text[:60]}' is not a threshold", hint=_HINT)
    metric, comparison, number, unit = match.groups()
    return Threshold(metric=metric, comparison=comparison, limit=_limit(metric, number, unit), request=request)


def _limit(metric: str, number: str, unit: str) -> float:
    value = float(number)
    if metric in _LATENCIES or re.fullmatch(_PERCENTILE, metric):
        if unit not in _UNITS:
            raise InvalidRequest(f"{metric} is compared with a time, not '{number}{unit}'", hint=f"Write {number}ms.")
        if value * _UNITS[unit] > _LONGEST_SECONDS:
            raise InvalidRequest(f"{number}{unit} is longer than any latency that is measured, an hour")
        return value * _UNITS[unit]
    if metric == "error_rate":
        if unit != "%" or value > 100:  # noqa: PLR2004 - percent
            raise InvalidRequest(f"error_rate is compared with a share, not '{number}{unit}'", hint="Write it as 1%.")
        return value / 100
    if metric == "throughput":
        if unit not in {"/s", ""}:
            raise InvalidRequest(f"throughput is compared with a rate, not '{number}{unit}'", hint=f"Write {number}/s.")
        return value
    if metric in _COUNTS:
        if unit:
            raise InvalidRequest(f"{metric} is compared with a number, not '{number}{unit}'")
        return value
    known = ", ".join(("p50, p95, p99.9", *_LATENCIES, "error_rate", *_COUNTS, "throughput"))
    raise InvalidRequest(f"nothing measured is called '{metric[:60]}'", hint=f"There are {known}.")


def quantity_text(metric: str, value: float) -> str:
    """A value of a metric as people write it: `300ms`, `1%`, `500/s`."""
    if metric == "error_rate":
        return f"{value * 100:.4g}%"
    if metric == "throughput":
        return f"{value:,.4g}/s" if value < 1000 else f"{value:,.0f}/s"  # noqa: PLR2004 - four digits
    if metric in _COUNTS:
        return f"{value:,.0f}"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value * 1e6:.4g}us"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """
    What is asked of a load test, besides its load.

    Args:
        length: of its schedule.
        thresholds: each becomes a case.
        abort: likewise; and when one does not hold over `abort_window`, all generators are stopped.
    """

    length: timedelta = timedelta()
    thresholds: tuple[Threshold, ...] = ()
    abort: tuple[Threshold, ...] = ()
    abort_window: timedelta = LIVE_WINDOW


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSample:
    """
    Requests of one name that ended within a second, in one generator.

    Args:
        errors: how many of them failed.
        histogram: of all their latencies in microseconds, as `fleetest.common.latencies` reads it.
    """

    name: str
    errors: int
    histogram: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSample:
    """
    What one generator did in one second.

    Args:
        second: from the common start on, counted from 0.
        length: how much of that second the schedule goes on for; what ends after the schedule is in samples of no
            length.
        users: at its end.
        arrivals: in the open model, how many were begun.
        lag: the longest that one of them was begun after it was due.
        last: nothing comes after it.
    """

    second: int
    length: timedelta
    users: int = 0
    arrivals: int = 0
    lag: timedelta = timedelta()
    last: bool = False
    requests: tuple[RequestSample, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRow:
    """
    What was measured of the requests of one name.

    Args:
        request: empty: all of them.
        throughput: requests that ended, for each second.
    """

    request: str
    requests: int
    errors: int
    throughput: float
    mean: timedelta
    p50: timedelta
    p95: timedelta
    p99: timedelta
    max: timedelta
