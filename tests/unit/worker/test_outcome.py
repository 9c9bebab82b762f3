from types import SimpleNamespace
from typing import Any

import pytest

from fleetest.worker.resident.outcome import bounded, collected_result, combine, reason_of_skip, result


def report(when: Any = "call", outcome: str = "passed", longrepr: Any = None, **more: Any) -> Any:
    values = {"duration": 0.5, "sections": [], "user_properties": [], "longreprtext": str(longrepr or "")}
    return SimpleNamespace(when=when, outcome=outcome, longrepr=longrepr, **{**values, **more})


SETUP, CALL, TEARDOWN = report("setup"), report("call"), report("teardown")
SKIPPED = report(outcome="skipped", longrepr=("a.py", 3, "Skipped: why"))


@pytest.mark.parametrize(
    ("reports", "outcome"),
    [
        ([SETUP, CALL, TEARDOWN], "passed"),
        ([SETUP, report(outcome="failed"), TEARDOWN], "failed"),
        ([report("setup", "failed"), TEARDOWN], "error"),
        ([SETUP, CALL, report("teardown", "failed")], "error"),
        ([SETUP, report(outcome="failed"), report("teardown", "failed")], "failed"),
        ([SETUP, SKIPPED, report("teardown", "failed")], "error"),
        ([report("setup", "skipped"), TEARDOWN], "skipped"),
        ([SETUP, CALL, report("teardown", "skipped")], "skipped"),
        ([SETUP, report(outcome="skipped", wasxfail=""), TEARDOWN], "xfailed"),
        ([SETUP, report(wasxfail=""), TEARDOWN], "xpassed"),
        ([SETUP, report(outcome="failed", context=1), CALL, TEARDOWN], "failed"),
        ([SETUP, report(outcome="skipped", context=1), CALL, TEARDOWN], "passed"),
        ([SETUP, TEARDOWN], "passed"),
        ([report("setup", "rerun")], "error"),
        ([], "error"),
    ],
)
def test_reports_come_to_the_outcome_that_pytest_counts(reports: Any, outcome: str) -> None:
    assert combine(reports)[0] == outcome
    assert result("id", ("", 0), reports, 100)["outcome"] == outcome


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (report(longrepr=("a.py", 1, "Skipped: why")), "why"),
        (report(longrepr=("a.py", 1, "Skipped")), ""),
        (report(longrepr=("a.py", 1, "bare")), "bare"),
        (report(longrepr="text"), "text"),
        (report(wasxfail="reason: known"), "known"),
        (report(wasxfail="known"), "known"),
    ],
)
def test_reason_of_a_skip_is_what_pytest_prints(told: Any, reason: str) -> None:
    assert reason_of_skip(told) == reason


@pytest.mark.parametrize(
    ("longrepr", "message"),
    [
        ("first\nlast\n\n", "last"),
        (SimpleNamespace(reprcrash=SimpleNamespace(message="assert 1\n + where")), "assert 1"),
        (None, ""),
    ],
)
def test_message_of_a_failure_is_one_line(longrepr: Any, message: str) -> None:
    assert result("id", ("", 0), [report(outcome="failed", longrepr=longrepr)], 100)["message"] == message


def test_result_holds_texts_properties_and_the_whole_duration() -> None:
    sections = [
        ("Captured stdout setup", "a"),
        ("Captured stdout call", "b"),
        ("Captured stderr call", "c"),
        ("Captured log call", "d"),
    ]
    last = report("teardown", sections=sections, user_properties=[("n", 1)])

    told = result("id", ("f.py", 7), [SETUP, CALL, last], 100)

    assert (told["stdout"], told["stderr"], told["log"]) == ("ab", "c", "d")
    assert (told["file"], told["line"], told["duration"], told["properties"]) == ("f.py", 7, 1.5, {"n": "1"})
    assert not told["truncated"]


@pytest.mark.parametrize(
    ("outcome", "longrepr", "expected"),
    [
        ("skipped", ("a.py", 3, "Skipped: why"), ("skipped", "why", 3)),
        ("skipped", "odd", ("skipped", "odd", 0)),
        ("failed", "head\nE   first\nE   ImportError: x\n", ("error", "ImportError: x", 0)),
        ("failed", "only this", ("error", "only this", 0)),
        ("failed", None, ("error", "could not be collected", 0)),
    ],
)
def test_collectors_have_results_too(outcome: str, longrepr: Any, expected: Any) -> None:
    told = collected_result("a.py", "a.py", report("collect", outcome, longrepr), 1000)

    assert (told["outcome"], told["message"], told["line"]) == expected


@pytest.mark.parametrize("text", ["", "short", "é\udcff\x00", "x" * 100])
def test_short_texts_stay_whole(text: str) -> None:
    kept, cut = bounded(text, 100)

    assert not cut
    assert kept == text.encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize("text", ["x" * 101, "é" * 100, "\udcff" * 5000, "😀" * 60])
def test_long_texts_lose_their_middle(text: str) -> None:
    kept, cut = bounded(text, 100)

    assert cut
    assert "cut out" in kept
    assert len(kept.encode()) <= 100


def test_assertions_of_reports_are_told_as_far_as_there_is_room() -> None:
    told = [
        {"name": "status", "passed": True, "message": ""},
        {"name": "x", "passed": 0, "message": "y" * 5000},
        {"a": 1},
        3,
    ]
    call = report(fleetest_assertions=told)

    whole = result("id", ("", 0), [SETUP, call, TEARDOWN], 10_000)["assertions"]
    cut = result("id", ("", 0), [SETUP, call, TEARDOWN], 1000)["assertions"]
    many = result("id", ("", 0), [report(fleetest_assertions=told[:1] * 300)], 10_000)["assertions"]

    assert [each[:2] for each in whole] == [["status", True], ["x", False]]
    assert len(whole[1][2]) == 4000
    assert cut == [["status", True, ""]]
    assert len(many) == 200
