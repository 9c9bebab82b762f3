"""
The test suites of real projects, without repetition (`tests/tools/few_examples.py`): every case, its outcome and the
reason of a skip are plain pytest's, however many slots share the work.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from fleetest.client import Client
from fleetest.common.results import CaseResult
from tests.acceptance.conftest import Cluster, start_cluster
from tests.tools.parity import Recorded, differences, plain

SUITES = Path(__file__).parents[2] / ".cache" / "suites"
NAMES = ("click", "attrs", "jinja2", "werkzeug")
ARGUMENTS = ("-p", "few_examples")
SHAPES = {1: ("1", "1"), 2: ("2", "1"), 4: ("2", "2")}


@pytest.fixture(scope="module", params=SHAPES, ids=lambda slots: f"{slots}-slots")
def sized_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """In a directory with a short name: pytest itself leaves long paths out of ids."""
    workers, slots = SHAPES[request.param]
    with tempfile.TemporaryDirectory(prefix="ft") as directory:
        running = start_cluster(Path(directory), "--workers", workers, "--slots", slots)
        yield running
        assert running.fleetest("down").returncode == 0


@cache
def expected(name: str) -> dict[str, Recorded]:
    return dict(plain(SUITES / name / "venv" / "bin" / "python", SUITES / name / "src", ARGUMENTS))


@pytest.mark.parametrize("name", NAMES)
def test_real_suite_gives_what_plain_pytest_gives(sized_cluster, tmp_path, name):
    if not (SUITES / name / "made").exists():
        assert "FLEETEST_TEST_ALL" not in os.environ, "run tests/tools/make_suites.sh"
        pytest.skip("run tests/tools/make_suites.sh first")
    source = tmp_path / name
    shutil.copytree(SUITES / name / "src", source, symlinks=True)

    ran = sized_cluster.fleetest(
        "run", "--", "pytest", *ARGUMENTS, cwd=source, timeout=280, VIRTUAL_ENV=str(SUITES / name / "venv")
    )

    assert ran.returncode in {0, 1}, ran.stdout + ran.stderr
    assert differences(expected(name), outcomes(sized_cluster)) == []
    assert (ran.returncode == 0) == all(each.outcome not in {"failed", "error"} for each in expected(name).values())


def outcomes(cluster: Cluster) -> dict[str, Recorded]:
    known = json.loads((cluster.directory / "cluster.json").read_text())
    with Client(known["address"], token=known["token"]) as client:
        return {case.result.case_id: recorded(case.result) for case in client.cases("latest")}


def recorded(result: CaseResult) -> Recorded:
    return Recorded(
        outcome=str(result.outcome), reason=result.message if result.outcome in {"skipped", "xfailed"} else ""
    )
