"""
The tasks that nobody writes: each combines what others have measured of coverage.

Tasks whose tests start in the same directory, and that say the same of coverage, are combined into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from fleetest.common.tasks import Coverage, Input, KeepWhen, Need, RetryOn, RunnerType, Split, Task, When

__all__ = ["COVERAGE", "MEASURED", "REPORT", "combines", "with_combining", "without_coverage"]

COVERAGE = "coverage"
"""The name of the task that combines, and what `type` says of it."""

MEASURED = ".fleetest-coverage"
"""The directory of the artifacts in which sessions hand in what they measured."""

REPORT = "coverage-report"
"""The directory of the artifacts that a task leaves which combines, relative to where the tests start."""


def combines(task: Task) -> bool:
    """Whether it is one of these tasks."""
    return task.runner is RunnerType.COVERAGE


def with_combining(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks, and behind them those that combine what they measure; without any that measures, just the tasks."""
    groups: dict[tuple[str, Coverage], list[Task]] = {}
    for task in tasks:
        if task.coverage is not None:
            groups.setdefault((task.working_directory, task.coverage), []).append(task)
    taken = {task.name for task in tasks}
    told = list(tasks)
    for measured in groups.values():
        name = _free_name(taken)
        taken.add(name)
        told = [_combined_by(name, task) if task in measured else task for task in told]
        told.append(_combining(name, measured))
    return tuple(told)


def without_coverage(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks, of which some run only a part of their cases: what these execute says nothing of the whole."""
    return tuple(replace(task, coverage=None) for task in tasks if not combines(task))


def _free_name(taken: set[str]) -> str:
    names = (COVERAGE if number == 1 else f"{COVERAGE}-{number}" for number in count(1))
    return next(name for name in names if name not in taken)


def _combined_by(name: str, task: Task) -> Task:
    assert task.coverage is not None
    return replace(task, coverage=replace(task.coverage, combined_by=name))


def _combining(name: str, measured: Sequence[Task]) -> Task:
    """It runs where the first of them does: there is the interpreter whose coverage.py measured, and the sources."""
    first = measured[0]
    report = f"{first.working_directory}/{REPORT}" if first.working_directory else REPORT
    return replace(
        _combined_by(name, first),
        name=name,
        type=COVERAGE,
        runner=RunnerType.COVERAGE,
        args=(),
        needs=tuple(Need(task=task.name, when=When.ALWAYS) for task in measured),
        inputs=tuple(Input(task=task.name, files=(MEASURED,), optional=True) for task in measured),
        retries=0,
        retry_on=frozenset({RetryOn.FAILED, RetryOn.TIMED_OUT}),
        shards=None,
        split=Split.CASE,
        maxfail=0,
        last_failed=False,
        artifacts=(report,),
        artifacts_when=KeepWhen.ALWAYS,
        cache=None,
        uses=(),
    )
