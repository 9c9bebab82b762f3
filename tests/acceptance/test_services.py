"""Service tasks: what is tested is started by the suite itself, beside its tests."""

from __future__ import annotations

import shutil
from pathlib import Path

from fleetest.common.states import RunState, TaskState

SHOP = Path(__file__).parents[2] / "examples" / "shop"
DYING = """
    version: 1
    name: dying
    tasks:
      shop:
        type: service
        run: 'touch $MARKS/up; until test -e $MARKS/tests-run; do sleep 0.02; done; echo out of books; exit 3'
        ready: {command: test -e $MARKS/up}
        env: {MARKS: %(marks)s}
      runs:
        run: 'touch $MARKS/tests-run; sleep 300'
        env: {MARKS: %(marks)s}
        needs: {shop: ready}
      later: {run: "true", needs: {shop: ready, runs: passed}}
    """


def test_the_example_shop_is_tested_on_workers_with_one_slot(cluster, tmp_path):
    suite = shutil.copytree(SHOP, tmp_path / "shop", ignore=shutil.ignore_patterns("__pycache__"))
    at_once = ["pages", "api", "graph", "links"]  # the other kinds install what they need first, and have own tests

    run = cluster.ended(cluster.submit(*(f"--task={name}" for name in at_once), cwd=suite))

    assert {task.task_id: task.state for task in run.tasks} == dict.fromkeys(["shop", *at_once], TaskState.PASSED)
    assert run.state is RunState.PASSED
    assert {case.worker_id for case in cluster.client().cases(run.run_id)} <= {"local-1", "local-2"}


def test_a_service_that_dies_ends_its_tests_and_says_why(cluster, project, tmp_path):
    root = project({"fleetest.yaml": DYING % {"marks": tmp_path}})

    run = cluster.ended(cluster.submit(cwd=root))

    tasks = {task.task_id: task for task in run.tasks}
    assert {name: task.state for name, task in tasks.items()} == {
        "shop": TaskState.FAILED,
        "runs": TaskState.ERRORED,
        "later": TaskState.SKIPPED,
    }
    assert tasks["runs"].reason == "needs shop ready, which failed"
    result = cluster.results(run.run_id)["shop"]
    assert (result.message, result.details) == ("it ended with exit code 3 while it was needed", "out of books")
