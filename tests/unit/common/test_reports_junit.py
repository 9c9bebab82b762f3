"""JUnit XML in its dialects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest

from fleetest.common.limits import MAX_RESULT_TEXT_BYTES
from fleetest.common.reports import ReadOptions, read_report
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome

Read = Callable[..., list[CaseResult]]


@pytest.fixture
def read() -> Read:
    def read(content: str | bytes, **options: str) -> list[CaseResult]:
        stream = BytesIO(content if isinstance(content, bytes) else content.encode())
        return list(read_report(stream, name="r.xml", options=ReadOptions(**options)))

    return read


def test_verdicts_texts_and_places_are_read(read: Read) -> None:
    cases = read("""<?xml version="1.0"?>
        <testsuites><testsuite><testsuite>
          <testcase classname="pkg.A" name="ok" time="1,234.5" file="a.py" line="7" timestamp="2026-01-02T03:04:05Z">
            <system-out>out</system-out><system-err>err</system-err>
            <properties><property name="colour" value="blue"/><property name="size">large</property></properties>
          </testcase>
          <testcase name="bad" time="0,25"><failure message="expected 1&#10;got 2" type="E">trace</failure></testcase>
          <testcase name="broken" time="soon"><error type="Boom"/></testcase>
          <testcase name="left"><skipped>not here</skipped></testcase>
          <testcase name="known"><skipped type="pytest.xfail" message="bug 7"/></testcase>
          <testcase/>
        </testsuite></testsuite></testsuites>""")

    ok, bad, broken, left, known, unnamed = cases
    assert (ok.case_id, ok.outcome, ok.file, ok.line) == ("pkg.A::ok", Outcome.PASSED, "a.py", 7)
    assert (ok.duration, ok.started_at) == (timedelta(seconds=1234.5), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert (ok.stdout, ok.stderr, ok.properties) == ("out", "err", {"colour": "blue", "size": "large"})
    assert (bad.outcome, bad.message, bad.details) == (Outcome.FAILED, "expected 1", "trace")
    assert bad.duration == timedelta(seconds=0.25)
    assert (broken.outcome, broken.message, broken.duration) == (Outcome.ERROR, "Boom", timedelta())
    assert (left.outcome, left.message) == (Outcome.SKIPPED, "not here")
    assert (known.outcome, known.message) == (Outcome.XFAILED, "bug 7")
    assert unnamed.case_id == "unnamed"


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        ('<testsuite xmlns="urn:x"><testcase name="a"/></testsuite>', ["a"]),
        ('<testcase name="a"/>', ["a"]),
        ("<testsuites/>", []),
        ('<testsuite name="S"><testsuite name="T"><testcase name="a"/></testsuite></testsuite>', ["S.T::a"]),
        ('<testsuite name="S"><testcase classname="C" name="a"/></testsuite>', ["C::a"]),
        ('<testcase classname="adds up" name="adds up"/>', ["adds up"]),
        ('<testcase classname="pkg.A" name="pkg.A.test_b"/>', ["pkg.A.test_b"]),
        (
            '<testsuite><testcase name="a"/><testcase name="a"/><testcase name="a #2"/></testsuite>',
            ["a", "a #2", "a #2 #2"],
        ),
        ('<testsuite><testcase name="a&#10;b"/></testsuite>', ["a b"]),
    ],
)
def test_cases_are_named_by_class_or_suite_and_told_apart(read: Read, content: str, ids: list[str]) -> None:
    assert [case.case_id for case in read(content)] == ids


def test_suites_without_a_root_are_read_one_after_the_other(read: Read) -> None:
    declared = '<?xml version="1.0"?>\n<testsuite><testcase name="a"/></testsuite>\n'
    plain = '<testsuite>\n<testcase name="b"/></testsuite>\n<testsuite><testcase name="c"></testsuite>'

    *cases, problem = read(declared * 2 + plain)

    assert [case.case_id for case in cases] == ["a", "a #2", "b"]
    assert problem.message == "r.xml:7: not XML: mismatched tag"


def test_reruns_tell_what_was_flaky(read: Read) -> None:
    flaky, failed = read("""<testsuite>
        <testcase name="flaky"><flakyFailure message="too slow" type="T"><stackTrace>at X</stackTrace><system-out>no
          </system-out></flakyFailure><flakyError message="gone"/></testcase>
        <testcase name="failed"><failure message="no">first</failure><rerunFailure message="no">again</rerunFailure>
          </testcase></testsuite>""")

    assert (flaky.outcome, flaky.properties) == (Outcome.PASSED, {"attempts": "3", "flaky": "true"})
    assert flaky.details == "attempt 1: too slow\nat X\n\nattempt 2: gone\n"
    assert (failed.outcome, failed.properties) == (Outcome.FAILED, {"attempts": "2"})
    assert failed.details == "first\n\nattempt 1: no\nagain"


def test_attachments_suites_that_failed_and_tests_not_run_are_found(read: Read) -> None:
    attached, not_run, suite = read("""<testsuite name="S">
        <testcase name="a"><system-out>[[ATTACHMENT|shots/1.png]]\n[[ATTACHMENT|shots/2.png]]</system-out></testcase>
        <testcase name="b" status="notrun"/>
        <error message="no fixture">trace</error></testsuite>""")

    assert attached.properties == {"attachment": "shots/1.png", "attachment 2": "shots/2.png"}
    assert not_run.outcome is Outcome.SKIPPED
    assert (suite.case_id, suite.outcome, suite.message, suite.details) == (
        "S::(suite)",
        Outcome.ERROR,
        "no fixture",
        "trace",
    )


def test_files_below_the_workspace_are_named_relative_to_it(read: Read) -> None:
    (case,) = read('<testcase name="a" file="/src/tests/a.py"/>', root="/src")

    assert case.file == "tests/a.py"


def test_long_texts_are_cut_and_long_names_stay_different(read: Read) -> None:
    out = "é" * 5 * MAX_RESULT_TEXT_BYTES
    a, b = read(
        f"<testsuite><testcase name='{'x' * 2000}1'><system-out>{out}</system-out></testcase>"
        f"<testcase name='{'x' * 2000}2'/></testsuite>"
    )

    assert a.truncated
    assert len(a.stdout.encode()) <= MAX_RESULT_TEXT_BYTES
    assert "cut out" in a.stdout
    assert a.case_id[:900] == b.case_id[:900]
    assert a.case_id != b.case_id
    assert len(a.case_id) <= 1000


def test_report_of_playwright_test_tells_file_title_and_attachments(read: Read) -> None:
    failed, passed, skipped = (
        read("""<testsuites id="" name="" tests="3" failures="1" skipped="1" errors="0" time="2.1">
        <testsuite name="shop.spec.ts" timestamp="2026-11-02T10:00:00.000Z" hostname="chromium" tests="3" failures="1"
            skipped="1" time="1.9" errors="0">
          <testcase name="[chromium] › buying › sells the last one" classname="shop.spec.ts" time="1.25">
            <failure message="shop.spec.ts:7:5 sells the last one" type="FAILURE"><![CDATA[  [chromium] › shop.spec.ts:7:5
    Error: expect(locator).toBeVisible() failed]]></failure>
            <system-out><![CDATA[
[[ATTACHMENT|test-results/shop-buying-chromium/trace.zip]]
]]></system-out>
          </testcase>
          <testcase name="[chromium] › buying › greets" classname="shop.spec.ts" time="0.4"></testcase>
          <testcase name="[chromium] › paying" classname="shop.spec.ts" time="0"><skipped></skipped></testcase>
        </testsuite></testsuites>""")
    )

    assert failed.case_id == "shop.spec.ts::[chromium] › buying › sells the last one"
    assert [case.outcome for case in (failed, passed, skipped)] == [Outcome.FAILED, Outcome.PASSED, Outcome.SKIPPED]
    assert failed.properties["attachment"] == "test-results/shop-buying-chromium/trace.zip"
    assert "toBeVisible() failed" in failed.details
