"""From the messages of `run.proto` and `fleet.proto` to the client's values: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from fleetest.client import events, values
from fleetest.common.convert import (
    artifact_from_proto,
    cache_origin_from_proto,
    case_result_from_proto,
    duration_from_proto,
    load_row_from_proto,
    outcome_from_proto,
    planned_case_from_proto,
    resource_sample_from_proto,
    resource_usage_from_proto,
    resources_from_proto,
    run_state_from_proto,
    shard_kind_from_proto,
    task_state_from_proto,
    time_from_proto,
    verdict_from_proto,
    worker_state_from_proto,
)
from fleetest.common.convert_coverage import coverage_totals_from_proto
from fleetest.common.convert_version_control import version_control_from_proto
from fleetest.common.results import Counts, ResourceUsage
from fleetest.common.states import Verdict
from fleetest.v1 import fleet_pb2, run_pb2

__all__ = [
    "case_record_from_proto",
    "commit_from_proto",
    "explanation_from_proto",
    "log_chunk_from_proto",
    "run_from_proto",
    "server_info_from_proto",
    "task_artifact_from_proto",
    "token_access_to_proto",
    "token_from_proto",
    "worker_from_proto",
]

_UNMEASURED: Final = ResourceUsage()


def _time(owner: Message, name: str) -> datetime | None:
    if not owner.HasField(name):
        return None
    message = getattr(owner, name)
    assert isinstance(message, Timestamp)
    return time_from_proto(message)


def _duration(owner: Message, name: str) -> timedelta | None:
    if not owner.HasField(name):
        return None
    message = getattr(owner, name)
    assert isinstance(message, Duration)
    return duration_from_proto(message)


def _counts(message: run_pb2.Counts) -> Counts:
    return Counts(**{name: getattr(message, name) for name in Counts.__struct_fields__})


def _task(message: run_pb2.Task) -> values.TaskStatus:
    return values.TaskStatus(
        task_id=message.task_id,
        type=message.type,
        state=task_state_from_proto(message.state),
        reason=message.reason,
        needs=tuple(message.needs),
        priority=message.priority,
        counts=_counts(message.counts),
        shards=message.shards,
        shards_done=message.shards_done,
        attempts=message.attempts,
        queued_at=_time(message, "queued_at"),
        started_at=_time(message, "started_at"),
        ended_at=_time(message, "ended_at"),
        predicted=_duration(message, "predicted"),
        artifacts=tuple(artifact_from_proto(each) for each in message.artifacts),
        not_kept=tuple(message.not_kept),
        usage=resource_usage_from_proto(message.usage),
        requested=resources_from_proto(message.requested),
        packed=resources_from_proto(message.packed),
        wrong_hits=message.wrong_hits,
        planned=message.planned,
        load=tuple(load_row_from_proto(each) for each in message.load),
    )


def run_from_proto(message: run_pb2.Run) -> values.Run:
    return values.Run(
        run_id=message.run_id,
        project=message.project,
        suite_name=message.suite_name,
        state=run_state_from_proto(message.state),
        reason=message.reason,
        tasks=tuple(_task(each) for each in message.tasks),
        counts=_counts(message.counts),
        version_control=version_control_from_proto(message.version_control),
        workspace_digest=message.workspace_digest,
        user=message.user,
        labels=dict(message.labels),
        submitted_at=time_from_proto(message.submitted_at),
        ended_at=_time(message, "ended_at"),
        retry_of=message.retry_of,
        position=message.position,
        suite=message.suite,
        environment=message.environment,
        coverage=tuple(_run_coverage(each) for each in message.coverage),
    )


def _run_coverage(message: run_pb2.RunCoverage) -> values.RunCoverage:
    return values.RunCoverage(
        task_id=message.task_id,
        totals=coverage_totals_from_proto(message.totals),
        combined=message.combined,
        files=message.files,
        worst={each.path: coverage_totals_from_proto(each.totals) for each in message.worst},
    )


def case_record_from_proto(message: run_pb2.CaseRecord) -> values.CaseRecord:
    return values.CaseRecord(
        task_id=message.task_id,
        result=case_result_from_proto(message.result),
        flaky=message.flaky,
        attempts=message.attempts,
        worker_id=message.worker_id,
        shard_id=message.shard_id,
    )


def log_chunk_from_proto(message: run_pb2.LogChunk) -> values.LogChunk:
    return values.LogChunk(
        shard_id=message.shard_id,
        token=message.token,
        offset_bytes=message.offset_bytes,
        content=message.content,
        truncated=message.truncated,
    )


_REASON_KINDS: Final = {
    number: values.ReasonKind.__members__.get(name.removeprefix("REASON_KIND_"), values.ReasonKind.UNKNOWN)
    for name, number in run_pb2.ReasonKind.items()
}


def explanation_from_proto(message: run_pb2.TaskExplanation) -> values.TaskExplanation:
    return values.TaskExplanation(
        task_id=message.task_id,
        state=task_state_from_proto(message.state),
        reasons=tuple(
            values.Reason(
                kind=_REASON_KINDS.get(each.kind, values.ReasonKind.UNKNOWN),
                message=each.message,
                workers=each.workers,
                workers_total=each.workers_total,
                constraint=each.constraint,
                queue_position=each.queue_position,
            )
            for each in message.reasons
        ),
    )


def task_artifact_from_proto(message: run_pb2.TaskArtifact, run_id: str) -> values.TaskArtifact:
    return values.TaskArtifact(
        task_id=message.task_id,
        shard_id=message.shard_id,
        artifact=artifact_from_proto(message.artifact),
        run_id=run_id,
        url=message.url,
    )


def worker_from_proto(message: fleet_pb2.Worker) -> values.Worker:
    return values.Worker(
        worker_id=message.worker_id,
        state=worker_state_from_proto(message.state),
        version=message.version,
        hostname=message.hostname,
        capabilities=dict(message.capabilities),
        capacity=resources_from_proto(message.capacity),
        free=resources_from_proto(message.free),
        slots=message.slots,
        slots_used=message.slots_used,
        host=resource_sample_from_proto(message.host) if message.HasField("host") else None,
        attempts=tuple((each.run_id, each.shard_id) for each in message.attempts),
        registered_at=_time(message, "registered_at"),
        last_seen_at=_time(message, "last_seen_at"),
        ready=message.ready,
        not_ready_reason=message.not_ready_reason,
        speed=message.speed or None,
    )


def server_info_from_proto(message: fleet_pb2.ServerInfo) -> values.ServerInfo:
    return values.ServerInfo(
        version=message.version,
        protocol=message.protocol,
        oldest_protocol=message.oldest_protocol,
        active_runs=message.active_runs,
        workers=message.workers,
    )


_TOKEN_KINDS = {
    fleet_pb2.TOKEN_KIND_CLIENT: values.TokenKind.CLIENT,
    fleet_pb2.TOKEN_KIND_JOIN: values.TokenKind.JOIN,
}
_TOKEN_ACCESS = {
    fleet_pb2.TOKEN_ACCESS_READ: values.TokenAccess.READ,
    fleet_pb2.TOKEN_ACCESS_WRITE: values.TokenAccess.WRITE,
    fleet_pb2.TOKEN_ACCESS_ADMIN: values.TokenAccess.ADMIN,
}


def token_access_to_proto(value: values.TokenAccess) -> fleet_pb2.TokenAccess.ValueType:
    return next(message for message, access in _TOKEN_ACCESS.items() if access is value)


def token_from_proto(message: fleet_pb2.Token) -> values.Token:
    return values.Token(
        token_id=message.token_id,
        kind=_TOKEN_KINDS[message.kind],
        description=message.description,
        created_at=_time(message, "created_at"),
        created_by=message.created_by,
        expires_at=_time(message, "expires_at"),
        revoked_at=_time(message, "revoked_at"),
        revoked_by=message.revoked_by,
        project=message.project,
        access=_TOKEN_ACCESS.get(message.access),
        worker_id_prefix=message.worker_id_prefix,
        required_labels=dict(message.required_labels),
        most_workers=message.most_workers,
        workers_joined=message.workers_joined,
    )


def commit_from_proto(message: run_pb2.WatchRunResponse) -> events.Commit:
    """The commit; an event of a kind that only a newer version knows is left out."""
    at = time_from_proto(message.committed_at)
    decoded: list[events.RunEvent] = []
    for each in message.events:
        kind = each.WhichOneof("event")
        if kind is None:
            continue
        moment = time_from_proto(each.at) if each.HasField("at") else at
        if kind == "attempt_done":
            alone = each.attempt_done
            decoded += _attempt_done(moment, alone, alone.task_id, alone.worker_id)
        elif kind == "attempts_done":
            several = each.attempts_done
            task_id, worker_id = several.task_id, several.worker_id
            for done in several.attempts:
                decoded += _attempt_done(moment, done, task_id, worker_id)
        elif kind == "attempts_started":
            decoded += _attempts_started(moment, each.attempts_started)
        else:
            decoded.append(_EVENTS[kind](moment, each))
    return events.Commit(position=message.position, at=at, events=tuple(decoded))


def _run_submitted(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    return events.RunSubmitted(at=at, run=run_from_proto(message.run_submitted.run))


def _task_queued(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    return events.TaskQueued(at=at, task_id=message.task_queued.task_id)


def _task_planned(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    planned = message.task_planned
    return events.TaskPlanned(
        at=at,
        task_id=planned.task_id,
        cases=tuple(planned_case_from_proto(each) for each in planned.cases),
        shards=len(planned.shards),
        predicted=_duration(planned, "predicted"),
        deselected=planned.deselected,
    )


def _attempt_started(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    started = message.attempt_started
    return events.AttemptStarted(
        at=at,
        shard_id=started.shard_id,
        task_id=started.task_id,
        number=started.number,
        worker_id=started.worker_id,
        kind=shard_kind_from_proto(started.kind),
    )


def _attempts_started(at: datetime, started: run_pb2.AttemptsStarted) -> Iterator[events.RunEvent]:
    task_id, worker_id, kind = started.task_id, started.worker_id, shard_kind_from_proto(started.kind)
    for shard_id, number in zip(started.shard_ids, started.numbers, strict=True):
        yield events.AttemptStarted(
            at=at, shard_id=shard_id, task_id=task_id, number=number, worker_id=worker_id, kind=kind
        )


def _attempt_running(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    return events.AttemptRunning(at=at, shard_id=message.attempt_running.shard_id, token=message.attempt_running.token)


def _cases_finished(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    finished = message.cases_finished
    return events.CasesFinished(
        at=at,
        shard_id=finished.shard_id,
        task_id=finished.task_id,
        token=finished.token,
        worker_id=finished.worker_id,
        results=tuple(map(case_result_from_proto, finished.results)),
    )


def _wrong_hit(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    wrong = message.wrong_hit
    return events.WrongHit(
        at=at,
        task_id=wrong.task_id,
        case_id=wrong.case_id,
        file=wrong.file,
        outcome=outcome_from_proto(wrong.outcome),
        cached_from=cache_origin_from_proto(wrong.cached_from),
    )


def _cases_asked_back(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    asked = message.cases_asked_back
    return events.CasesAskedBack(
        at=at, shard_id=asked.shard_id, task_id=asked.task_id, token=asked.token, case_ids=tuple(asked.case_ids)
    )


def _cases_handed_back(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    back = message.cases_handed_back
    return events.CasesHandedBack(
        at=at,
        shard_id=back.shard_id,
        task_id=back.task_id,
        token=back.token,
        case_ids=tuple(back.case_ids),
        shards=len(back.shards),
    )


def _coverage_updated(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    updated = message.coverage_updated
    return events.CoverageUpdated(
        at=at,
        task_id=updated.task_id,
        totals=coverage_totals_from_proto(updated.totals),
        combined=updated.combined,
    )


def _artifacts_saved(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    saved = message.artifacts_saved
    return events.ArtifactsSaved(
        at=at,
        shard_id=saved.shard_id,
        task_id=saved.task_id,
        artifacts=tuple(artifact_from_proto(each) for each in saved.artifacts),
        problems=tuple(saved.problems),
    )


def _attempt_ended(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    ended = message.attempt_ended
    return events.AttemptEnded(
        at=at,
        shard_id=ended.shard_id,
        task_id=ended.task_id,
        token=ended.token,
        verdict=verdict_from_proto(ended.verdict),
        reason=ended.reason,
        usage=resource_usage_from_proto(ended.usage) if ended.HasField("usage") else _UNMEASURED,
        will_retry=ended.will_retry,
    )


def _attempt_done(
    at: datetime, done: run_pb2.AttemptDone | run_pb2.DoneAttempt, task_id: str, worker_id: str
) -> list[events.RunEvent]:
    """What it stands for."""
    shard_id, token = done.shard_id, done.token
    decoded: list[events.RunEvent] = [events.AttemptRunning(at=at, shard_id=shard_id, token=token)]
    if done.results:
        results = tuple(map(case_result_from_proto, done.results))
        decoded.append(
            events.CasesFinished(
                at=at, shard_id=shard_id, task_id=task_id, token=token, worker_id=worker_id, results=results
            )
        )
    usage = resource_usage_from_proto(done.usage) if done.HasField("usage") else _UNMEASURED
    decoded.append(
        events.AttemptEnded(
            at=at,
            shard_id=shard_id,
            task_id=task_id,
            token=token,
            verdict=Verdict.COMPLETED,
            reason=done.reason,
            usage=usage,
        )
    )
    return decoded


def _task_ended(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    ended = message.task_ended
    return events.TaskEnded(at=at, task_id=ended.task_id, state=task_state_from_proto(ended.state), reason=ended.reason)


def _cancel_requested(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    asked = message.cancel_requested
    return events.CancelRequested(at=at, task_id=asked.task_id, by=asked.by, reason=asked.reason)


def _performance_measured(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    measured = message.performance_measured
    return events.PerformanceMeasured(
        at=at,
        task_id=measured.task_id,
        second=measured.second,
        window=duration_from_proto(measured.window),
        users=measured.users,
        offered=measured.offered,
        throughput=measured.throughput,
        error_rate=measured.error_rate,
        p50=duration_from_proto(measured.p50),
        p95=duration_from_proto(measured.p95),
        p99=duration_from_proto(measured.p99),
    )


def _gang_started(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    started = message.gang_started
    return events.GangStarted(at=at, task_id=started.task_id, start_at=time_from_proto(started.start_at))


def _gang_broken(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    return events.GangBroken(at=at, task_id=message.gang_broken.task_id, reason=message.gang_broken.reason)


def _run_ended(at: datetime, message: run_pb2.RunEvent) -> events.RunEvent:
    ended = message.run_ended
    return events.RunEnded(at=at, state=run_state_from_proto(ended.state), reason=ended.reason)


_EVENTS: Final[Mapping[str, Callable[[datetime, run_pb2.RunEvent], events.RunEvent]]] = {
    "run_submitted": _run_submitted,
    "task_queued": _task_queued,
    "task_planned": _task_planned,
    "attempt_started": _attempt_started,
    "attempt_running": _attempt_running,
    "cases_finished": _cases_finished,
    "wrong_hit": _wrong_hit,
    "cases_asked_back": _cases_asked_back,
    "cases_handed_back": _cases_handed_back,
    "gang_started": _gang_started,
    "performance_measured": _performance_measured,
    "gang_broken": _gang_broken,
    "coverage_updated": _coverage_updated,
    "artifacts_saved": _artifacts_saved,
    "attempt_ended": _attempt_ended,
    "task_ended": _task_ended,
    "cancel_requested": _cancel_requested,
    "run_ended": _run_ended,
}
