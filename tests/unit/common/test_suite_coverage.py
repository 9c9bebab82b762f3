from __future__ import annotations

import pytest

from fleetest.common.suite import Suite, SuiteInvalid, load_suite
from fleetest.common.tasks import Coverage, Input, Need, RunnerType, When


def load(tasks: str, defaults: str = "{}") -> Suite:
    return load_suite(f"version: 1\nname: x\ndefaults: {defaults}\ntasks:\n{tasks}", source="s")


def test_a_task_combines_what_all_others_measure_where_the_first_of_them_runs() -> None:
    unit, slow, lint, combining = load(
        """
  unit: {args: tests, image: "python:3", setup: pip install coverage, env: {A: b}, retries: 2, shards: 3}
  slow: {args: slow}
  lint: {run: make lint}
""",
        "{coverage: {branch: true, fail_under: 80}}",
    ).tasks

    assert unit.coverage == Coverage(branch=True, fail_under=80, combined_by="coverage")
    assert lint.coverage is None
    assert (combining.name, combining.type, combining.runner) == ("coverage", "coverage", RunnerType.COVERAGE)
    assert combining.needs == (Need(task="unit", when=When.ALWAYS), Need(task="slow", when=When.ALWAYS))
    assert combining.inputs[0] == Input(task="unit", files=(".fleetest-coverage",), optional=True)
    assert (combining.image, combining.setup, combining.env) == (unit.image, unit.setup, unit.env)
    assert (combining.retries, combining.shards, combining.artifacts) == (0, None, ("coverage-report",))
    assert slow.coverage == unit.coverage == combining.coverage


def test_what_starts_elsewhere_or_is_told_other_things_is_combined_by_itself() -> None:
    suite = load(
        """
  coverage: {args: tests, coverage: true}
  back: {args: tests, coverage: true, working_directory: back}
  strict: {args: tests, coverage: {fail_under: 100}}
"""
    )

    combined_by = {task.name: task.coverage.combined_by for task in suite.tasks if task.coverage}
    assert combined_by["coverage"] == "coverage-2"
    assert combined_by["back"] == "coverage-3"
    assert combined_by["strict"] == "coverage-4"
    assert suite.tasks[4].artifacts == ("back/coverage-report",)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("{args: t, coverage: {fail_under: 101}}", "fail_under: must be at most 100"),
        ("{args: t, coverage: {branches: true}}", "unknown key 'branches'"),
        ("{args: t, coverage: {config: /etc/x}}", "config: '/etc/x' leads out of the workspace"),
        ("{run: make, coverage: true}", "'coverage' is not for a command task"),
        ("{args: t, coverage: true, cache: true}", "coverage: a task with a cache cannot measure coverage"),
    ],
)
def test_wrong_coverage_is_refused(task: str, message: str) -> None:
    with pytest.raises(SuiteInvalid) as refused:
        load(f"  unit: {task}\n")

    assert message in str(refused.value)
