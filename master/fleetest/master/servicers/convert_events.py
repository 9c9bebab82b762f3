"""
A run's events on their way to those who watch it.

There are several for every task, so messages are filled in place: to make each by itself and put it into the next takes
five times as long. An event that happened when its commit was made, as nearly all do, does not repeat the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from fleetest.common.convert import (
    artifact_to_proto,
    cache_origin_to_proto,
    duration_to_proto,
    fill_duration,
    outcome_to_proto,
    planned_case_to_proto,
    resource_usage_to_proto,
    run_state_to_proto,
    shard_kind_to_proto,
    task_state_to_proto,
    time_to_proto,
    verdict_to_proto,
)
from fleetest.common.convert_coverage import coverage_totals_to_proto, file_coverage_to_proto
from fleetest.common.results import ResourceUsage
from fleetest.master.runs.events import (
    ArtifactsSaved,
    AttemptDone,
    AttemptEnded,
    AttemptRunning,
    AttemptsDone,
    AttemptsStarted,
    AttemptStarted,
    CancelRequested,
    CasesAskedBack,
    CasesFinished,
    CasesHandedBack,
    CoverageUpdated,
    DoneAttempt,
    Event,
    GangBroken,
    GangStarted,
    LoadSampled,
    PerformanceMeasured,
    RunEnded,
    RunSubmitted,
    ShardPlan,
    TaskEnded,
    TaskPlanned,
    TaskQueued,
    WrongHit,
    decode,
)
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.summary import summary_of
from fleetest.master.servicers.convert import run_to_proto
from fleetest.master.servicers.convert_results import put_result
from fleetest.master.store.ports import Commit
from fleetest.v1 import run_pb2

__all__ = ["commit_to_proto"]

_UNMEASURED: Final = ResourceUsage()


def commit_to_proto(commit: Commit, events: Sequence[Event] | None = None) -> run_pb2.WatchRunResponse:
    """
    Args:
        events: of the commit, where they are at hand.

    Raises:
        msgspec.DecodeError: the commit was written by a newer version.
    """
    response = run_pb2.WatchRunResponse(position=commit.position, committed_at=time_to_proto(commit.at))
    add = response.events.add
    for event in decode(commit.events) if events is None else events:
        if isinstance(event, LoadSampled):
            continue  # what all generators measured together follows
        message = add()
        if event.at != commit.at:
            message.at.CopyFrom(time_to_proto(event.at))
        _FILL[type(event)](event, message, commit)
    return response


def _run_submitted(event: RunSubmitted, message: run_pb2.RunEvent, commit: Commit) -> None:
    status = RunStatus(commit.run_id)
    status.apply(event, commit.position)
    message.run_submitted.run.CopyFrom(run_to_proto(summary_of(status)))


def _task_queued(event: TaskQueued, message: run_pb2.RunEvent, _: Commit) -> None:
    message.task_queued.task_id = event.task_id


def _task_planned(event: TaskPlanned, message: run_pb2.RunEvent, _: Commit) -> None:
    planned = message.task_planned
    planned.task_id, planned.deselected = event.task_id, event.deselected
    planned.cases.extend(planned_case_to_proto(case) for case in event.cases)
    planned.shards.extend(_shard_plan(shard) for shard in event.shards)
    if event.predicted is not None:
        planned.predicted.CopyFrom(duration_to_proto(event.predicted))


def _attempt_started(event: AttemptStarted, message: run_pb2.RunEvent, _: Commit) -> None:
    started = message.attempt_started
    started.shard_id, started.task_id, started.worker_id = event.shard_id, event.task_id, event.worker_id
    started.number, started.kind = event.number, shard_kind_to_proto(event.kind)


def _attempts_started(event: AttemptsStarted, message: run_pb2.RunEvent, _: Commit) -> None:
    started = message.attempts_started
    started.task_id, started.worker_id, started.kind = event.task_id, event.worker_id, shard_kind_to_proto(event.kind)
    started.shard_ids.extend(event.shard_ids)
    started.numbers.extend(event.numbers)


def _attempt_running(event: AttemptRunning, message: run_pb2.RunEvent, _: Commit) -> None:
    running = message.attempt_running
    running.shard_id, running.token = event.shard_id, event.token


def _cases_finished(event: CasesFinished, message: run_pb2.RunEvent, _: Commit) -> None:
    finished = message.cases_finished
    finished.shard_id, finished.task_id, finished.token = event.shard_id, event.task_id, event.token
    finished.worker_id = event.worker_id
    add = finished.results.add
    for result in event.results:
        put_result(result, add())


def _wrong_hit(event: WrongHit, message: run_pb2.RunEvent, _: Commit) -> None:
    wrong = message.wrong_hit
    wrong.task_id, wrong.case_id, wrong.file = event.task_id, event.case_id, event.file
    wrong.outcome = outcome_to_proto(event.outcome)
    wrong.cached_from.CopyFrom(cache_origin_to_proto(event.cached_from))


def _cases_asked_back(event: CasesAskedBack, message: run_pb2.RunEvent, _: Commit) -> None:
    asked = message.cases_asked_back
    asked.shard_id, asked.task_id, asked.token = event.shard_id, event.task_id, event.token
    asked.case_ids.extend(event.case_ids)


def _cases_handed_back(event: CasesHandedBack, message: run_pb2.RunEvent, _: Commit) -> None:
    back = message.cases_handed_back
    back.shard_id, back.task_id, back.token = event.shard_id, event.task_id, event.token
    back.case_ids.extend(event.case_ids)
    back.shards.extend(_shard_plan(shard) for shard in event.shards)


def _gang_started(event: GangStarted, message: run_pb2.RunEvent, _: Commit) -> None:
    message.gang_started.task_id = event.task_id
    message.gang_started.start_at.CopyFrom(time_to_proto(event.start_at))


def _gang_broken(event: GangBroken, message: run_pb2.RunEvent, _: Commit) -> None:
    message.gang_broken.task_id, message.gang_broken.reason = event.task_id, event.reason


def _performance_measured(event: PerformanceMeasured, message: run_pb2.RunEvent, _: Commit) -> None:
    measured = message.performance_measured
    measured.task_id, measured.second, measured.users = event.task_id, event.second, event.users
    measured.offered, measured.throughput, measured.error_rate = event.offered, event.throughput, event.error_rate
    for name in ("window", "p50", "p95", "p99"):
        fill_duration(getattr(measured, name), getattr(event, name))


def _coverage_updated(event: CoverageUpdated, message: run_pb2.RunEvent, _: Commit) -> None:
    updated = message.coverage_updated
    updated.task_id, updated.combined = event.task_id, event.combined
    updated.files.extend(file_coverage_to_proto(path, file) for path, file in event.files.items())
    updated.totals.CopyFrom(coverage_totals_to_proto(event.totals))


def _shard_plan(shard: ShardPlan) -> run_pb2.ShardPlan:
    plan = run_pb2.ShardPlan(shard_id=shard.shard_id, cases=shard.cases)
    if shard.predicted is not None:
        plan.predicted.CopyFrom(duration_to_proto(shard.predicted))
    return plan


def _artifacts_saved(event: ArtifactsSaved, message: run_pb2.RunEvent, _: Commit) -> None:
    saved = message.artifacts_saved
    saved.shard_id, saved.task_id = event.shard_id, event.task_id
    saved.artifacts.extend(artifact_to_proto(artifact) for artifact in event.artifacts)
    saved.problems.extend(event.problems)


def _attempt_ended(event: AttemptEnded, message: run_pb2.RunEvent, _: Commit) -> None:
    ended = message.attempt_ended
    ended.shard_id, ended.task_id, ended.token = event.shard_id, event.task_id, event.token
    ended.verdict, ended.reason = verdict_to_proto(event.verdict), event.reason
    ended.will_retry = event.will_retry
    if event.usage != _UNMEASURED:
        ended.usage.CopyFrom(resource_usage_to_proto(event.usage))


def _attempts_done(event: AttemptsDone, message: run_pb2.RunEvent, _: Commit) -> None:
    done = message.attempts_done
    done.task_id, done.worker_id = event.task_id, event.worker_id
    add = done.attempts.add
    for each in event.attempts:
        _put_done(each, add())


def _attempt_done(event: AttemptDone, message: run_pb2.RunEvent, _: Commit) -> None:
    done = message.attempt_done
    done.task_id, done.worker_id = event.task_id, event.worker_id
    _put_done(event, done)


def _put_done(event: DoneAttempt | AttemptDone, done: run_pb2.DoneAttempt | run_pb2.AttemptDone) -> None:
    done.shard_id, done.token = event.shard_id, event.token
    add = done.results.add
    for result in event.results:
        put_result(result, add())
    if event.reason:
        done.reason = event.reason
    if event.usage is not None and event.usage != _UNMEASURED:
        done.usage.CopyFrom(resource_usage_to_proto(event.usage))


def _task_ended(event: TaskEnded, message: run_pb2.RunEvent, _: Commit) -> None:
    ended = message.task_ended
    ended.task_id, ended.state, ended.reason = event.task_id, task_state_to_proto(event.state), event.reason


def _cancel_requested(event: CancelRequested, message: run_pb2.RunEvent, _: Commit) -> None:
    request = message.cancel_requested
    request.task_id, request.by, request.reason = event.task_id, event.by, event.reason


def _run_ended(event: RunEnded, message: run_pb2.RunEvent, _: Commit) -> None:
    message.run_ended.state, message.run_ended.reason = run_state_to_proto(event.state), event.reason


_FILL: Final[dict[type[Event], Callable[[Any, run_pb2.RunEvent, Commit], None]]] = {
    RunSubmitted: _run_submitted,
    TaskQueued: _task_queued,
    TaskPlanned: _task_planned,
    AttemptStarted: _attempt_started,
    AttemptsStarted: _attempts_started,
    AttemptRunning: _attempt_running,
    CasesFinished: _cases_finished,
    WrongHit: _wrong_hit,
    CasesAskedBack: _cases_asked_back,
    CasesHandedBack: _cases_handed_back,
    GangStarted: _gang_started,
    GangBroken: _gang_broken,
    CoverageUpdated: _coverage_updated,
    PerformanceMeasured: _performance_measured,
    ArtifactsSaved: _artifacts_saved,
    AttemptEnded: _attempt_ended,
    AttemptDone: _attempt_done,
    AttemptsDone: _attempts_done,
    TaskEnded: _task_ended,
    CancelRequested: _cancel_requested,
    RunEnded: _run_ended,
}
