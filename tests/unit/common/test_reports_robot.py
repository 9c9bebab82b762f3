"""Robot Framework's output: of the real one, and of older ones from files made by hand."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleetest.common.reports import ReadOptions, ReportFormat, read_report, read_report_file
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome

BY_HAND = Path(__file__).parent / "made_by_hand"

SUITE = """\
*** Settings ***
Suite Teardown    Fail    the shop is still open

*** Test Cases ***
Adds Up
    [Tags]    money    smoke
    Total Should Be    42

Gives Up On Purpose
    Skip    no basket today

Never Begins
    [Setup]    Fail    no server
    Log    not reached

Guards Itself
    TRY
        Fail    caught
    EXCEPT    caught
        Log    fine
    END

*** Keywords ***
Total Should Be
    [Arguments]    ${expected}
    FOR    ${number}    IN    1    41
        IF    ${number} > 1
            Log    looking at ${number}    WARN
            Should Be Equal As Integers    ${number}    ${expected}
        END
    END
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, CaseResult]]:
    """What the real Robot Framework says of a suite, by case."""
    folder = tmp_path_factory.mktemp("robot")
    (folder / "basket.robot").write_text(SUITE)
    command = [
        sys.executable,
        "-m",
        "robot",
        "--output",
        "out.xml",
        "--log",
        "NONE",
        "--report",
        "NONE",
        "basket.robot",
    ]
    subprocess.run(command, cwd=folder, check=False, capture_output=True, timeout=60)
    options = ReadOptions(root=str(folder))
    return folder, {
        case.case_id: case for case in read_report_file(folder / "out.xml", name="out.xml", options=options)
    }


def test_what_the_real_robot_writes_is_understood(real: tuple[Path, dict[str, CaseResult]]) -> None:
    _, cases = real

    assert {case_id: case.outcome.value for case_id, case in cases.items()} == {
        "Basket::Adds Up": "failed",
        "Basket::Gives Up On Purpose": "skipped",
        "Basket::Never Begins": "error",
        "Basket::Guards Itself": "passed",
        "Basket::(suite teardown)": "error",
    }
    failed = cases["Basket::Adds Up"]
    assert (failed.file, failed.line, failed.properties) == ("basket.robot", 5, {"tags": "money, smoke"})
    assert failed.message == "41 != 42"
    assert failed.details.splitlines()[1].startswith("in: Total Should Be > FOR > ITER > IF > BRANCH IF")
    assert failed.details.endswith("BuiltIn.Should Be Equal As Integers    ${number}    ${expected}")
    assert "WARN: looking at 41" in failed.log
    assert timedelta() < failed.duration < timedelta(minutes=1)
    assert failed.started_at is not None
    assert abs(failed.started_at - datetime.now(UTC)) < timedelta(minutes=10)
    assert cases["Basket::Gives Up On Purpose"].message == "no basket today"
    assert cases["Basket::(suite teardown)"].message == "the shop is still open"


def test_what_older_robots_wrote_is_understood() -> None:
    (adds_up,) = read_report_file(BY_HAND / "robot-3.xml", name="output.xml", options=ReadOptions(root="/src"))
    six = list(read_report_file(BY_HAND / "robot-6.xml", name="output.xml"))

    assert (adds_up.case_id, adds_up.outcome, adds_up.file) == (
        "Shop.Basket::Adds up",
        Outcome.FAILED,
        "shop/basket.robot",
    )
    assert (adds_up.duration, adds_up.properties) == (timedelta(seconds=0.5), {"tags": "money, smoke"})
    assert adds_up.details == "41 != 42\nin: shop.Total Should Be > BuiltIn.Should Be Equal    41    42"
    assert [(case.case_id, case.outcome.value, case.message) for case in six] == [
        ("Login::Guarded", "passed", ""),
        ("Login::Left out", "skipped", "no browser"),
        ("Login::Never logged in", "error", "Setup failed: refused"),
        ("Login::(suite teardown)", "error", "it was gone"),
    ]


class _Endless:
    """A report of many tests with a lot to say, made as it is read."""

    def __init__(self, tests: int) -> None:
        self._parts = self._made(tests)
        self.size_bytes = 0

    def read(self, size: int = -1) -> bytes:
        part = next(self._parts, b"")
        self.size_bytes += len(part)
        return part

    def seek(self, place: int) -> int:
        raise AssertionError(place)

    def _made(self, tests: int) -> Iterator[bytes]:
        yield b'<robot schemaversion="5"><suite name="S" source="/s">'
        message = b'<kw name="K"><msg level="INFO">' + b"x" * 2000 + b'</msg><status status="PASS" elapsed="1"/></kw>'
        for number in range(tests):
            yield b'<test name="t%d">' % number + message * 40 + b'<status status="PASS" elapsed="1"/></test>'
        yield b"</suite></robot>"


def test_a_large_report_needs_little_memory() -> None:
    stream = _Endless(tests=120)
    tracemalloc.start()

    cases = sum(1 for _ in read_report(stream, name="output.xml", form=ReportFormat.ROBOT))  # type: ignore[arg-type]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert cases == 120
    assert stream.size_bytes > 9 << 20
    assert peak_bytes < 3 << 20
