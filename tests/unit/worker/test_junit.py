from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fleetest.common.limits import MAX_RESULT_TEXT_BYTES
from fleetest.common.states import Outcome
from fleetest.worker.runners import junit
from fleetest.worker.runners.junit import read_report


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(content: Any) -> Any:
        path = tmp_path / "r.xml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_report(path, name="r.xml")

    return read


def test_verdicts_texts_and_places_are_read(read: Any) -> None:
    cases = read("""<?xml version="1.0"?>
        <testsuites><testsuite><testsuite>
          <testcase classname="pkg.A" name="ok" time="1,234.5" file="a.py" line="7">
            <system-out>out</system-out><system-err>err</system-err>
            <properties><property name="colour" value="blue"/></properties>
          </testcase>
          <testcase name="bad" time="0,25"><failure message="expected 1&#10;got 2" type="E">trace</failure></testcase>
          <testcase name="broken" time="soon"><error type="Boom"/></testcase>
          <testcase name="left"><skipped>not here</skipped></testcase>
          <testcase/>
        </testsuite></testsuite></testsuites>""")

    ok, bad, broken, left, unnamed = cases
    assert (ok.case_id, ok.outcome, ok.file, ok.line) == ("pkg.A::ok", Outcome.PASSED, "a.py", 7)
    assert (ok.duration, ok.stdout, ok.stderr, ok.properties) == (
        timedelta(seconds=1234.5),
        "out",
        "err",
        {"colour": "blue"},
    )
    assert (bad.outcome, bad.message, bad.details, bad.duration) == (
        Outcome.FAILED,
        "expected 1",
        "trace",
        timedelta(seconds=0.25),
    )
    assert (broken.outcome, broken.message, broken.duration) == (Outcome.ERROR, "Boom", timedelta())
    assert (left.outcome, left.message) == (Outcome.SKIPPED, "not here")
    assert unnamed.case_id == "unnamed"


def test_namespaces_and_a_bare_case_are_understood(read: Any) -> None:
    assert [case.case_id for case in read('<testsuite xmlns="urn:x"><testcase name="a"/></testsuite>')] == ["a"]
    assert [case.case_id for case in read('<testcase name="a"/>')] == ["a"]
    assert read("<testsuites/>") == []


def test_equal_ids_are_told_apart(read: Any) -> None:
    cases = read('<testsuite><testcase name="a"/><testcase name="a"/><testcase name="a #2"/></testsuite>')

    assert [case.case_id for case in cases] == ["a", "a #2", "a #2 #2"]


def test_long_texts_are_cut(read: Any) -> None:
    (case,) = read(f"<testcase name='a'><system-out>{'é' * MAX_RESULT_TEXT_BYTES}</system-out></testcase>")

    assert case.truncated
    assert len(case.stdout.encode()) <= MAX_RESULT_TEXT_BYTES
    assert "cut out" in case.stdout


@pytest.mark.parametrize("time", ["nan", "inf", "-1", "1e300", "", "1.2.3", "٣"])
def test_nonsense_durations_are_nothing(read: Any, time: Any) -> None:
    (case,) = read(f"<testcase name='a' time='{time}' line='٣'/>")

    assert (case.duration, case.line) == (timedelta(), 0)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><testsuite><testcase name="&b;"/></testsuite>'


@pytest.mark.parametrize(
    ("content", "message", "line"),
    [
        ("no xml at all", "r.xml:1: not XML: syntax error", 1),
        ("<testsuite>\n<testcase>\n</testsuite>", "r.xml:3: not XML: mismatched tag", 3),
        ("", "r.xml:1: not XML: no element found", 1),
        (b"\xff\x00\xfe", "r.xml:1: not XML: syntax error", 1),
        ("<html/>", "r.xml:1: not a JUnit report: its root is <html>", 1),
        (BOMB, "r.xml: not readable as XML: EntitiesForbidden", 0),
        ('<?xml version="1.0" encoding="no-such"?><a/>', "r.xml: not readable as XML: unknown encoding", 0),
    ],
)
def test_what_is_no_report_is_an_error_that_says_why_and_where(
    read: Any, content: Any, message: str, line: int
) -> None:
    (case,) = read(content)

    assert (case.case_id, case.outcome, case.file, case.line) == ("r.xml", Outcome.ERROR, "r.xml", line)
    assert case.message.startswith(message)


def test_absent_and_huge_reports_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (absent,) = read_report(tmp_path / "no.xml", name="no.xml")
    monkeypatch.setattr(junit, "MAX_REPORT_BYTES", 3)
    (tmp_path / "r.xml").write_text("<testcase/>")
    (huge,) = read_report(tmp_path / "r.xml", name="r.xml")

    assert absent.message == "no.xml: cannot be read: No such file or directory"
    assert "larger than" in huge.message
