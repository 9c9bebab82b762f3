"""
JUnit XML, in the dialect that pytest writes (`xunit2`) and CI systems read, with Maven Surefire's words for cases
that ran more than once (`flakyFailure`, `rerunFailure`).

Sources: https://docs.pytest.org/en/stable/how-to/output.html#creating-junitxml-format-files,
https://maven.apache.org/surefire/maven-surefire-plugin/xsd/surefire-test-report.xsd.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from fleetest.client.reports.outcome import RunOutcome
from fleetest.client.values import CaseRecord, TaskStatus
from fleetest.client.view.harmless import without_colours
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome, TaskState

__all__ = ["junit_xml"]

# Everything that XML 1.0 has no way to hold: https://www.w3.org/TR/xml/#charsets.
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_ELEMENT_OF: Final = {
    Outcome.FAILED: "failure",
    Outcome.TIMED_OUT: "failure",
    Outcome.ERROR: "error",
    Outcome.SKIPPED: "skipped",
    Outcome.XFAILED: "skipped",
}
_TASK_ERRORS: Final = frozenset({TaskState.ERRORED, TaskState.TIMED_OUT, TaskState.FAILED})


def junit_xml(outcome: RunOutcome) -> bytes:
    """The report: one `testsuite` for each task, in the suite's order."""
    root = Element("testsuites", {"name": _fit(outcome.run.suite_name or "fleetest")})
    for task in outcome.run.tasks:
        root.append(_suite(outcome, task, outcome.cases_of(task.task_id)))
    body: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return body


def _suite(outcome: RunOutcome, task: TaskStatus, records: Sequence[CaseRecord]) -> Element:
    kinds = Counter(_ELEMENT_OF.get(record.result.outcome, "") for record in records)
    took = sum(record.result.duration.total_seconds() for record in records)
    suite = Element(
        "testsuite",
        {
            "name": _fit(task.task_id),
            "errors": str(kinds["error"]),
            "failures": str(kinds["failure"]),
            "skipped": str(kinds["skipped"]),
            "tests": str(len(records)),
            "time": f"{took:.3f}",
            "timestamp": (task.started_at or outcome.run.submitted_at).isoformat(),
        },
    )
    for record in records:
        suite.append(_case(record, outcome.earlier_of(record)))
    if task.state in _TASK_ERRORS and not kinds["error"] and not kinds["failure"]:
        _add_task_error(suite, task)
    return suite


def _add_task_error(suite: Element, task: TaskStatus) -> None:
    """A task that ended badly without a case to blame must not look as if it had passed."""
    suite.set("tests", str(int(suite.get("tests", "0")) + 1))
    suite.set("errors", "1")
    case = SubElement(suite, "testcase", {"classname": "fleetest", "name": _fit(task.task_id), "time": "0.000"})
    SubElement(case, "error", {"message": _fit(f"{task.state.value}: {task.reason}")}).text = _fit(task.reason)


def _case(record: CaseRecord, earlier: Sequence[CaseResult]) -> Element:
    result = record.result
    classname, name = _names(result.case_id)
    case = Element(
        "testcase",
        {"classname": classname, "name": name, "time": f"{result.duration.total_seconds():.3f}"},
    )
    if result.file:
        case.set("file", _fit(result.file))
        if result.line:
            case.set("line", str(result.line))
    _add_properties(case, record)
    _add_outcome(case, result)
    for each in earlier:
        word = "flakyFailure" if not result.outcome.bad else "rerunFailure"
        _add_trouble(case, word, each)
    if result.outcome.bad:
        for element, text in (("system-out", result.stdout), ("system-err", result.stderr)):
            if text:
                SubElement(case, element).text = _fit(text)
    return case


def _add_properties(case: Element, record: CaseRecord) -> None:
    properties = dict(record.result.properties)
    if record.flaky:
        properties["flaky"] = "true"
    if (origin := record.result.cached_from) is not None:
        properties |= {"cached_from": origin.run_id, "cached_at": origin.at.isoformat()}
    if record.attempts > 1:
        properties["attempts"] = str(record.attempts)
    if properties:
        parent = SubElement(case, "properties")
        for name, value in properties.items():
            SubElement(parent, "property", {"name": _fit(name), "value": _fit(value)})


def _add_outcome(case: Element, result: CaseResult) -> None:
    element = _ELEMENT_OF.get(result.outcome)
    if element == "skipped":
        kind = "pytest.xfail" if result.outcome is Outcome.XFAILED else "pytest.skip"
        SubElement(case, "skipped", {"type": kind, "message": _fit(result.message)})
    elif element is not None:
        _add_trouble(case, element, result)


def _add_trouble(case: Element, element: str, result: CaseResult) -> None:
    SubElement(case, element, {"message": _fit(result.message), "type": result.outcome.value}).text = _fit(
        result.details
    )


def _names(case_id: str) -> tuple[str, str]:
    """Pytest's way: `tests/test_a.py::TestB::test_c[x]` is `test_c[x]` of `tests.test_a.TestB`."""
    base, bracket, parameters = case_id.partition("[")
    parts = base.split("::")
    parts[0] = parts[0].removesuffix(".py").replace("/", ".") if len(parts) > 1 else parts[0]
    return _fit(".".join(parts[:-1])), _fit(parts[-1] + bracket + parameters)


def _fit(text: str) -> str:
    """XML can hold it: colours are taken out, what else has no place in XML is written as pytest does, `#x1B`."""
    return _NOT_XML.sub(lambda match: f"#x{ord(match[0]):02X}", without_colours(text))
