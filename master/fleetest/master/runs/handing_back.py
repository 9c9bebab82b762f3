"""The shards that run what a worker handed back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from fleetest.master.runs.events import ShardPlan
from fleetest.master.runs.planner import deal_again
from fleetest.master.runs.task_status import Attempt, TaskStatus, shard_id

__all__ = ["shards_of_given"]


def shards_of_given(status: TaskStatus, attempt: Attempt, case_ids: Sequence[str]) -> tuple[ShardPlan, ...]:
    """Twice as many as there are slots for these cases: whoever is done first takes more."""
    cases = [status.cases[case_id] for case_id in case_ids]
    seconds = [1.0 if case.predicted is None else case.predicted for case in cases]
    parts = 2 * (attempt.asked_back.parts if attempt.asked_back is not None else 1)
    dealt = deal_again(status.task.split, status.planned_cases(case_ids), seconds, parts)
    return tuple(
        ShardPlan(
            shard_id=shard_id(status.task.name, status.next_index + number),
            cases=tuple(part),
            predicted=None if status.predicted is None else timedelta(seconds=sum(seconds[each] for each in part)),
        )
        for number, part in enumerate(dealt)
    )
