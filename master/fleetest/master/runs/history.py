"""What an ended run teaches of its cases, its tasks, and the workers that ran them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fleetest.master.runs.calibration import Speed, measures_of, speed_of
from fleetest.master.runs.sizing import telling_usage
from fleetest.master.runs.speeds import SpeedBook
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import CaseStatus
from fleetest.master.store.ports import CaseHistory, Store

__all__ = ["save_history"]

_NOTHING: Final[Mapping[str, Speed]] = {}


async def save_history(store: Store, status: RunStatus) -> None:
    """
    Remember what the run teaches. Of workers, before of cases: it is the earlier measurements that tell of them. Of
    cases, only where somebody will ask: when a task is planned. An import may be of one that is planned elsewhere.

    Raises:
        DependencyUnavailable, CapacityExceeded: the store does not take it; some of it may have been kept.
    """
    project, measures = status.request.project, []
    planned = {task_id: task for task_id, task in status.tasks.items() if task.task.planned and task.cases}
    for task_id, task in planned.items():
        measures += measures_of(task, await store.load_history(project, task_id))
    speeds = await SpeedBook(store).learn(project, measures) if planned else _NOTHING
    for task_id, task in (status.tasks if status.request.imported else planned).items():
        history = [
            _case_history(case_id, case, speeds if task_id in planned else _NOTHING)
            for case_id, case in task.cases.items()
            if case.outcome is not None and case.repeatable and not case.cached
        ]
        if history:
            await store.save_history(project, task_id, history)
    usages = {task_id: usage for task_id, task in status.tasks.items() if (usage := telling_usage(task))}
    if usages:
        await store.save_usage(project, status.run_id, usages)


def _case_history(case_id: str, case: CaseStatus, speeds: Mapping[str, Speed]) -> CaseHistory:
    assert case.outcome is not None
    return CaseHistory(
        case_id=case_id,
        duration=case.duration * speed_of(speeds, case.worker_id),
        outcome=case.outcome,
        worker_id=case.worker_id,
        measured=case.duration,
        failing=float(case.outcome.bad or case.flaky),
    )
