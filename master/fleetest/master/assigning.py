"""What a worker is told to do: an attempt is begun, and described."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from fleetest.common.errors import WrongState
from fleetest.common.states import ShardKind, Verdict
from fleetest.common.tasks import Resources
from fleetest.master.queue.ports import Presence
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.state import TaskStatus
from fleetest.master.sessions import Assigned, AttemptRef, Session

__all__ = ["Starter", "let_expect", "meets"]


class Starter:
    """
    Begins attempts of one run in one commit. What the shards of a task have in common is worked out once.

    Args:
        secrets: those of the run that are at hand.
    """

    def __init__(self, decider: Decider, secrets: Mapping[str, str]) -> None:
        self._decider = decider
        self._secrets = secrets
        self._common: dict[tuple[str, ShardKind], Mapping[str, Any]] = {}

    def start(
        self, shard_id: str, worker: Presence, *, takes: Resources, requirements: Mapping[str, str]
    ) -> Assigned | None:
        """
        Begin an attempt; answers what its worker is to be told, or `None` when the shard waits no more, or cannot be
        run.

        Args:
            takes: of the worker's free room, as it was judged.
            requirements: that were asked of the worker.
        """
        status = self._decider.status
        try:
            token = self._decider.start_attempt(shard_id, worker.worker_id, worker.instance)
        except WrongState:  # its entry was a leftover
            return None
        shard = status.shard(shard_id)
        assert shard is not None
        task = status.tasks[shard.task_id]
        for name in task.task.secret_variables.values():
            if name not in self._secrets:
                reason = f"the secret {name} is no longer held (Redis was emptied, or it expired): submit the run again"
                self._decider.attempt_ended(shard_id, token, Verdict.FAILED, reason)
                return None
        key = shard.task_id, shard.kind
        if key not in self._common:
            self._common[key] = self._common_of(task, shard.kind)
        return Assigned(
            ref=AttemptRef(run_id=status.run_id, shard_id=shard_id, token=token),
            number=shard.attempts,
            case_ids=shard.case_ids,
            shard_index=shard.index,
            # A service was claimed with room for all that follow it, and holds what it needs itself.
            reserve=takes if task.task.service is None else task.packed.at_most(worker.capacity),
            requirements=requirements,
            **self._common[key],
        )

    def _common_of(self, task: TaskStatus, kind: ShardKind) -> Mapping[str, Any]:
        status = self._decider.status
        return {
            "request": status.request,
            "task": status.as_served(task),
            "kind": kind,
            "shard_count": 1 if kind is ShardKind.PLAN else task.next_index,
            "environment_key": status.environment_key(task),
            "run_network": status.network_of(task),
            "secrets": {variable: self._secrets[name] for variable, name in task.task.secret_variables.items()},
        }


def let_expect(begun: Iterable[Assigned], sessions: Iterable[Session]) -> None:
    """While one slot finds out what a task consists of, others get ready. A task with secrets shares them with none."""
    plans = [each for each in begun if each.kind is ShardKind.PLAN and not each.task.secret_variables]
    for planned, session in itertools.product(plans, sessions):
        if meets(session.presence.capabilities, planned.requirements):
            session.expect(planned)


def meets(capabilities: Mapping[str, str], requirements: Mapping[str, str]) -> bool:
    """Whether a worker with these capabilities has all that is required of it."""
    return all(capabilities.get(key) == value for key, value in requirements.items())
