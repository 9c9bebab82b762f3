from __future__ import annotations

import io
import json
from datetime import timedelta
from xml.etree import ElementTree as ET

import pytest

from fleetest.client.reports.ctrf import ctrf_json
from fleetest.client.reports.files import ReportFile
from fleetest.client.reports.junit import junit_xml
from fleetest.client.reports.outcome import RunOutcome
from fleetest.client.values import CaseRecord, Run, TaskStatus
from fleetest.common.errors import DependencyUnavailable, InvalidRequest
from fleetest.common.reports.ctrf import read_ctrf
from fleetest.common.reports.ports import ReadOptions
from fleetest.common.results import Assertion, CacheOrigin, CaseResult
from fleetest.common.states import Outcome, RunState, TaskState
from fleetest.common.version_control import VersionControl
from tests.unit.client.scripted_master import RUN_ID, at

EVERY_CHARACTER = "".join(map(chr, [*range(0x300), 0x2028, 0xDFFF, 0xD800, 0xFFFE, 0xFFFF, 0x1F600])) + "]]>"


def record(case_id, outcome=Outcome.PASSED, *, task="unit", attempts=1, flaky=False, **fields):
    result = CaseResult(case_id=case_id, outcome=outcome, duration=timedelta(milliseconds=1500), **fields)
    return CaseRecord(task_id=task, result=result, attempts=attempts, flaky=flaky, worker_id="w1")


def an_outcome(*cases, earlier=None, tasks=None):
    run = Run(
        run_id=RUN_ID,
        project="shop",
        suite_name="ci",
        state=RunState.FAILED,
        submitted_at=at(0),
        ended_at=at(9),
        version_control=VersionControl(commit="abc", branch="main"),
        tasks=tuple(tasks or [TaskStatus(task_id="unit", type="pytest", state=TaskState.FAILED, started_at=at(1))]),
    )
    return RunOutcome(run=run, cases=cases, earlier=earlier or {})


def test_junit_has_a_suite_for_each_task_with_its_counts():
    outcome = an_outcome(
        record("tests/test_a.py::TestB::test_c[x::y]", file="tests/test_a.py", line=3),
        record("f", Outcome.FAILED, message="no", details="tb", stdout="out", stderr="err"),
        record("t", Outcome.TIMED_OUT),
        record("e", Outcome.ERROR),
        record("s", Outcome.SKIPPED, message="why"),
        record("x", Outcome.XFAILED),
        record("other", task="lint"),
        tasks=[
            TaskStatus(task_id="unit", type="pytest", state=TaskState.FAILED, started_at=at(1)),
            TaskStatus(task_id="lint", type="command", state=TaskState.PASSED),
        ],
    )

    unit, lint = ET.fromstring(junit_xml(outcome))

    assert {key: unit.get(key) for key in ("name", "tests", "failures", "errors", "skipped", "time")} == {
        "name": "unit",
        "tests": "6",
        "failures": "2",
        "errors": "1",
        "skipped": "2",
        "time": "9.000",
    }
    assert unit.get("timestamp") == "2026-11-21T12:00:01+00:00"
    assert (unit[0].get("classname"), unit[0].get("name")) == ("tests.test_a.TestB", "test_c[x::y]")
    assert (unit[0].get("file"), unit[0].get("line"), len(unit[0])) == ("tests/test_a.py", "3", 0)
    assert [(child.tag, child.get("message"), child.text) for child in unit[1]] == [
        ("failure", "no", "tb"),
        ("system-out", None, "out"),
        ("system-err", None, "err"),
    ]
    assert [case[0].get("type") for case in unit[4:6]] == ["pytest.skip", "pytest.xfail"]
    assert (lint.get("tests"), lint[0].get("name")) == ("1", "other")


def test_junit_tells_what_was_flaky():
    first = CaseResult(case_id="a", outcome=Outcome.FAILED, message="first", details="tb")
    outcome = an_outcome(
        record("a", attempts=2, flaky=True, properties={"ticket": "T-1"}),
        record("b", Outcome.FAILED, attempts=2),
        earlier={("unit", "a"): (first,), ("unit", "b"): (first,)},
    )

    flaky, failed = ET.fromstring(junit_xml(outcome))[0]

    assert {each.get("name"): each.get("value") for each in flaky.find("properties")} == {
        "ticket": "T-1",
        "flaky": "true",
        "attempts": "2",
    }
    assert flaky.find("flakyFailure").get("message") == "first"
    assert flaky.find("failure") is None
    assert [child.tag for child in failed] == ["properties", "failure", "rerunFailure"]


def test_junit_is_xml_whatever_the_texts_hold():
    outcome = an_outcome(
        record(EVERY_CHARACTER, Outcome.FAILED, message=EVERY_CHARACTER, details=EVERY_CHARACTER, file=EVERY_CHARACTER)
    )

    root = ET.fromstring(junit_xml(outcome))

    text = root[0][0][0].text
    assert "#x1B" in text
    assert "#xD800" in text
    assert "#xFFFE" in text
    assert "😀]]>" in text
    assert "#x00" in root[0][0].get("name")


