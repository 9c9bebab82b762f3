"""
CTRF JSON, the Common Test Report Format.

Source: https://ctrf.io/docs/specification (ctrf-io/ctrf). The words that Fleetest's own reports have in `rawStatus` are
taken at their word, so that what it wrote it reads as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

from fleetest.common.reports.bounds import bounded_case, instant, milliseconds, whole_number
from fleetest.common.reports.json_values import EACH, as_dict, as_list, as_text, json_values
from fleetest.common.reports.places import named_below
from fleetest.common.reports.ports import ReadOptions, Unreadable
from fleetest.common.results import Assertion, CaseResult
from fleetest.common.states import Outcome

__all__ = ["read_ctrf"]

_TESTS: Final = ("results", "tests", EACH)
_WANTED: Final = frozenset({("results", "tool"), _TESTS})
_OUTCOMES: Final = {
    "passed": Outcome.PASSED,
    "failed": Outcome.FAILED,
    "skipped": Outcome.SKIPPED,
    "pending": Outcome.SKIPPED,
}
_OWN_WORDS: Final = {
    "passed": frozenset({Outcome.PASSED, Outcome.XPASSED}),
    "failed": frozenset({Outcome.FAILED, Outcome.ERROR, Outcome.TIMED_OUT}),
    "skipped": frozenset({Outcome.SKIPPED, Outcome.XFAILED}),
}
_NAMED: Final = ("browser", "device", "type", "threadId")


def read_ctrf(stream: BinaryIO, options: ReadOptions) -> Iterator[CaseResult]:
    """Fulfils `ReportReader`."""
    found = False
    for each in json_values(stream, lambda path: path in _WANTED):
        found = True
        if each.path == _TESTS:
            yield _case(as_dict(each.value), options)
    if not found:
        raise Unreadable("not a CTRF report: it has no `results` with a `tool` or with `tests`")


def _case(test: Mapping[str, Any], options: ReadOptions) -> CaseResult:
    status, raw = as_text(test.get("status")), as_text(test.get("rawStatus"))
    message = as_text(test.get("message"))
    outcome = _OUTCOMES.get(status)
    if outcome is None:
        outcome, message = Outcome.ERROR, message or f"ended as {raw or status or 'nothing that is said'!r}"
    elif any(raw == own for own in _OWN_WORDS.get(status, ())):
        outcome = Outcome(raw)
    return bounded_case(
        case_id="::".join(filter(None, (*_suites(test.get("suite")), as_text(test.get("name"))))),
        outcome=outcome,
        duration=milliseconds(test.get("duration")),
        started_at=instant(test.get("start")),
        file=named_below(as_text(test.get("filePath")), options.root),
        line=whole_number(test.get("line")),
        message=message,
        details=as_text(test.get("trace")) or as_text(test.get("snippet")),
        stdout=_lines(test.get("stdout")),
        stderr=_lines(test.get("stderr")),
        properties=_properties(test),
        assertions=map(_assertion, map(as_dict, as_list(test.get("steps")))),
    )


def _assertion(step: Mapping[str, Any]) -> Assertion:
    """What a test reports step by step."""
    return Assertion(
        name=as_text(step.get("name")),
        passed=step.get("status") == "passed",
        message=as_text(as_dict(step.get("extra")).get("message")),
    )


def _suites(value: Any) -> list[str]:
    """From the outermost to the innermost; older reports have one text."""
    return [as_text(each) for each in value] if isinstance(value, list) else [as_text(value)]


def _lines(value: Any) -> str:
    return "\n".join(as_text(each) for each in value) if isinstance(value, list) else as_text(value)


def _properties(test: Mapping[str, Any]) -> dict[str, str]:
    known = {name: as_text(test.get(name)) for name in _NAMED}
    known["tags"] = ", ".join(as_text(tag) for tag in as_list(test.get("tags")))
    for kind in ("parameters", "labels"):
        known |= {name: _label(value) for name, value in as_dict(test.get(kind)).items()}
    attachments = [as_text(as_dict(each).get("path")) for each in as_list(test.get("attachments"))]
    for number, path in enumerate(filter(None, attachments), start=1):
        known["attachment" if number == 1 else f"attachment {number}"] = path
    if test.get("flaky") is True:
        known["flaky"] = "true"
    if retries := whole_number(test.get("retries")):
        known["attempts"] = str(retries + 1)
    return {name: value for name, value in known.items() if value}


def _label(value: Any) -> str:
    return ", ".join(as_text(each) for each in value) if isinstance(value, list) else as_text(value)
