"""The resident session inside real environments: pytest 7, 8 and 9, and an old Python."""

import os
from pathlib import Path

import pytest

from fleetest.common.states import Verdict
from tests.tools.local_worker import make_spec, opened, run_cases, suite
from tests.tools.parity import differences, plain, resident

ROOT = Path(__file__).parents[2]
ORDINARY = Path(__file__).parent / "resident_suites" / "ordinary"


@pytest.fixture(params=["pytest7", "pytest8", "pytest9", "python38"])
def python(request: pytest.FixtureRequest) -> Path:
    found = ROOT / ".cache/venvs" / str(request.param) / "bin/python"
    if not found.exists():
        if os.environ.get("FLEETEST_TEST_ALL") and request.param != "python38":
            pytest.fail(f"{found} does not exist: run tests/tools/make_venvs.sh")
        pytest.skip(f"{found} does not exist: run tests/tools/make_venvs.sh")
    return found


@pytest.mark.parametrize("sessions", [1, 3])
async def test_every_outcome_equals_plain_pytests(python: Path, sessions: int) -> None:
    expected = plain(python, ORDINARY, ())

    found = await resident(python, ORDINARY, (), sessions=sessions)

    assert len(expected) > 50
    assert differences(expected, found) == []


async def test_options_that_cannot_hold_here_do_no_harm(python: Path, tmp_path: Path) -> None:
    arguments = "-n auto --dist loadgroup"
    if python.parent.parent.name != "python38":
        arguments += " --cov=. --cov-report=term"
    workspace = suite(
        tmp_path / "w",
        test_a="""
            import random
            def test_ids(worker_id, testrun_uid): assert worker_id == "master" and testrun_uid
            def test_one(): pass
            def test_two(): pass
        """,
    )
    (workspace / "pytest.ini").write_text(f"[pytest]\naddopts = {arguments} --lf\n")
    spec = make_spec(workspace, python=str(python))

    async with opened(spec) as session:
        _, planned = await run_cases(session, spec, ())
        case_ids = [case.case_id for case in planned.plan or ()]
        ended, reporter = await run_cases(session, spec, case_ids, token=2)

    assert reporter.outcomes() == {"test_ids": "passed", "test_one": "passed", "test_two": "passed"}
    assert ended.verdict is Verdict.COMPLETED


async def test_sessions_agree_on_sets_and_seeds_and_compile_once(python: Path, tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a="""
            import pytest
            class A:
                def __init__(self, n): self.n = n
                def __hash__(self): return hash(str(self.n))
            @pytest.mark.parametrize("a", list({A(n) for n in range(20)}))
            def test_set(a, record_property): record_property("n", a.n)
        """,
    )
    spec = make_spec(workspace, python=str(python))
    seen, kept = [], []

    for _ in range(2):
        async with opened(spec, compiled=tmp_path / "compiled") as session:
            _, planned = await run_cases(session, spec, ())
            case_ids = [case.case_id for case in planned.plan or ()]
            _, reporter = await run_cases(session, spec, case_ids, token=2)
            seen.append([(result.case_id, result.properties["n"]) for result in reporter.results])
        kept.append({(path.name, path.stat().st_ino) for path in (tmp_path / "compiled").glob("*/*")})

    assert len(seen[0]) == 20
    assert seen[0] == seen[1]
    assert kept[0]
    assert kept[0] == kept[1]  # what is compiled again is another file


async def test_crash_and_hang_are_survived(python: Path, tmp_path: Path) -> None:
    from datetime import timedelta

    workspace = suite(
        tmp_path / "w",
        test_a="""
            import os, time, signal
            def test_1(): pass
            def test_2(): os.kill(os.getpid(), signal.SIGSEGV)
            def test_3(): time.sleep(100)
            def test_4(): pass
        """,
    )
    spec = make_spec(workspace, python=str(python), silence_timeout=timedelta(seconds=2), command=("-p", "no:randomly"))

    async with opened(spec) as session:
        ended, reporter = await run_cases(session, spec, [f"test_a.py::test_{n}" for n in (1, 2, 3, 4)])

    assert list(reporter.outcomes().values()) == ["passed", "failed", "timed_out", "passed"]
    assert "SIGSEGV" in reporter.named("test_2").message
    assert "in test_3" in reporter.named("test_3").details
    assert ended.verdict is Verdict.COMPLETED


PLUGINS = {
    "pytest9": """
        import asyncio, pytest, unittest
        @pytest.mark.asyncio
        async def test_asyncio(): await asyncio.sleep(0)
        attempts = []
        @pytest.mark.flaky(reruns=2)
        def test_rerun(): attempts.append(1); assert len(attempts) > 1
        @pytest.mark.flaky(reruns=1)
        def test_rerun_in_vain(): assert 0
        def test_subtests(subtests):
            with subtests.test("a"): assert 0
            with subtests.test("b"): pass
        def test_skipping_subtest(subtests):
            with subtests.test("a"): pytest.skip("sub")
    """,
    "pytest7": """
        def test_subtests(subtests):
            with subtests.test("a"): assert 0
        def test_good_subtests(subtests):
            with subtests.test("a"): pass
    """,
}


@pytest.mark.parametrize("name", PLUGINS)
async def test_other_plugins_keep_their_meaning(name: str, tmp_path: Path) -> None:
    python = ROOT / ".cache/venvs" / name / "bin/python"
    if not python.exists():
        pytest.skip(f"{python} does not exist: run tests/tools/make_venvs.sh")
    workspace = suite(tmp_path / "w", test_a=PLUGINS[name])

    expected, found = plain(python, workspace, ()), await resident(python, workspace, (), sessions=1)

    assert len(expected) >= 2
    assert differences(expected, found) == []
