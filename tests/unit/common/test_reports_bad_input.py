"""Reports that nobody should have written: each is answered by a case that says what is wrong and where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetest.common.limits import MAX_RESULT_TEXT_BYTES
from fleetest.common.reports import ReportFormat, json_values, read_report, read_report_file, reading, xml_events
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome

BY_HAND = Path(__file__).parent / "made_by_hand"

BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><testsuite><testcase name="&b;"/></testsuite>'
EXTERNAL = (
    '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><testsuite><testcase name="a">&a;</testcase></testsuite>'
)

GOOD: dict[str, bytes] = {
    "junit": b'<testsuite name="S"><testcase name="a"><failure message="m">t</failure></testcase><testcase name="b"/></testsuite>',
    "ctrf": b'{"reportFormat": "CTRF", "results": {"tool": {"name": "t"}, "tests": [{"name": "a", "status": "failed", "start": 1}]}}',
    "robot": (BY_HAND / "robot-6.xml").read_bytes(),
    "k6": (BY_HAND / "k6-handle-summary.json").read_bytes(),
    "k6-stream": b"".join((BY_HAND / "k6-samples.json").read_bytes().splitlines(keepends=True)[:15]),
    "zap": (BY_HAND / "zap-traditional.json").read_bytes(),
    "sarif": (BY_HAND / "zap-sarif.json").read_bytes(),
}


def read(content: str | bytes, form: str = "") -> list[CaseResult]:
    stream = BytesIO(content if isinstance(content, bytes) else content.encode())
    return list(read_report(stream, name="r", form=ReportFormat(form) if form else None))


@pytest.mark.parametrize(
    ("content", "message", "line"),
    [
        ("", "r: it is empty", 0),
        (" \n ", "r: it is empty", 0),
        ("no report at all", "r:1: neither XML nor a JSON object", 1),
        (b"\x00\xff\x00\xfe", "r:1: neither XML nor a JSON object", 1),
        ("<testsuite>\n<testcase>\n</testsuite>", "r:3: not XML: mismatched tag", 3),
        ("<testsuite>", "r:1: not XML: no element found", 1),
        ("<html/>", "r:1: no report that can be read: its root is <html>, not one of <robot>, <testsuites>", 1),
        ("<", "r:1: not XML", 1),
        ("<?xml?>" + " " * 100_000 + "&", "r:1: not XML", 1),
        ("<testsuite name='x'>" * 1001, "r:1: elements are nested deeper than 1000", 1),
        ("<testsuite>\n<testcase name='\xff'/>".encode("latin-1"), "r:2: not XML: not well-formed", 2),
        (BOMB, "r:1: a document type or an entity is declared (DTDForbidden)", 1),
        (EXTERNAL, "r:1: a document type or an entity is declared (DTDForbidden)", 1),
        ('<?xml version="1.0" encoding="no-such"?><testsuite/>', "r: not readable as XML: unknown encoding", 0),
        ("<testsuite/>\njunk", "r:2: not XML: syntax error", 2),
        ('{"a": 1}', "r:1: no report that can be read: it is JSON, but of none of the formats junit, ctrf", 1),
        ('{"a": ', "r: not JSON", 0),
        ('{"a": NaN, "results": {}}', "r: not JSON", 0),
        ('{"results": {"tests": [{"name": "a", "status": "passed"}, {"na', "r: not JSON", 0),
        (b'{"results": {"tests": [{"name": "\xff\xff"}]}}', "r: not", 0),
        ('{"type": "Point", "metric": "m", "data": {}}\n{"type": 7}\n', "r:2: the line is no sample of k6", 2),
        ('{"type": "Point", "metric": "m", "data": {}}\n{"ty', "r:2: not JSON", 2),
    ],
)
def test_what_is_no_report_is_an_error_that_says_why_and_where(content: str | bytes, message: str, line: int) -> None:
    case = read(content)[-1]

    assert (case.case_id, case.outcome, case.file, case.line) == ("r", Outcome.ERROR, "r", line)
    assert case.message.startswith(message)


@pytest.mark.parametrize("form", list(GOOD))
def test_the_format_is_found_out(form: str) -> None:
    assert read(GOOD[form]) == read(GOOD[form], form)
    assert not any(case.case_id == "r" for case in read(GOOD[form]))


@pytest.mark.parametrize(("form", "other"), [(form, other) for form in GOOD for other in GOOD if form != other])
def test_a_report_of_another_format_than_was_said_is_an_error(form: str, other: str) -> None:
    assert read(GOOD[other], form)[-1].outcome is Outcome.ERROR


@pytest.mark.parametrize("form", list(GOOD))
def test_what_comes_before_the_place_where_a_report_is_cut_short_counts(form: str) -> None:
    whole, cut = read(GOOD[form], form), read(GOOD[form][:-10], form)

    assert cut[-1].case_id == "r"
    assert cut[-1].outcome is Outcome.ERROR
    if form not in {"k6", "k6-stream"}:  # of which nothing is known before the end
        assert cut[:-1] == whole[: len(cut) - 1]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_reports_in_other_encodings_of_unicode_are_read(encoding: str) -> None:
    (case,) = read('<?xml version="1.0"?><testsuite><testcase name="é"/></testsuite>'.encode(encoding))

    assert case.case_id == "é"


def test_absent_and_huge_reports_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (absent,) = read_report_file(tmp_path / "no.xml", name="no.xml")
    monkeypatch.setattr(reading, "MAX_REPORT_BYTES", 3)
    (tmp_path / "r.xml").write_text("<testcase/>")
    (huge,) = read_report_file(tmp_path / "r.xml", name="r.xml")

    assert absent.message == "no.xml: cannot be read: No such file or directory"
    assert "larger than" in huge.message


@pytest.mark.parametrize("time", ["nan", "inf", "-1", "1e300", "1e999", "", "1.2.3", "٣", "9" * 5000])
def test_nonsense_durations_lines_and_times_are_nothing(time: str) -> None:
    (junit,) = read(f"<testcase name='a' time='{time}' line='{time}' timestamp='{time}'/>")
    ctrf = read(json.dumps({"results": {"tests": [{"duration": time, "line": time, "start": time, "name": "a"}]}}))

    for case in (junit, ctrf[0]):
        assert (case.duration, case.line, case.started_at) == (timedelta(), 0, None)


@pytest.mark.parametrize(
    "number", ["-5", "1e400", "123456789012345678901234567890", "99999999999999999999", "true", "null"]
)
def test_nonsense_numbers_in_json_are_nothing(number: str) -> None:
    cases = read(
        f'{{"results": {{"tests": [{{"duration": {number}, "line": {number}, "start": {number}, "name": "a"}}]}}}}'
    )

    assert cases[0].duration == timedelta()
    assert cases[0].started_at is None


def test_times_to_come_are_not_believed() -> None:
    ahead = (datetime.now(UTC) + timedelta(days=3)).isoformat()

    soon, never = read(
        f"<testsuite><testcase name='a' timestamp='{datetime.now(UTC).isoformat()}'/>"
        f"<testcase name='b' timestamp='{ahead}'/></testsuite>"
    )

    assert soon.started_at is not None
    assert never.started_at is None


@pytest.mark.parametrize(
    ("limit", "value", "content", "message"),
    [
        ("MAX_DEPTH", 5, "<testsuite>" * 6, "nested deeper than 5"),
        ("MAX_NAMES", 5, "<testsuite><a/><b/><c/><d/><e/></testsuite>", "more than 5 different names"),
        ("MAX_DOCUMENTS", 3, "<testsuite/>" * 5, "more than 3 documents"),
        (
            "MAX_TAG_BYTES",
            1 << 16,
            f"<testsuite><testcase name='{'x' * (1 << 18)}'/></testsuite>",
            "a tag is longer than",
        ),
    ],
)
def test_xml_has_bounds(monkeypatch: pytest.MonkeyPatch, limit: str, value: int, content: str, message: str) -> None:
    monkeypatch.setattr(xml_events, limit, value)

    assert message in read(content)[-1].message


@pytest.mark.parametrize(
    ("limit", "value", "tests", "message"),
    [
        ("MAX_DEPTH", 20, "[" * 30, "nested deeper than 20"),
        (
            "MAX_PARTS",
            20,
            json.dumps([{"labels": dict.fromkeys(map(str, range(20)), 1)}]),
            "a single entry has more than 20",
        ),
        ("MAX_CHARACTERS", 100, json.dumps([{"name": "x" * 200}]), "a single entry has more than"),
        ("MAX_UNBROKEN_BYTES", 1 << 18, json.dumps([{"name": "x" * (1 << 20)}]), "a text is longer than"),
    ],
)
def test_json_has_bounds(monkeypatch: pytest.MonkeyPatch, limit: str, value: int, tests: str, message: str) -> None:
    monkeypatch.setattr(json_values, limit, value)

    assert message in read('{"results": {"tests": ' + tests + "}}", "ctrf")[-1].message


def test_a_report_has_only_so_many_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_CASES_PER_TASK", 3)

    cases = read("<testsuite>" + "<testcase name='a'/>" * 5 + "</testsuite>")

    assert [case.case_id for case in cases] == ["a", "a #2", "a #3", "r"]


def test_many_equal_names_take_no_longer_than_different_ones() -> None:
    cases = read("<testsuite>" + "<testcase name='a'/>" * 5_000 + "</testsuite>")

    assert cases[-1].case_id == "a #5000"


def test_json_whose_keys_look_like_places_in_lists_is_not_taken_for_a_list() -> None:
    cases = read('{"results": {"tool": {}, "tests": {"[]": {"[]": [1]}}}}')

    assert [case.outcome for case in cases] == [Outcome.ERROR]


# -- whatever bytes there are

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "results",
                    "tests",
                    "tool",
                    "runs",
                    "driver",
                    "rules",
                    "site",
                    "alerts",
                    "@name",
                    "metrics",
                    "root_group",
                    "checks",
                    "groups",
                    "thresholds",
                    "type",
                    "metric",
                    "data",
                    "value",
                    "time",
                    "tags",
                    "name",
                    "status",
                    "duration",
                    "start",
                    "suite",
                    "instances",
                    "riskcode",
                    "message",
                    "locations",
                    "level",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


def _spoilt(content: bytes, cuts: list[tuple[int, bytes]]) -> bytes:
    for place, piece in cuts:
        at = place % (len(content) + 1)
        content = content[:at] + piece + content[at + len(piece) // 2 :]
    return content


def _sound(cases: Iterator[CaseResult]) -> None:
    """Nothing is raised, and every result is one that can be stored and sent."""
    ids = set()
    for case in cases:
        texts = (case.message, case.details, case.stdout, case.stderr, case.log)
        assert all(len(text.encode()) <= MAX_RESULT_TEXT_BYTES for text in texts)
        assert (
            sum(len(key.encode()) + len(value.encode()) for key, value in case.properties.items())
            <= MAX_RESULT_TEXT_BYTES
        )
        assert 0 < len(case.case_id.encode()) <= 1020
        assert "\n" not in case.case_id
        assert "\n" not in case.message
        assert case.duration >= timedelta()
        assert 0 <= case.line < 2**31
        assert case.case_id not in ids
        ids.add(case.case_id)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    good=st.sampled_from(sorted(GOOD)),
    cuts=st.lists(
        st.tuples(st.integers(0, 5000), st.binary(max_size=12) | st.sampled_from([b"<", b"}", b"&a;", b"\x00"])),
        max_size=4,
    ),
    form=st.sampled_from([None, *ReportFormat]),
)
def test_spoilt_reports_never_raise(good: str, cuts: list[tuple[int, bytes]], form: ReportFormat | None) -> None:
    _sound(read_report(BytesIO(_spoilt(GOOD[good], cuts)), name="r", form=form))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    documents=st.lists(_JSON, min_size=1, max_size=3),
    form=st.sampled_from(
        [None, ReportFormat.CTRF, ReportFormat.K6, ReportFormat.K6_STREAM, ReportFormat.ZAP, ReportFormat.SARIF]
    ),
)
def test_json_of_any_shape_never_raises(documents: list[Any], form: ReportFormat | None) -> None:
    content = "\n".join(json.dumps(document) for document in documents).encode()

    _sound(read_report(BytesIO(content), name="r", form=form))
