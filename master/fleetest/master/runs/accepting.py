"""Which of a worker's results count, and under which name: each case of an attempt once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from fleetest.common.states import Outcome, ShardKind
from fleetest.master.runs.events import DoneAttempt, WrongHit
from fleetest.master.runs.results import KeptResult
from fleetest.master.runs.task_status import Attempt, ShardStatus, TaskStatus

__all__ = ["accepted_of", "told_by", "wrong_hits_of"]


def accepted_of(
    status: TaskStatus, shard: ShardStatus, attempt: Attempt, results: Sequence[KeptResult]
) -> list[KeptResult]:
    """Those that the attempt was given and has no result of yet, each once."""
    named_by_its_shard = not shard.case_ids and not status.task.planned
    accepted: dict[str, KeptResult] = {}
    for told in results:
        result = _own_name(status, shard, told) if named_by_its_shard else told
        case_id = result.case_id
        expected = case_id in attempt.awaited or (not shard.case_ids and case_id not in attempt.seen)
        if expected and case_id not in accepted:
            accepted[case_id] = result
    return list(accepted.values())


def told_by(status: TaskStatus, shard: ShardStatus, attempt: Attempt, done: DoneAttempt) -> DoneAttempt | None:
    """
    The attempt, with those of its results that count, if it told of all its cases, none ended badly, and nothing
    follows from that but that its shard is done; else `None`.
    """
    if attempt.seen or not status.is_plain or shard.kind is not ShardKind.EXECUTE:
        return None
    accepted = tuple(accepted_of(status, shard, attempt, done.results))
    if len(accepted) < len(attempt.awaited) or any(result.outcome.bad for result in accepted):
        return None
    return done if accepted == done.results else msgspec.structs.replace(done, results=accepted)


def wrong_hits_of(status: TaskStatus, results: Sequence[KeptResult], now: datetime) -> Sequence[WrongHit]:
    """Those of cases that were run although the cache has a result, and did not end so. Only what passed is cached."""
    return [
        WrongHit(
            at=now,
            task_id=status.task.name,
            case_id=result.case_id,
            file=status.cases[result.case_id].file,
            outcome=result.outcome,
            cached_from=origin,
        )
        for result in (results if status.sampled else ())
        if result.outcome is not Outcome.PASSED and (origin := status.sampled.get(result.case_id)) is not None
    ]


def _own_name(status: TaskStatus, shard: ShardStatus, result: KeptResult) -> KeptResult:
    """
    A command in several shards has a case of its own in each, and so has whatever two shards call alike: the one must
    not hide the other.
    """
    namesake = status.cases.get(result.case_id)
    shards = status.task.shards or 1
    if (shards > 1 and result.case_id == shard.task_id) or (namesake and namesake.shard_id != shard.shard_id):
        return msgspec.structs.replace(result, case_id=f"{result.case_id} [{shard.index + 1}/{shards}]")
    return result
