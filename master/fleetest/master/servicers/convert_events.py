"""A run's events on their way to those who watch it."""

from __future__ import annotations

from fleetest.common.convert import (
    artifact_to_proto,
    case_result_to_proto,
    planned_case_to_proto,
    resource_usage_to_proto,
    run_state_to_proto,
    shard_kind_to_proto,
    task_state_to_proto,
    time_to_proto,
    verdict_to_proto,
)
from fleetest.master.runs.events import (
    ArtifactsSaved,
    AttemptEnded,
    AttemptRunning,
    AttemptStarted,
    CancelRequested,
    CasesFinished,
    Event,
    RunEnded,
    RunSubmitted,
    TaskEnded,
    TaskPlanned,
    TaskQueued,
    decode,
)
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.summary import summary_of
from fleetest.master.servicers.convert import optional_duration, run_to_proto
from fleetest.master.store.ports import Commit
from fleetest.v1 import run_pb2

__all__ = ["commit_to_proto"]


def commit_to_proto(commit: Commit) -> run_pb2.WatchRunResponse:
    """
    Raises:
        msgspec.DecodeError: the commit was written by a newer version.
    """
    return run_pb2.WatchRunResponse(
        position=commit.position,
        committed_at=time_to_proto(commit.at),
        events=[_event_to_proto(event, commit) for event in decode(commit.events)],
    )


def _event_to_proto(event: Event, commit: Commit) -> run_pb2.RunEvent:
    at = time_to_proto(event.at)
    match event:
        case RunSubmitted():
            return run_pb2.RunEvent(at=at, run_submitted=_run_submitted(event, commit))
        case TaskQueued():
            return run_pb2.RunEvent(at=at, task_queued=run_pb2.TaskQueued(task_id=event.task_id))
        case TaskPlanned():
            return run_pb2.RunEvent(at=at, task_planned=_task_planned(event))
        case AttemptStarted():
            started = run_pb2.AttemptStarted(
                shard_id=event.shard_id,
                task_id=event.task_id,
                number=event.number,
                worker_id=event.worker_id,
                kind=shard_kind_to_proto(event.kind),
            )
            return run_pb2.RunEvent(at=at, attempt_started=started)
        case AttemptRunning():
            running = run_pb2.AttemptRunning(shard_id=event.shard_id, token=event.token)
            return run_pb2.RunEvent(at=at, attempt_running=running)
        case CasesFinished():
            finished = run_pb2.CasesFinished(
                shard_id=event.shard_id,
                task_id=event.task_id,
                token=event.token,
                worker_id=event.worker_id,
                results=[case_result_to_proto(result) for result in event.results],
            )
            return run_pb2.RunEvent(at=at, cases_finished=finished)
        case ArtifactsSaved():
            saved = run_pb2.ArtifactsSaved(
                shard_id=event.shard_id,
                task_id=event.task_id,
                artifacts=[artifact_to_proto(artifact) for artifact in event.artifacts],
                problems=event.problems,
            )
            return run_pb2.RunEvent(at=at, artifacts_saved=saved)
        case AttemptEnded():
            return run_pb2.RunEvent(at=at, attempt_ended=_attempt_ended(event))
        case TaskEnded():
            ended = run_pb2.TaskEnded(
                task_id=event.task_id, state=task_state_to_proto(event.state), reason=event.reason
            )
            return run_pb2.RunEvent(at=at, task_ended=ended)
        case CancelRequested():
            request = run_pb2.CancelRequested(task_id=event.task_id, by=event.by, reason=event.reason)
            return run_pb2.RunEvent(at=at, cancel_requested=request)
        case RunEnded():
            run_ended = run_pb2.RunEnded(state=run_state_to_proto(event.state), reason=event.reason)
            return run_pb2.RunEvent(at=at, run_ended=run_ended)


def _run_submitted(event: RunSubmitted, commit: Commit) -> run_pb2.RunSubmitted:
    status = RunStatus(commit.run_id)
    status.apply(event, commit.position)
    return run_pb2.RunSubmitted(run=run_to_proto(summary_of(status)))


def _task_planned(event: TaskPlanned) -> run_pb2.TaskPlanned:
    return run_pb2.TaskPlanned(
        task_id=event.task_id,
        cases=[planned_case_to_proto(case) for case in event.cases],
        shards=[
            run_pb2.ShardPlan(shard_id=shard.shard_id, cases=shard.cases, predicted=optional_duration(shard.predicted))
            for shard in event.shards
        ],
        predicted=optional_duration(event.predicted),
        deselected=event.deselected,
    )


def _attempt_ended(event: AttemptEnded) -> run_pb2.AttemptEnded:
    return run_pb2.AttemptEnded(
        shard_id=event.shard_id,
        task_id=event.task_id,
        token=event.token,
        verdict=verdict_to_proto(event.verdict),
        reason=event.reason,
        usage=resource_usage_to_proto(event.usage),
        will_retry=event.will_retry,
    )
