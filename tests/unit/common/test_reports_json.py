"""Reports in JSON: CTRF, k6, ZAP and SARIF. Those of k6 and ZAP are made by hand, see `made_by_hand/README.md`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from fleetest.common.reports import ReadOptions, Risk, read_report, read_report_file
from fleetest.common.reports.k6_thresholds import Samples, parse_threshold
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome

BY_HAND = Path(__file__).parent / "made_by_hand"


def read(document: Any, **options: Any) -> list[CaseResult]:
    return list(read_report(BytesIO(json.dumps(document).encode()), name="r.json", options=ReadOptions(**options)))


def by_hand(name: str, **options: Any) -> dict[str, CaseResult]:
    cases = read_report_file(BY_HAND / name, name=name, options=ReadOptions(**options))
    return {case.case_id: case for case in cases}


def outcomes(cases: dict[str, CaseResult]) -> dict[str, str]:
    return {case_id: case.outcome.value for case_id, case in cases.items()}


# -- CTRF


def test_ctrf_tests_become_cases() -> None:
    test = {
        "name": "buys",
        "suite": ["shop", "basket"],
        "status": "failed",
        "duration": 1500,
        "start": 1767323045000,
        "message": "41 != 42\nreally",
        "trace": "at X",
        "filePath": "./shop.ts",
        "line": 42,
        "stdout": ["a", "b"],
        "tags": ["smoke"],
        "labels": {"priority": "P1", "owners": ["qa", "dev"]},
        "retries": 2,
        "flaky": True,
        "browser": "chromium",
        "attachments": [{"name": "shot", "contentType": "image/png", "path": "shot.png"}],
    }
    odd = {"name": "odd", "suite": "a > b", "status": "other", "rawStatus": "interrupted", "duration": "soon"}

    cases = read({"reportFormat": "CTRF", "results": {"tool": {"name": "t"}, "tests": [test, odd, 7]}})

    buys, strange, nothing = cases
    assert (buys.case_id, buys.outcome, buys.message) == ("shop::basket::buys", Outcome.FAILED, "41 != 42")
    assert (buys.duration, buys.started_at) == (timedelta(seconds=1.5), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert (buys.file, buys.line, buys.stdout, buys.details) == ("shop.ts", 42, "a\nb", "at X")
    assert buys.properties == {
        "browser": "chromium",
        "tags": "smoke",
        "priority": "P1",
        "owners": "qa, dev",
        "attachment": "shot.png",
        "flaky": "true",
        "attempts": "3",
    }
    assert (strange.case_id, strange.outcome, strange.message) == (
        "a > b::odd",
        Outcome.ERROR,
        "ended as 'interrupted'",
    )
    assert (nothing.case_id, nothing.outcome) == ("unnamed", Outcome.ERROR)


# -- k6


@pytest.mark.parametrize("name", ["k6-handle-summary.json", "k6-summary-export.json"])
def test_thresholds_and_checks_of_a_k6_summary_become_cases(name: str) -> None:
    cases = by_hand(name)

    assert outcomes(cases) == {
        "thresholds::http_req_duration: p(95)<500": "failed",
        "thresholds::http_req_duration: avg < 200": "passed",
        "thresholds::http_req_failed: rate<0.05": "passed",
        "checks::status is 200": "failed",
        "checks::basket::has a total": "passed",
    }
    crossed = cases["thresholds::http_req_duration: p(95)<500"]
    assert crossed.message == "http_req_duration should be p(95)<500, and it is 512.3"
    assert cases["thresholds::http_req_failed: rate<0.05"].properties == {"value": "0.01"}
    assert cases["checks::status is 200"].message == "failed 3 of 100 times"


def test_the_newest_k6_summary_has_checks_only() -> None:
    assert outcomes(by_hand("k6-machine-readable.json")) == {
        "checks::has a total": "passed",
        "checks::status is 200": "failed",
    }


def test_a_threshold_on_checks_decides_how_many_may_fail() -> None:
    summary = json.loads((BY_HAND / "k6-handle-summary.json").read_text())
    summary["metrics"] = {"checks": {"values": {"rate": 0.985}, "thresholds": {"rate>0.9": {"ok": True}}}}

    cases = {case.case_id: case for case in read(summary)}

    assert cases["checks::status is 200"].outcome is Outcome.PASSED
    assert cases["checks::status is 200"].message == "failed 3 of 100 times"


def test_samples_of_k6_are_judged_by_the_thresholds_that_they_declare() -> None:
    cases = by_hand("k6-samples.json")

    assert outcomes(cases) == {
        "thresholds::http_reqs: rate>5": "passed",
        "thresholds::http_req_duration: p(95)<90": "failed",
        "thresholds::http_req_duration: avg<60": "passed",
        "thresholds::http_req_duration: med<=50.5": "passed",
        "checks::status is 200": "failed",
        "checks::basket::has a total": "passed",
    }
    crossed = cases["thresholds::http_req_duration: p(95)<90"]
    assert crossed.message == "http_req_duration should be p(95)<90, and it is 95.05"
    assert cases["checks::status is 200"].message == "failed 1 of 100 times"


@pytest.mark.parametrize(
    ("source", "kind", "value"),
    [
        ("count == 4", "counter", 10.0),
        ("count>1", "trend", 4.0),
        ("rate>0.5", "rate", 0.75),
        ("rate<100", "counter", 5.0),
        ("min>=0", "trend", 0.0),
        ("max<7", "trend", 5.0),
        ("value!=1", "gauge", 5.0),
        ("avg===2.5", "trend", 2.5),
    ],
)
def test_aggregations_are_those_of_k6(source: str, kind: str, value: float) -> None:
    samples = Samples(kind)
    for sample in (0.0, 1.0, 4.0, 5.0):
        samples.add(sample)
    threshold = parse_threshold(source)
    assert threshold is not None

    assert samples.value(threshold, timedelta(seconds=2)) == value


@pytest.mark.parametrize("source", ["", "p(95)", "p95<5", "stddev<5", "avg<abc", "avg<1e5", "a" * 1000])
def test_what_is_no_threshold_is_not_judged(source: str) -> None:
    assert parse_threshold(source) is None


# -- ZAP and SARIF


def test_alerts_of_zap_fail_from_the_asked_risk_on() -> None:
    cases, strict = by_hand("zap-traditional.json"), by_hand("zap-traditional.json", fail_level=Risk.LOW)

    assert outcomes(cases) == {
        "http://shop.test:8080::Cross Site Scripting (Reflected) [40012-1]": "failed",
        "http://shop.test:8080::X-Content-Type-Options Header Missing [10021]": "passed",
        "http://shop.test:8080::Absence of Anti-CSRF Tokens [10202]": "skipped",
        "https://pay.test::(no alerts)": "passed",
    }
    assert strict["http://shop.test:8080::X-Content-Type-Options Header Missing [10021]"].outcome is Outcome.FAILED
    script = cases["http://shop.test:8080::Cross Site Scripting (Reflected) [40012-1]"]
    assert script.message == "High (Medium): 1 found"
    assert script.details.startswith(
        "Whatever is searched for is sent back & run.\nBy everybody.\n\nGET http://shop.test"
    )
    assert "attack: <scrIpt>alert(1);</scRipt>" in script.details
    assert script.properties == {"risk": "high", "confidence": "2", "cwe": "79", "wasc": "8", "plugin": "40012"}


def test_results_of_sarif_fail_from_the_asked_level_on() -> None:
    cases = by_hand("zap-sarif.json")

    assert outcomes(cases) == {
        "40012::http://shop.test:8080/search?q=x": "failed",
        "10021::http://shop.test:8080/": "passed",  # its rule, which comes later, says `note`
        "10202::http://shop.test:8080/login": "skipped",
    }
    script = cases["40012::http://shop.test:8080/search?q=x"]
    assert (script.line, script.message) == (12, "Whatever is searched for is sent back.")
    assert script.properties == {"level": "error", "risk": "high", "tool": "ZAP"}
    assert cases["10202::http://shop.test:8080/login"].message == "suppressed: behind the proxy"


def test_kinds_and_baselines_of_sarif_are_observed() -> None:
    results = [
        {"ruleId": "a", "kind": "pass"},
        {"ruleId": "b", "kind": "notApplicable"},
        {"ruleId": "c", "kind": "review"},
        {"ruleId": "d", "level": "error", "baselineState": "absent"},
        {"ruleId": "e", "level": "error", "suppressions": [{"kind": "external", "status": "rejected"}]},
        {"message": {"text": "neither rule nor level"}},
    ]
    runs = [{"tool": {"driver": {"name": "lint"}}, "results": results}, {"tool": {"driver": {"name": "clean"}}}]

    cases = read({"version": "2.1.0", "runs": runs})

    assert [(case.case_id, case.outcome.value) for case in cases] == [
        ("a", "passed"),
        ("b", "skipped"),
        ("c", "failed"),
        ("d", "passed"),
        ("e", "failed"),
        ("lint", "failed"),
        ("clean::(no results)", "passed"),
    ]
