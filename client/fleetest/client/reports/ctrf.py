"""CTRF JSON, the Common Test Report Format. Source: https://ctrf.io, schema/ctrf.schema.json of ctrf-io/ctrf."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Any, Final

from fleetest.client.reports.outcome import RunOutcome
from fleetest.client.values import CaseRecord, Run
from fleetest.client.view.harmless import without_colours
from fleetest.common.results import Assertion, CaseResult
from fleetest.common.states import Outcome

__all__ = ["ctrf_json", "ctrf_report"]

_SPEC_VERSION: Final = "0.0.0"

_STATUS_OF: Final = {
    Outcome.PASSED: "passed",
    Outcome.XPASSED: "passed",
    Outcome.FAILED: "failed",
    Outcome.ERROR: "failed",
    Outcome.TIMED_OUT: "failed",
    Outcome.SKIPPED: "skipped",
    Outcome.XFAILED: "skipped",
}


def ctrf_json(outcome: RunOutcome) -> bytes:
    """The report as a file's content; text that UTF-8 cannot carry is escaped, as JSON can."""
    return json.dumps(ctrf_report(outcome), indent=2).encode("ascii") + b"\n"


def ctrf_report(outcome: RunOutcome) -> dict[str, Any]:
    """The report as JSON's own types."""
    run = outcome.run
    tests = [_test(record, outcome) for record in outcome.cases]
    return {
        "reportFormat": "CTRF",
        "specVersion": _SPEC_VERSION,
        "generatedBy": "fleetest",
        "timestamp": (run.ended_at or run.submitted_at).isoformat(),
        "results": {
            "tool": {"name": "fleetest", "version": version("fleetest")},
            "summary": _summary(run, tests),
            "tests": tests,
            "environment": _environment(run),
        },
    }


def _summary(run: Run, tests: list[dict[str, Any]]) -> dict[str, Any]:
    statuses = Counter(test["status"] for test in tests)
    stop = run.ended_at or run.submitted_at
    return {
        "tests": len(tests),
        **{status: statuses[status] for status in ("passed", "failed", "skipped", "pending", "other")},
        "flaky": sum(test.get("flaky", False) for test in tests),
        "suites": len(run.tasks),
        "start": _milliseconds(run.submitted_at),
        "stop": _milliseconds(stop),
        "duration": _length(stop - run.submitted_at),
        "extra": {
            "runId": run.run_id,
            "state": run.state.value,
            "cached": run.counts.cached,
            "wrongHits": sum(task.wrong_hits for task in run.tasks),
            "tasks": {task.task_id: {"state": task.state.value, "reason": task.reason} for task in run.tasks},
        },
    }


def _environment(run: Run) -> dict[str, Any]:
    known = {
        "appName": run.project,
        "reportName": run.suite_name,
        "commit": run.version_control.commit,
        "branchName": run.version_control.branch,
    }
    return {name: value for name, value in known.items() if value}


def _test(record: CaseRecord, outcome: RunOutcome) -> dict[str, Any]:
    result = record.result
    test: dict[str, Any] = {
        "name": result.case_id or record.task_id,
        "status": _STATUS_OF[result.outcome],
        "duration": _length(result.duration),
        "suite": [record.task_id],
        "rawStatus": result.outcome.value,
    }
    if result.started_at is not None:
        test["start"] = _milliseconds(result.started_at)
        test["stop"] = _milliseconds(result.started_at + result.duration)
    test |= {**_texts(result), **_steps(result)}
    if result.file:
        test["filePath"] = result.file
    if result.line:
        test["line"] = result.line
    if result.properties:
        test["labels"] = dict(result.properties)
    if record.worker_id:
        test["threadId"] = record.worker_id
    if (origin := result.cached_from) is not None:
        test["extra"] = {"cachedFrom": {"runId": origin.run_id, "at": origin.at.isoformat()}}
    if record.attempts > 1:
        test["retries"] = record.attempts - 1
        test["flaky"] = record.flaky
    if earlier := outcome.earlier_of(record):
        test["retryAttempts"] = [_attempt(number, each) for number, each in enumerate(earlier, start=1)]
    if result.outcome.bad:
        test |= {
            name: text.splitlines() for name, text in (("stdout", result.stdout), ("stderr", result.stderr)) if text
        }
    return test


def _steps(result: CaseResult) -> Mapping[str, Any]:
    return {"steps": [_step(each) for each in result.assertions]} if result.assertions else {}


def _step(assertion: Assertion) -> dict[str, Any]:
    step: dict[str, Any] = {"name": assertion.name, "status": "passed" if assertion.passed else "failed"}
    if assertion.message:
        step["extra"] = {"message": assertion.message}
    return step


def _attempt(number: int, result: CaseResult) -> dict[str, Any]:
    return {
        "attempt": number,
        "status": _STATUS_OF[result.outcome],
        "duration": _length(result.duration),
        **_texts(result),
    }


def _texts(result: CaseResult) -> Mapping[str, str]:
    texts = {"message": result.message, "trace": result.details}
    return {name: without_colours(text) for name, text in texts.items() if text}


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _length(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)
