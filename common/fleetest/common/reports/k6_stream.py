"""
k6's samples as lines of JSON (`k6 run --out json=FILE`).

Source: https://grafana.com/docs/k6/latest/results-output/real-time/json. A line declares a metric, with its thresholds,
or is one sample. k6 does not write here how thresholds ended: they are judged again. Those of sub-metrics
(`http_req_duration{status:200}`) are not declared at all; the summary has them.

Checks are samples of the metric `checks`, with the check's name among their tags.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, BinaryIO, Final

from fleetest.common.reports.bounds import bounded, bounded_case, finite, instant
from fleetest.common.reports.json_values import as_dict, as_list, as_text
from fleetest.common.reports.k6_summary import check_case, threshold_case
from fleetest.common.reports.k6_thresholds import MAX_SAMPLES, Samples, parse_threshold
from fleetest.common.reports.ports import ReadOptions, Unreadable
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome

__all__ = ["read_k6_stream"]

MAX_LINE_BYTES: Final = 1 << 20
_MOST_METRICS: Final = 10_000
_MOST_CHECKS: Final = 100_000
_LONGEST_NAME: Final = 1000


def read_k6_stream(stream: BinaryIO, options: ReadOptions) -> Iterator[CaseResult]:
    """Fulfils `ReportReader`. Nothing is known of any case before the end."""
    del options
    samples = _Stream()
    number = 0
    try:
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if line.strip():
                samples.take(_parsed(line))
    except Unreadable as error:
        error.line = number
        yield from samples.cases()
        raise
    if not number:
        raise Unreadable("it is empty")
    yield from samples.cases()


def _parsed(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise Unreadable(f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {error.msg if isinstance(error, json.JSONDecodeError) else error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("data"), dict):
        raise Unreadable("the line is no sample of k6: it has no `data`")
    return record


class _Stream:
    """What has come together so far."""

    def __init__(self) -> None:
        self._samples: dict[str, Samples] = {}
        self._thresholds: dict[str, list[str]] = {}
        self._checks: dict[str, list[int]] = {}
        self._first: datetime | None = None
        self._last: datetime | None = None

    def take(self, record: dict[str, Any]) -> None:
        metric, data = as_text(record.get("metric"))[:_LONGEST_NAME], as_dict(record.get("data"))
        match record.get("type"):
            case "Metric":
                self._declare(metric, data)
            case "Point":
                self._sample(metric, data)
            case other:
                raise Unreadable(f"the line is of no type that k6 writes: {as_text(other)[:50]!r}")

    def cases(self) -> Iterator[CaseResult]:
        took = self._last - self._first if self._first and self._last else timedelta()
        took = max(timedelta(), took)
        tolerated = bool(self._thresholds.get("checks"))
        for metric, sources in self._thresholds.items():
            for source in sources:
                yield _judged(metric, source, self._samples[metric], took)
        for name, (fails, passes) in self._checks.items():
            yield check_case(name, passes, fails, tolerated=tolerated)
        if not self._checks and not any(self._thresholds.values()) and self._samples:
            yield bounded_case(
                case_id="k6",
                outcome=Outcome.PASSED,
                duration=took,
                message="the script has neither thresholds nor checks",
            )

    def _declare(self, metric: str, data: dict[str, Any]) -> None:
        if metric in self._samples:
            return
        if len(self._samples) >= _MOST_METRICS:
            raise Unreadable(f"more than {_MOST_METRICS} metrics")
        sources = [as_text(as_dict(each).get("threshold")) or as_text(each) for each in as_list(data.get("thresholds"))]
        thresholds = [parse_threshold(source) for source in sources]
        keeps = any(each is not None and each.needs_samples for each in thresholds)
        self._thresholds[metric] = [bounded(source, _LONGEST_NAME) for source in sources]
        self._samples[metric] = Samples(as_text(data.get("type")), array("d") if keeps else None)

    def _sample(self, metric: str, data: dict[str, Any]) -> None:
        if metric not in self._samples:
            self._declare(metric, {})
        if (value := finite(data.get("value"))) is not None:
            self._samples[metric].add(value)
            if metric == "checks":
                self._check(as_dict(data.get("tags")), passed=value != 0)
        if (at := instant(data.get("time"))) is not None:
            self._first = min(self._first or at, at)
            self._last = max(self._last or at, at)

    def _check(self, tags: dict[str, Any], *, passed: bool) -> None:
        group = as_text(tags.get("group")).removeprefix("::")
        name = "::".join(filter(None, (group, as_text(tags.get("check")))))[:_LONGEST_NAME]
        if name not in self._checks and len(self._checks) >= _MOST_CHECKS:
            raise Unreadable(f"more than {_MOST_CHECKS} checks")
        self._checks.setdefault(name, [0, 0])[passed] += 1


def _judged(metric: str, source: str, samples: Samples, took: timedelta) -> CaseResult:
    threshold = parse_threshold(source)
    value = samples.value(threshold, took) if threshold is not None else None
    if threshold is not None and value is not None:
        return threshold_case(metric, source, as_text(value), holds=threshold.holds(value))
    if threshold is None:
        why = "this is no threshold that can be judged"
    elif not samples.count:
        return threshold_case(metric, source, "", holds=True)  # as k6 has it
    else:
        why = f"cannot be judged: more than {MAX_SAMPLES} samples, or no time between them; read k6's summary instead"
    return bounded_case(case_id=f"thresholds::{metric}: {source}", outcome=Outcome.ERROR, message=why)
