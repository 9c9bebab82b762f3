"""What a worker is told to do: an attempt is begun, and described."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from fleetest.common.errors import WrongState
from fleetest.common.states import ShardKind, Verdict
from fleetest.common.tasks import Resources
from fleetest.master.queue.ports import Presence
from fleetest.master.runs.decisions import Decider
from fleetest.master.sessions import Assigned, AttemptRef, Session

__all__ = ["begin", "let_expect"]


def begin(
    decider: Decider,
    shard_id: str,
    worker: Presence,
    *,
    takes: Resources,
    requirements: Mapping[str, str],
    secrets: Mapping[str, str],
) -> Assigned | None:
    """
    Begin an attempt; answers what its worker is to be told, or `None` when the shard waits no more, or cannot be run.

    Args:
        takes: of the worker's free room, as it was judged.
        requirements: that were asked of the worker.
        secrets: those of the run that are at hand.
    """
    try:
        token = decider.start_attempt(shard_id, worker.worker_id, worker.instance)
    except WrongState:  # its entry was a leftover
        return None
    status = decider.status
    shard = status.shard(shard_id)
    assert shard is not None
    task = status.tasks[shard.task_id]
    variables = task.task.secret_variables
    for name in variables.values():
        if name not in secrets:
            reason = f"the secret {name} is no longer held (Redis was emptied, or it expired): submit the run again"
            decider.attempt_ended(shard_id, token, Verdict.FAILED, reason)
            return None
    planning = shard.kind is ShardKind.PLAN
    # A service was claimed with room for all that follow it, and holds what it needs itself.
    reserve = takes if task.task.service is None else task.packed.at_most(worker.capacity)
    return Assigned(
        ref=AttemptRef(run_id=status.run_id, shard_id=shard_id, token=token),
        request=status.request,
        task=status.as_served(task),
        kind=shard.kind,
        number=shard.attempts,
        case_ids=shard.case_ids,
        shard_index=shard.index,
        shard_count=1 if planning else task.next_index,
        environment_key=status.environment_key(task),
        run_network=status.network_of(task),
        secrets={variable: secrets[name] for variable, name in variables.items()},
        reserve=reserve,
        requirements=requirements,
    )


def let_expect(begun: Iterable[Assigned], sessions: Iterable[Session]) -> None:
    """While one slot finds out what a task consists of, others get ready. A task with secrets shares them with none."""
    plans = [each for each in begun if each.kind is ShardKind.PLAN and not each.task.secret_variables]
    for planned, session in itertools.product(plans, sessions):
        capabilities = session.presence.capabilities
        if all(capabilities.get(key) == value for key, value in planned.requirements.items()):
            session.expect(planned)
