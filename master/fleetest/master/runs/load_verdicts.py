"""Judges load tests: their thresholds become cases, and some of them stop all generators."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from fleetest.common.load import LIVE_WINDOW, LoadPlan, LoadRow, Threshold, quantity_text
from fleetest.common.states import Outcome
from fleetest.common.suite.durations import format_duration
from fleetest.master.runs.events import PerformanceMeasured
from fleetest.master.runs.measuring import Measured, Measurement
from fleetest.master.runs.results import KeptResult

__all__ = ["ABORTED", "broken_abort", "judged", "live_figures"]

ABORTED: Final = "load"
"""The value of `CancelRequested.by` when an abort threshold stopped the generators."""

_ANY: Final = Threshold(metric="requests", comparison=">", limit=0)
"""Holds of every load test, whether it says so or not."""

_OF_ANYTHING: Final = frozenset({"error_rate", "errors", "requests", "throughput"})
"""Metrics that say something even when no request was made."""

_LATE: Final = timedelta(milliseconds=500)
"""An arrival that begins so long after it was due tells that its generator lacks processor time."""


def live_figures(at: datetime, task_id: str, measurement: Measurement) -> PerformanceMeasured:
    """What is shown of the last seconds."""
    window = measurement.over(LIVE_WINDOW)
    latencies, errors = window.latencies(), window.errors()
    p50, p95, p99 = (timedelta(seconds=value) for value in latencies.percentiles((50, 95, 99)))
    return PerformanceMeasured(
        at=at,
        task_id=task_id,
        second=measurement.whole.seconds,
        window=window.length,
        users=window.users,
        offered=window.offered,
        throughput=window.throughput(),
        error_rate=errors / latencies.total if latencies.total else 0.0,
        p50=p50,
        p95=p95,
        p99=p99,
    )


def broken_abort(plan: LoadPlan, measurement: Measurement) -> str:
    """Which abort threshold did not hold over the last window, and what was measured; empty when all do."""
    if not plan.abort or len(measurement.recent) < round(plan.abort_window.total_seconds()):
        return ""
    window = measurement.over(plan.abort_window, {threshold.request for threshold in plan.abort})
    for threshold in plan.abort:
        value = window.value(threshold)
        if _can_be_judged(threshold, window) and not threshold.holds(value):
            was = quantity_text(threshold.metric, value)
            return f"{threshold}: it was {was} over {format_duration(plan.abort_window)}"
    return ""


def judged(plan: LoadPlan, measurement: Measurement, aborted: str = "") -> Iterator[KeptResult]:
    """
    A case for each threshold.

    Args:
        aborted: what `broken_abort` said, if it did.
    """
    whole, note = measurement.whole, _note(measurement)
    for threshold in (_ANY, *(each for each in plan.thresholds if each != _ANY)):
        value = whole.value(threshold)
        measured = _can_be_judged(threshold, whole)
        holds = measured and threshold.holds(value)
        was = f"it was {quantity_text(threshold.metric, value)}" if measured else _none_of(threshold, whole)
        yield KeptResult(
            case_id=f"thresholds::{threshold}",
            outcome=Outcome.PASSED if holds else Outcome.FAILED,
            duration=whole.length if threshold == _ANY else timedelta(),  # all of them took the time of one
            message=f"{was}{note}",
            properties=_figures(whole.row(threshold.request), whole),
        )
    for threshold in plan.abort:
        broken = aborted.startswith(f"{threshold}: ")
        yield KeptResult(
            case_id=f"abort::{threshold}",
            outcome=Outcome.FAILED if broken else Outcome.PASSED,
            message=f"all generators were stopped: {aborted}" if broken else "",
        )


def _can_be_judged(threshold: Threshold, measured: Measured) -> bool:
    return bool(measured.count(threshold.request)) or (threshold.metric in _OF_ANYTHING and not threshold.request)


def _none_of(threshold: Threshold, whole: Measured) -> str:
    if not threshold.request or not whole.requests:
        return "no request was measured"
    return f"no request '{threshold.request}' was made; there were {', '.join(whole.requests[:10])}"


def _note(measurement: Measurement) -> str:
    """What a reader of a figure must know."""
    whole, notes = measurement.whole, []
    left_out = measurement.told - whole.seconds
    if left_out > 0:
        notes.append(f"{left_out} s do not count, in which not all {measurement.generators} generators measured")
    if whole.lag > _LATE:
        late = quantity_text("max", whole.lag.total_seconds())
        notes.append(f"arrivals began up to {late} late, for lack of processor time at the generators")
    return f" ({'; '.join(notes)})" if notes else ""


def _figures(row: LoadRow, whole: Measured) -> dict[str, str]:
    latencies = {name: getattr(row, name) for name in ("mean", "p50", "p95", "p99", "max")}
    return {
        "requests": str(row.requests),
        "errors": str(row.errors),
        "throughput": f"{row.throughput:.2f}/s",
        "seconds": f"{whole.length.total_seconds():.2f}",
        **({"offered": f"{whole.offered:.2f}/s"} if whole.arrivals else {}),
        **{name: f"{value.total_seconds() * 1000:.3f}ms" for name, value in latencies.items()},
    }
