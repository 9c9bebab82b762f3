"""Resident sessions that measure coverage, with the coverage.py of this interpreter."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fleetest.common.states import Verdict
from fleetest.common.tasks import Coverage
from tests.support.line_sets import bits_of
from tests.tools.local_worker import RecordingReporter, assignment, make_spec, opened, run_cases, suite

COVERED = Coverage(source=(".",))
CONFIG = "[run]\npatch = subprocess\n"


def measured_files(blobs: Path, *reporters: RecordingReporter) -> set[str]:
    """Of which something was executed, by all data files that were handed in."""
    found = set()
    for artifact in (artifact for reporter in reporters for artifact in reporter.stored):
        if "/.coverage." in artifact.path:
            with sqlite3.connect(blobs / artifact.digest) as data:
                found |= {
                    Path(path).name for (path,) in data.execute("SELECT path FROM file JOIN line_bits ON id=file_id")
                }
            data.close()
    return found


async def test_all_that_a_session_and_its_processes_execute_is_handed_in_when_the_last_attempt_ends(
    tmp_path: Path,
) -> None:
    workspace = suite(
        tmp_path / "w",
        shop="""
            def open_(): return 1
            def close(): return 2
        """,
        child="print('hello')",
        conftest="""
            import shop
            import pytest
            @pytest.fixture(scope="session")
            def opened():
                yield shop.open_()
                shop.close()
            def pytest_unconfigure():
                import at_the_end
        """,
        at_the_end="over = True",
        test_a="""
            import subprocess, sys
            def test_1(opened): subprocess.run([sys.executable, "child.py"], check=True)
            def test_2(opened): pass
        """,
    )
    (workspace / ".coveragerc").write_text(CONFIG)
    spec = make_spec(workspace, coverage=COVERED, env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})

    async with opened(spec, blobs=tmp_path / "blobs") as session:
        first, second = RecordingReporter(), RecordingReporter()
        session.submit(assignment(spec, ["test_a.py::test_1"], token=1), first)
        future = session.submit(assignment(spec, ["test_a.py::test_2"], token=2), second)
        session.flush()
        ended = await future

    assert ended.verdict is Verdict.COMPLETED
    assert (first.problems, second.problems) == ([], [])
    assert measured_files(tmp_path / "blobs", first, second) == {
        "shop.py",
        "child.py",
        "conftest.py",
        "test_a.py",
        "at_the_end.py",
    }
    shop = {**first.covered, **second.covered}["shop.py"]  # told once, by whichever attempt was the next to end
    assert shop.lines == shop.covered == bits_of([2, 3])


async def test_where_coverage_cannot_be_measured_the_attempt_says_what_to_install(tmp_path: Path) -> None:
    suite(tmp_path / "absent", coverage="raise ImportError('there is none')")
    workspace = suite(tmp_path / "w", test_a="def test(): pass")
    spec = make_spec(workspace, coverage=COVERED, env={"PYTHONPATH": str(tmp_path / "absent")})

    async with opened(spec) as session:
        ended, _ = await run_cases(session, spec, ())

    assert ended.verdict is Verdict.FAILED
    assert "coverage.py cannot be imported: there is none; `setup: pip install coverage` installs it" in ended.reason


async def test_configuration_that_coverage_refuses_is_told(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="def test(): pass")
    spec = make_spec(workspace, coverage=Coverage(config="absent.toml"))

    async with opened(spec) as session:
        ended, _ = await run_cases(session, spec, ())

    assert "coverage.py refuses its configuration" in ended.reason
    assert "absent.toml" in ended.reason


async def test_what_is_lost_with_a_process_is_told(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="import os\ndef test(): os.kill(os.getpid(), 9)")
    spec = make_spec(workspace, coverage=COVERED, env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})

    async with opened(spec, blobs=tmp_path / "blobs") as session:
        _, reporter = await run_cases(session, spec, ["test_a.py::test"])

    assert reporter.problems == [
        "coverage is not complete: the process of the tests was ended before it had handed in all"
    ]
    assert reporter.problems[0] in reporter.text
