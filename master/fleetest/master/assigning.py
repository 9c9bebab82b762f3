"""What a worker is told to do: an attempt is begun, and described."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from fleetest.common.errors import WrongState
from fleetest.common.states import ShardKind, Verdict
from fleetest.common.tasks import Resources, Task
from fleetest.master.queue.ports import Presence
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.task_status import TaskStatus
from fleetest.master.sessions import Assigned, AttemptRef, Session, Work

__all__ = ["Starter", "let_expect", "meets"]

_SHORT_PLAN: Final = timedelta(milliseconds=300)
"""
A short plan is made by then: what it finds is run sooner by who made it. It also leaves the planning slot the setup.
"""


class Starter:
    """
    Begins attempts of one run in one commit. What the shards of a task have in common is worked out once.

    Args:
        secrets: those of the run that are at hand.
    """

    def __init__(self, decider: Decider, secrets: Mapping[str, str]) -> None:
        self._decider = decider
        self._secrets = secrets
        self._works: dict[tuple[str, ShardKind], Work] = {}

    def start(
        self,
        shard_id: str,
        worker: Presence,
        *,
        takes: Resources,
        requirements: Mapping[str, str],
        follows: bool = False,
    ) -> Assigned | None:
        """
        Begin an attempt; answers what its worker is to be told, or `None` when the shard waits no more, or cannot be
        run.

        Args:
            takes: of the worker's free room, as it was judged.
            requirements: that were asked of the worker.
            follows: whether it waits behind another in its session.
        """
        status = self._decider.status
        try:
            token = self._decider.start_attempt(shard_id, worker.worker_id, worker.instance)
        except WrongState:  # its entry was a leftover
            return None
        shard = status.shard(shard_id)
        assert shard is not None
        task = status.tasks[shard.task_id]
        work = self._works.get((shard.task_id, shard.kind))
        if work is None:
            if (lost := self._lost_secret(task.task)) is not None:
                reason = f"the secret {lost} is no longer held (Redis was emptied, or it expired): submit the run again"
                self._decider.attempt_ended(shard_id, token, Verdict.FAILED, reason)
                return None
            work = self._works[shard.task_id, shard.kind] = self._work_of(task, shard.kind, requirements)
        return Assigned(
            ref=AttemptRef(run_id=status.run_id, shard_id=shard_id, token=token),
            work=work,
            number=shard.attempts,
            case_ids=shard.case_ids,
            shard_index=shard.index,
            # A service was claimed with room for all that follow it, and holds what it needs itself.
            reserve=takes if work.task.service is None else task.packed.at_most(worker.capacity),
            follows=follows,
        )

    def _lost_secret(self, task: Task) -> str | None:
        return next((name for name in task.secret_variables.values() if name not in self._secrets), None)

    def _work_of(self, task: TaskStatus, kind: ShardKind, requirements: Mapping[str, str]) -> Work:
        status = self._decider.status
        return Work(
            request=status.request,
            task=status.as_served(task),
            kind=kind,
            shard_count=1 if kind is ShardKind.PLAN else task.next_index,
            environment_key=status.environment_key(task),
            secrets={variable: self._secrets[name] for variable, name in task.task.secret_variables.items()},
            requirements=requirements,
            run_network=status.network_of(task),
        )


def let_expect(begun: Iterable[Assigned], sessions: Iterable[Session]) -> None:
    """
    While one slot finds out what a task consists of, others get ready: at once for a task that is known to last. A task
    with secrets shares them with none.
    """
    plans = [each for each in begun if each.work.kind is ShardKind.PLAN and not each.work.task.secret_variables]
    for planned, session in itertools.product(plans, sessions):
        if meets(session.presence.capabilities, planned.work.requirements):
            work = planned.work
            session.expect(planned, timedelta() if work.task.name in work.request.lasting else _SHORT_PLAN)


def meets(capabilities: Mapping[str, str], requirements: Mapping[str, str]) -> bool:
    """Whether a worker with these capabilities has all that is required of it."""
    return all(capabilities.get(key) == value for key, value in requirements.items())