def test_junit_shows_a_task_that_ended_badly_without_a_case_to_blame():
    outcome = an_outcome(
        record("fine"),
        tasks=[TaskStatus(task_id="unit", type="pytest", state=TaskState.ERRORED, reason="setup failed")],
    )

    (suite,) = ET.fromstring(junit_xml(outcome))

    assert (suite.get("tests"), suite.get("errors")) == ("2", "1")
    assert suite[1][0].get("message") == "errored: setup failed"


def test_reports_say_where_a_cached_result_comes_from():
    outcome = an_outcome(record("a", cached_from=CacheOrigin(run_id="r0", at=at(-60))))

    case = ET.fromstring(junit_xml(outcome))[0][0]
    (test,) = json.loads(ctrf_json(outcome))["results"]["tests"]

    assert {each.get("name"): each.get("value") for each in case.find("properties")} == {
        "cached_from": "r0",
        "cached_at": at(-60).isoformat(),
    }
    assert test["extra"] == {"cachedFrom": {"runId": "r0", "at": at(-60).isoformat()}}


def test_ctrf_has_what_its_schema_requires():
    first = CaseResult(case_id="a", outcome=Outcome.FAILED, message="\x1b[31mfirst\x1b[0m")
    outcome = an_outcome(
        record("a", attempts=2, flaky=True, started_at=at(1)),
        record("f", Outcome.FAILED, message="m", details="d", stdout="1\n2", file="t.py", line=4),
        record("s", Outcome.XFAILED, properties={"k": "v"}),
        record("", Outcome.XPASSED),
        earlier={("unit", "a"): (first,)},
    )

    report = json.loads(ctrf_json(outcome))

    assert (report["reportFormat"], report["results"]["tool"]["name"]) == ("CTRF", "fleetest")
    summary = report["results"]["summary"]
    extra = summary.pop("extra")
    assert extra["tasks"] == {"unit": {"state": "failed", "reason": ""}}
    assert (extra["cached"], extra["wrongHits"]) == (0, 0)
    assert summary == {
        "tests": 4,
        "passed": 2,
        "failed": 1,
        "skipped": 1,
        "pending": 0,
        "other": 0,
        "flaky": 1,
        "suites": 1,
        "start": 1795262400000,
        "stop": 1795262409000,
        "duration": 9000,
    }
    flaky, failed, skipped, unnamed = report["results"]["tests"]
    assert flaky == {
        "name": "a",
        "status": "passed",
        "duration": 1500,
        "suite": ["unit"],
        "rawStatus": "passed",
        "start": 1795262401000,
        "stop": 1795262402500,
        "threadId": "w1",
        "retries": 1,
        "flaky": True,
        "retryAttempts": [{"attempt": 1, "status": "failed", "duration": 0, "message": "first"}],
    }
    assert (failed["trace"], failed["stdout"], failed["filePath"], failed["line"]) == ("d", ["1", "2"], "t.py", 4)
    assert (skipped["status"], skipped["labels"]) == ("skipped", {"k": "v"})
    assert unnamed["name"] == "unit"
    assert report["results"]["environment"] == {
        "appName": "shop",
        "reportName": "ci",
        "commit": "abc",
        "branchName": "main",
    }


def test_assertions_are_steps_of_ctrf_and_are_read_as_they_were():
    assertions = (Assertion(name="status", passed=True), Assertion(name="$.a", passed=False, message="expected 1"))

    report = ctrf_json(an_outcome(record("a", Outcome.FAILED, assertions=assertions)))

    assert json.loads(report)["results"]["tests"][0]["steps"] == [
        {"name": "status", "status": "passed"},
        {"name": "$.a", "status": "failed", "extra": {"message": "expected 1"}},
    ]
    (case,) = read_ctrf(io.BytesIO(report), ReadOptions())
    assert case.assertions == assertions


def test_ctrf_is_json_whatever_the_texts_hold():
    report = json.loads(ctrf_json(an_outcome(record(EVERY_CHARACTER, details=EVERY_CHARACTER))))

    assert report["results"]["tests"][0]["name"] == EVERY_CHARACTER


def test_a_report_is_written_whole_and_replaces_the_one_before(tmp_path):
    path = tmp_path / "reports" / "out.xml"
    report = ReportFile(path=path, form=lambda _: b"new")

    report.check()
    path.write_bytes(b"old and longer")
    report.check()
    assert path.read_bytes() == b"old and longer"
    report.write(an_outcome())

    assert path.read_bytes() == b"new"
    assert [each.name for each in path.parent.iterdir()] == ["out.xml"]


def test_a_report_that_fails_leaves_the_one_before(tmp_path):
    path = tmp_path / "out.xml"
    path.write_bytes(b"old")

    def broken(_):
        raise OSError("disk on fire")

    with pytest.raises(DependencyUnavailable, match="disk on fire"):
        ReportFile(path=path, form=broken).write(an_outcome())

    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"old"]


def test_a_report_that_cannot_be_written_is_refused_before(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(InvalidRequest, match="could not be written"):
        ReportFile(path=tmp_path / "file" / "out.xml", form=junit_xml).check()
    with pytest.raises(InvalidRequest, match="is a directory"):
        ReportFile(path=tmp_path, form=junit_xml).check()
