"""Coverage that is measured in many sessions is the same, line by line and branch by branch, as in one run of pytest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from coverage import CoverageData

from fleetest.client.events import CoverageUpdated
from tests.acceptance.conftest import Cluster, clean_environment

SUITE = """
    version: 1
    name: s
    project: measured
    tasks:
      unit:
        args: tests
        shards: 2
        coverage: {fail_under: 96}
        env: {PYTEST_DISABLE_PLUGIN_AUTOLOAD: 1}
"""
FILES = {
    "fleetest.yaml": SUITE,
    "pyproject.toml": """
        [tool.pytest.ini_options]
        pythonpath = ["."]
        [tool.coverage.run]
        branch = true
        source = ["shop", "tests"]
    """,
    "shop/__init__.py": "from shop import price\n",
    "shop/price.py": """
        def price(amount, *, member):
            if amount > 10:
                total = amount * 0.9
            else:
                total = amount
            for _ in range(amount):
                if member:
                    return total - 1
            return total

        def closed():
            return True
    """,
    "shop/unused.py": "def never():\n    return 1\n",
    "tests/__init__.py": "",
    "tests/conftest.py": """
        import pytest
        from shop.price import closed

        @pytest.fixture(scope="session")
        def shop():
            yield
            assert closed()
    """,
    "tests/test_many.py": """
        from shop.price import price

        def test_members(shop):
            assert price(20, member=True) == 17

        def test_others():
            assert price(20, member=False) == 18
    """,
    "tests/test_few.py": """
        import pytest
        from shop.price import price

        @pytest.fixture(scope="module")
        def amount():
            yield 0
            assert price(0, member=False) == 0

        def test_nothing(amount):
            assert price(amount, member=True) == 0

        def test_one():
            assert price(1, member=False) == 1
    """,
}


def measured(data_file: Path, root: Path) -> dict[str, tuple[set[int], set[tuple[int, int]]]]:
    """Lines and arcs by path relative to `root`."""
    data = CoverageData(str(data_file))
    data.read()
    try:
        return {
            (root / path).relative_to(root).as_posix(): (set(data.lines(path) or ()), set(data.arcs(path) or ()))
            for path in data.measured_files()
        }
    finally:
        data.close()


def test_sessions_on_two_workers_measure_what_one_plain_run_does(
    cluster: Cluster, project: Callable[..., Path], tmp_path: Path
) -> None:
    root = project(FILES)
    plain = [sys.executable, "-m", "coverage", "run", "--data-file", str(tmp_path / "plain"), "-m", "pytest"]
    environment = {**clean_environment(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    subprocess.run([*plain, "-q"], cwd=root, env=environment, check=True, capture_output=True, timeout=120)

    done = cluster.fleetest("run", cwd=root)

    kept = tmp_path / "kept"
    downloaded = cluster.fleetest("artifacts", "latest", "coverage", "--download", str(kept), cwd=root)
    [report] = kept.rglob("coverage-report")
    assert downloaded.returncode == 0, downloaded.stderr
    assert measured(report / ".coverage", root) == measured(tmp_path / "plain", root)
    assert (report / "coverage.xml").exists()
    assert "price.py" in (report / "htmlcov" / "index.html").read_text()
    with cluster.client(project="measured") as client:
        run = client.get_run("latest")
        workers = {case.worker_id for case in client.cases(run.run_id, task_id="unit")}
        events = [event for commit in client.watch(run.run_id) for event in commit.events]
    assert len(workers) == 2
    told = [event for event in events if isinstance(event, CoverageUpdated)]
    assert [event.combined for event in told][-2:] == [False, True]
    assert (told[-2].totals.lines, told[-2].totals.covered) == (told[-1].totals.lines, told[-1].totals.covered)
    [coverage] = run.coverage
    assert coverage.combined
    assert coverage.worst["shop/unused.py"].covered == 0
    assert done.returncode == 1, done.stdout + done.stderr
    assert "96 % are asked for" in done.stdout + done.stderr
