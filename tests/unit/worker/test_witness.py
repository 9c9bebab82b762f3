"""What a case does that no fingerprint knows of is noticed in a real session."""

from __future__ import annotations

from pathlib import Path

from fleetest.worker.assignments import TaskSpec
from tests.tools.local_worker import make_spec, opened, run_cases, suite

LEAN = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


async def reasons(workspace: Path, *case_ids: str, **changes: object) -> dict[str, str]:
    """By the cases' names, why they must not be cached."""
    values = {"fingerprints": True, "cache_inputs": ("data/*",), "env": LEAN, **changes}
    spec: TaskSpec = make_spec(workspace, **values)
    async with opened(spec) as session:
        _, planned = await run_cases(session, spec, ())
        assert planned.plan is not None, planned.text
        _, reporter = await run_cases(session, spec, case_ids or [case.case_id for case in planned.plan], token=2)
    assert set(reporter.outcomes().values()) == {"passed"}, reporter.results
    return {result.case_id.rpartition("::")[2]: result.uncacheable for result in reporter.results}


async def test_a_case_that_reaches_beyond_its_fingerprint_is_noticed(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        helper="",
        test_a="""
            import os, socket, subprocess, sys
            from pathlib import Path
            import pytest

            @pytest.fixture
            def secret(): return Path("secret.json").read_text()

            def test_plain():
                import helper, decimal
                Path("pytest.ini").read_text()
            def test_reads(): assert open("secret.json").read() == "{}"
            def test_reads_by_descriptor(): os.close(os.open(b"./sub/../secret.json", os.O_RDONLY))
            def test_fixture_reads(secret): pass
            def test_writes(): open("secret.json", "a").close()
            def test_reads_declared(): Path("data/table.csv").read_text()
            def test_reads_own(tmp_path):
                Path("new.txt").write_text("x")
                assert Path("new.txt").read_text() == "x"
            def test_starts(): subprocess.run([sys.executable, "-c", ""], check=True)
            def test_connects():
                with pytest.raises(OSError): socket.create_connection(("127.0.0.1", 1), timeout=1)
            def test_opens_nonsense():
                for path in (None, 3.5, "a\\0b"):
                    with pytest.raises((TypeError, ValueError)): open(path)
        """,
    )
    (workspace / "pytest.ini").write_text("[pytest]\n")
    (workspace / "secret.json").write_text("{}")
    for name in ("data", "sub"):
        (workspace / name).mkdir()
    (workspace / "data" / "table.csv").write_text("1")

    found = await reasons(workspace)

    reads = "reads a file that is no declared input: secret.json"
    assert {name: reason for name, reason in found.items() if reason} == {
        "test_reads": reads,
        "test_reads_by_descriptor": reads,
        "test_fixture_reads": reads,
        "test_starts": "starts a process: subprocess.Popen",
        "test_connects": "connects to something",
    }
    assert len(found) == 10


async def test_what_a_wider_fixture_reads_counts_for_all_that_follows(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a="""
            import pytest
            @pytest.fixture(scope="module")
            def table(): return open("table.txt").read()
            def test_1(): pass
            def test_2(table): pass
            def test_3(): pass
        """,
    )
    (workspace / "table.txt").write_text("x")

    found = await reasons(workspace)

    reads = "reads a file that is no declared input: table.txt"
    assert found == {"test_1": "", "test_2": reads, "test_3": reads}


async def test_without_a_cache_nobody_watches(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="def test_1(): open('table.txt').close()")
    (workspace / "table.txt").write_text("x")

    assert await reasons(workspace, fingerprints=False, cache_inputs=()) == {"test_1": ""}
