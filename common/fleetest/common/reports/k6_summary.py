"""
k6's summary at the end of a test, as JSON.

Three shapes, all read here: what `handleSummary` is given, what `--summary-export` writes, and what both are with
`--new-machine-readable-summary` (https://grafana.com/docs/k6/latest/results-output/end-of-test). The second has a
threshold's value the other way round: `true` says that it was crossed. The third has no thresholds.

Thresholds and checks are the cases. A check that failed at times is a failure, unless the script has a threshold on
`checks`: then that decides how many may fail.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, BinaryIO, Final

from fleetest.common.reports.bounds import bounded_case, milliseconds, seconds, whole_number
from fleetest.common.reports.json_values import as_dict, as_list, as_text
from fleetest.common.reports.ports import ReadOptions, Unreadable
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome

__all__ = ["check_case", "read_k6_summary", "threshold_case"]

MAX_SUMMARY_BYTES: Final = 32 << 20
"""It has a line for each metric, not for each sample."""

_MOST_GROUPS: Final = 100_000


def read_k6_summary(stream: BinaryIO, options: ReadOptions) -> Iterator[CaseResult]:
    """Fulfils `ReportReader`."""
    del options
    content = stream.read(MAX_SUMMARY_BYTES + 1)
    if len(content) > MAX_SUMMARY_BYTES:
        raise Unreadable(f"a summary of k6 is never larger than {MAX_SUMMARY_BYTES >> 20} MiB")
    try:
        summary = as_dict(json.loads(content))
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON: {error.msg}", line=error.lineno) from error
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not readable as JSON: {type(error).__name__}") from error
    results = as_dict(summary.get("results"))
    metrics = _metrics(summary.get("metrics") or results.get("metrics"))
    if not metrics and "root_group" not in summary:
        raise Unreadable("not a summary of k6: it has neither `metrics` nor `root_group`")
    took = milliseconds(as_dict(summary.get("state")).get("testRunDurationMs")) or seconds(
        as_dict(summary.get("config")).get("duration")
    )
    yield from _cases(summary, results, metrics, took)


def threshold_case(metric: str, source: str, value: str, *, holds: bool) -> CaseResult:
    """
    A threshold as a case. How long the test took is nothing of its own.

    Args:
        value: what the metric came to, as text; empty when that is not known.
    """
    found = f", and it is {value}" if value else ""
    return bounded_case(
        case_id=f"thresholds::{metric}: {source}",
        outcome=Outcome.PASSED if holds else Outcome.FAILED,
        message="" if holds else f"{metric} should be {source}{found}",
        properties={"value": value} if value else {},
    )


def check_case(name: str, passes: int, fails: int, *, tolerated: bool) -> CaseResult:
    """
    A check as a case.

    Args:
        tolerated: whether a threshold on `checks` decides how many may fail.
    """
    message = f"failed {fails} of {passes + fails} times" if fails else ""
    return bounded_case(
        case_id=f"checks::{name}",
        outcome=Outcome.FAILED if fails and not tolerated else Outcome.PASSED,
        message=message,
        properties={"passes": str(passes), "fails": str(fails)},
    )


def _cases(
    summary: Mapping[str, Any], results: Mapping[str, Any], metrics: Mapping[str, Any], took: timedelta
) -> Iterator[CaseResult]:
    empty, tolerated = True, False
    for name, metric in metrics.items():
        for source, verdict in as_dict(metric.get("thresholds")).items():
            empty = False
            tolerated = tolerated or name.partition("{")[0] == "checks"
            holds = as_dict(verdict).get("ok") is True if isinstance(verdict, dict) else verdict is False
            yield threshold_case(name, source, _value(metric, source), holds=holds)
    for name, check in _checks(summary.get("root_group"), as_dict(results.get("checks")).get("results")):
        empty = False
        passes, fails = whole_number(check.get("passes")), whole_number(check.get("fails"))
        yield check_case(name, passes, fails, tolerated=tolerated)
    if empty:
        yield bounded_case(
            case_id="k6", outcome=Outcome.PASSED, duration=took, message="the script has neither thresholds nor checks"
        )


def _metrics(value: Any) -> dict[str, dict[str, Any]]:
    """By name; the newest shape has them as a list."""
    if isinstance(value, list):
        return {as_text(as_dict(each).get("name")): as_dict(each) for each in value}
    return {name: as_dict(each) for name, each in as_dict(value).items()}


def _value(metric: Mapping[str, Any], source: str) -> str:
    """Of what a threshold is about, where the summary has it under that name."""
    name = source.replace(" ", "")
    for sign in ("<", ">", "=", "!"):
        name = name.partition(sign)[0]
    values = as_dict(metric.get("values")) or metric
    return as_text(values.get(name, values.get("value") if name == "rate" else None))


def _checks(root: Any, listed: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those of all groups, with the groups' names; groups and checks are lists, or objects by name."""
    for each in as_list(listed):
        yield as_text(as_dict(each).get("name")), as_dict(each)
    waiting: list[tuple[tuple[str, ...], dict[str, Any]]] = [((), as_dict(root))]
    done = 0
    while waiting:
        above, group = waiting.pop()
        done += 1
        if done > _MOST_GROUPS:
            raise Unreadable(f"more than {_MOST_GROUPS} groups")
        name = as_text(group.get("name"))
        path = (*above, name) if name else above
        for check in _each(group.get("checks")):
            yield "::".join((*path, as_text(check.get("name")))), check
        waiting += [(path, each) for each in reversed(_each(group.get("groups")))]


def _each(value: Any) -> list[dict[str, Any]]:
    return [as_dict(each) for each in (value.values() if isinstance(value, dict) else as_list(value))]
