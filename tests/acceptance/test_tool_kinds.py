"""
Kinds of tests that run other tools. Robot Framework is the real one. k6 and ZAP cannot be installed here: in their place
stand programs of their names that leave reports made by hand, and end as the tools do.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from fleetest.client import Run
from fleetest.common.results import CaseResult
from tests.acceptance.conftest import Cluster, write_files

BY_HAND = Path(__file__).parents[1] / "unit" / "common" / "made_by_hand"

SUITE = """
    version: 1
    name: tools
    defaults: {executor: process}
    tasks:
      robot:
        type: robot
        suites: [tests]
        variables: {EXPECTED: 42}
      k6:
        type: k6
        script: load.js
        thresholds: {http_req_duration: p(95)<500}
      zap:
        type: zap
        target: http://localhost:8080
        fail_level: high
      lint:
        run: cp zap-sarif.json out.json
        reports: {files: out.json, format: sarif, fail_level: low}
    """

FILES = {
    "fleetest.yaml": SUITE,
    "load.js": "",
    "tests/basket.robot": """
        *** Test Cases ***
        Adds Up
            Should Be Equal As Integers    ${{40 + 2}}    ${EXPECTED}

        Falls Short
            Should Be Equal As Integers    ${{40 + 1}}    ${EXPECTED}
        """,
    "bin/k6": """
        #!/bin/sh
        [ "$1 $2" = "run --summary-export" ] || exit 1
        cp k6-summary-export.json "$3"
        exit 99
        """,
    "bin/zap.sh": """
        #!/bin/sh
        cp zap-traditional.json zap-report.json
        exit 2
        """,
}


@pytest.fixture(scope="module")
def tools(shared_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, CaseResult]]:
    """The ended run, and its results by case."""
    root = write_files(tmp_path_factory.mktemp("tools"), FILES)
    for name in ("k6-summary-export.json", "zap-traditional.json", "zap-sarif.json"):
        (root / name).write_bytes((BY_HAND / name).read_bytes())
    for program in (root / "bin").iterdir():
        program.chmod(0o755)
    path = f"{root / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    suite = (root / "fleetest.yaml").read_text()
    (root / "fleetest.yaml").write_text(
        suite.replace("{executor: process}", f"{{executor: process, env: {{PATH: '{path}'}}}}")
    )
    run_id = shared_cluster.submit(cwd=root)
    return shared_cluster.ended(run_id), shared_cluster.results(run_id)


def test_tests_of_robot_are_run_and_read(tools: tuple[Run, dict[str, CaseResult]]) -> None:
    run, results = tools

    (task,) = (task for task in run.tasks if task.task_id == "robot")
    assert (task.type, task.state.value, task.counts.passed, task.counts.failed) == ("robot", "failed", 1, 1)
    short = results["Tests.Basket::Falls Short"]
    assert (short.message, short.file, short.line) == ("41 != 42", "tests/basket.robot", 5)
    assert "robot-results/output.xml" in {artifact.path for artifact in task.artifacts}


def test_reports_of_k6_and_zap_are_read(tools: tuple[Run, dict[str, CaseResult]]) -> None:
    run, results = tools

    states = {task.task_id: (task.state.value, task.counts.failed) for task in run.tasks}
    assert states["k6"] == ("failed", 2)
    assert states["zap"] == ("failed", 1)
    assert results["thresholds::http_req_duration: p(95)<500"].message.endswith("and it is 512.3")
    assert results["http://shop.test:8080::Cross Site Scripting (Reflected) [40012-1]"].properties["risk"] == "high"


def test_reports_of_a_command_are_read_as_the_suite_says(tools: tuple[Run, dict[str, CaseResult]]) -> None:
    _, results = tools

    assert results["10021::http://shop.test:8080/"].outcome.value == "failed"
