"""The master's values on their way to and from the wire: pure functions."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import groupby

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from fleetest.common.carried_specs import forget_oldest
from fleetest.common.convert import (
    artifact_to_proto,
    duration_to_proto,
    fill_resources,
    load_row_to_proto,
    report_options_to_proto,
    resource_sample_to_proto,
    resource_usage_to_proto,
    resources_from_proto,
    resources_to_proto,
    run_state_to_proto,
    service_to_proto,
    shard_kind_to_proto,
    task_state_to_proto,
    time_to_proto,
    worker_state_to_proto,
)
from fleetest.common.convert_coverage import coverage_to_proto, coverage_totals_to_proto
from fleetest.common.convert_version_control import version_control_to_proto
from fleetest.common.results import Counts
from fleetest.common.states import WorkerState
from fleetest.common.tasks import Resources, RunnerType, Task
from fleetest.master.explain import TaskExplanation
from fleetest.master.queue.ports import Presence
from fleetest.master.runs.events import RunSubmitted
from fleetest.master.runs.summary import CoverageSummary, RunSummary, TaskSummary
from fleetest.master.sessions import (
    Acknowledge,
    Assign,
    Assigned,
    AttemptRef,
    Begin,
    Drain,
    Expect,
    HandBack,
    Heard,
    Instruction,
    Stop,
    Want,
    Work,
)
from fleetest.v1 import fleet_pb2, run_pb2, types_pb2, worker_pb2

__all__ = [
    "attempt_ref_from_proto",
    "attempt_ref_to_proto",
    "counts_to_proto",
    "explanation_to_proto",
    "instruction_to_proto",
    "optional_duration",
    "optional_time",
    "presence_to_proto",
    "run_to_proto",
    "spec_id",
    "task_spec_to_proto",
    "want_from_proto",
    "worker_state",
]


def optional_time(value: datetime | None) -> Timestamp | None:
    """For a field that may be unset."""
    return None if value is None else time_to_proto(value)


def optional_duration(value: timedelta | None) -> Duration | None:
    """For a field that may be unset."""
    return None if value is None else duration_to_proto(value)


def counts_to_proto(counts: Counts) -> run_pb2.Counts:
    return run_pb2.Counts(**{name: getattr(counts, name) for name in Counts.__struct_fields__})


def run_to_proto(run: RunSummary) -> run_pb2.Run:
    return run_pb2.Run(
        run_id=run.run_id,
        project=run.project,
        suite_name=run.suite_name,
        state=run_state_to_proto(run.state),
        reason=run.reason,
        tasks=[_task_to_proto(task) for task in run.tasks],
        counts=counts_to_proto(run.counts),
        version_control=version_control_to_proto(run.version_control),
        workspace_digest=run.workspace_digest,
        user=run.user,
        labels=run.labels,
        submitted_at=time_to_proto(run.submitted_at),
        ended_at=optional_time(run.ended_at),
        retry_of=run.retry_of,
        position=run.position,
        suite=run.suite,
        environment=run.environment,
        coverage=[_coverage_to_proto(each) for each in run.coverage],
    )


def _coverage_to_proto(coverage: CoverageSummary) -> run_pb2.RunCoverage:
    return run_pb2.RunCoverage(
        task_id=coverage.task_id,
        totals=coverage_totals_to_proto(coverage.totals),
        combined=coverage.combined,
        files=coverage.files,
        worst=[
            run_pb2.FileTotals(path=path, totals=coverage_totals_to_proto(totals)) for path, totals in coverage.worst
        ],
    )


def _task_to_proto(task: TaskSummary) -> run_pb2.Task:
    return run_pb2.Task(
        task_id=task.task_id,
        type=task.type,
        state=task_state_to_proto(task.state),
        reason=task.reason,
        needs=task.needs,
        priority=task.priority,
        counts=counts_to_proto(task.counts),
        shards=task.shards,
        shards_done=task.shards_done,
        attempts=task.attempts,
        queued_at=optional_time(task.queued_at),
        started_at=optional_time(task.started_at),
        ended_at=optional_time(task.ended_at),
        predicted=optional_duration(task.predicted),
        artifacts=[artifact_to_proto(each.artifact) for each in task.artifacts],
        not_kept=task.not_kept,
        usage=resource_usage_to_proto(task.usage),
        requested=resources_to_proto(task.requested),
        packed=resources_to_proto(task.packed),
        wrong_hits=task.wrong_hits,
        planned=task.planned,
        load=[load_row_to_proto(row) for row in task.load],
    )


def explanation_to_proto(explanation: TaskExplanation) -> run_pb2.TaskExplanation:
    return run_pb2.TaskExplanation(
        task_id=explanation.task_id,
        state=task_state_to_proto(explanation.state),
        reasons=[
            run_pb2.Reason(
                kind=run_pb2.ReasonKind.Value(f"REASON_KIND_{reason.kind.name}"),
                message=reason.message,
                workers=reason.workers,
                workers_total=reason.workers_total,
                constraint=reason.constraint,
                queue_position=reason.queue_position,
            )
            for reason in explanation.reasons
        ],
    )


def presence_to_proto(worker: Presence, speed: float = 0.0) -> fleet_pb2.Worker:
    return fleet_pb2.Worker(
        worker_id=worker.worker_id,
        version=worker.version,
        state=worker_state_to_proto(worker_state(worker)),
        capabilities=worker.capabilities,
        capacity=resources_to_proto(worker.capacity),
        free=resources_to_proto(worker.free),
        slots=worker.slots,
        slots_used=worker.slots_used,
        hostname=worker.hostname,
        host=resource_sample_to_proto(worker.host) if worker.host else None,
        registered_at=time_to_proto(worker.registered_at),
        last_seen_at=time_to_proto(worker.last_seen_at),
        ready=worker.ready,
        not_ready_reason=worker.not_ready_reason,
        speed=speed,
    )


def worker_state(worker: Presence) -> WorkerState:
    """In one word."""
    if worker.offline:
        return WorkerState.OFFLINE
    if worker.draining:
        return WorkerState.DRAINING
    return WorkerState.BUSY if worker.slots_used else WorkerState.IDLE


def attempt_ref_from_proto(message: types_pb2.AttemptRef) -> AttemptRef:
    return AttemptRef(run_id=message.run_id, shard_id=message.shard_id, token=message.token)


def attempt_ref_to_proto(ref: AttemptRef) -> types_pb2.AttemptRef:
    return types_pb2.AttemptRef(run_id=ref.run_id, shard_id=ref.shard_id, token=ref.token)


def want_from_proto(message: worker_pb2.Want) -> Want:
    return Want(
        number=message.number,
        shards=message.shards,
        free=resources_from_proto(message.free),
        warm_environment_keys=frozenset(message.warm_environment_keys),
        unhurried=message.unhurried,
        ahead=message.ahead,
    )


def spec_id(run_id: str, task: Task, environment_key: str) -> str:
    """Names a task's spec on a stream; it is another one when the task's services are elsewhere."""
    return f"{run_id}/{task.name}/{environment_key}" if task.served_by else f"{run_id}/{task.name}"


def instruction_to_proto(instruction: Instruction, known_specs: dict[str, None]) -> worker_pb2.MasterMessage:
    """
    Args:
        known_specs: ids that the stream has carried lately; new ones are added.
    """
    match instruction:
        case Assign():
            return worker_pb2.MasterMessage(assign=_assign_to_proto(instruction, known_specs))
        case Stop():
            stop = worker_pb2.Stop(
                attempts=[attempt_ref_to_proto(ref) for ref in instruction.refs],
                reason=instruction.reason,
                grace=duration_to_proto(instruction.grace),
                finish_running_case=instruction.finish_running_case,
            )
            return worker_pb2.MasterMessage(stop=stop)
        case HandBack():
            back = worker_pb2.HandBack(attempt=attempt_ref_to_proto(instruction.ref), case_ids=instruction.case_ids)
            return worker_pb2.MasterMessage(hand_back=back)
        case Begin():
            begin = worker_pb2.Begin(
                attempt=attempt_ref_to_proto(instruction.ref), after=duration_to_proto(instruction.after)
            )
            return worker_pb2.MasterMessage(begin=begin)
        case Expect():
            spec = task_spec_to_proto(
                instruction.run_id,
                instruction.request,
                instruction.task,
                environment_key=instruction.environment_key,
                run_network=instruction.run_network,
            )
            expect = worker_pb2.Expect(
                run_id=instruction.run_id,
                spec=spec,
                slots=instruction.slots,
                after=duration_to_proto(instruction.after),
            )
            return worker_pb2.MasterMessage(expect=expect)
        case Acknowledge():
            return worker_pb2.MasterMessage(acknowledged=worker_pb2.Acknowledged(sequence=instruction.sequence))
        case Drain():
            return worker_pb2.MasterMessage(drain=worker_pb2.Drain(reason=instruction.reason))
        case Heard():
            return worker_pb2.MasterMessage(heard=worker_pb2.Heard())


def _assign_to_proto(assign: Assign, known_specs: dict[str, None]) -> worker_pb2.Assign:
    """Filled in place: to make parts and copy them in takes several times as long. Most are alike, and said at once."""
    message = worker_pb2.Assign(want_number=assign.want_number, acknowledged=assign.acknowledged)
    add = message.assignments.add
    names: dict[int, str] = {}
    for _, (assigned, *more) in groupby(assign.assigned, key=_all_but_its_shard):
        work, ref = assigned.work, assigned.ref
        name = names.get(id(work))
        if name is None:
            name = names[id(work)] = _introduce(work, ref.run_id, message, known_specs)
        each = add()
        attempt = each.attempt
        attempt.run_id, attempt.shard_id, attempt.token = ref.run_id, ref.shard_id, ref.token
        each.task_id, each.spec_id, each.kind = work.task.name, name, shard_kind_to_proto(work.kind)
        each.number, each.shard_index, each.shard_count = assigned.number, assigned.shard_index, work.shard_count
        if assigned.case_ids:
            each.case_ids.extend(assigned.case_ids)
        if work.secrets:
            each.secrets.update(work.secrets)
        fill_resources(each.reserve, assigned.reserve)
        each.follows = assigned.follows
        if more:
            each.more_shard_ids.extend([other.ref.shard_id for other in more])
            each.more_numbers.extend([other.number for other in more])
            each.more_shard_indexes.extend([other.shard_index for other in more])
    forget_oldest(known_specs)
    return message


def _all_but_its_shard(assigned: Assigned) -> tuple[int, int, tuple[str, ...], Resources, bool]:
    return id(assigned.work), assigned.ref.token, assigned.case_ids, assigned.reserve, assigned.follows


def _introduce(work: Work, run_id: str, message: worker_pb2.Assign, known_specs: dict[str, None]) -> str:
    """The id of the work's spec, which is sent with `message` unless the worker knows it."""
    name = spec_id(run_id, work.task, work.environment_key)
    if name not in known_specs:
        known_specs[name] = None
        message.specs.append(
            task_spec_to_proto(
                run_id,
                work.request,
                work.task,
                environment_key=work.environment_key,
                run_network=work.run_network,
            )
        )
    return name


def task_spec_to_proto(
    run_id: str, request: RunSubmitted, task: Task, *, environment_key: str, run_network: str = ""
) -> worker_pb2.TaskSpec:
    """
    Args:
        run_network: which run's network its container is to be in; empty: none.
    """
    return worker_pb2.TaskSpec(
        spec_id=spec_id(run_id, task, environment_key),
        environment_key=environment_key,
        task_id=task.name,
        type=task.runner,
        project=request.project,
        workspace_digest=task.workspace_digest or request.workspace_digest,
        command=task.args if task.runner is RunnerType.PYTEST else task.command,
        shell=task.shell,
        cases=task.cases,
        service=service_to_proto(task.service) if task.service is not None else None,
        run_network=run_network,
        setup=task.setup,
        setup_digest=task.setup_digest,
        env=task.env,
        working_directory=task.working_directory,
        python=task.python,
        image=task.image,
        pull=task.pull,
        network=task.network,
        executor=task.executor,
        limits=resources_to_proto(task.resources),
        start_timeout=optional_duration(task.timeouts.start),
        silence_timeout=optional_duration(task.timeouts.silence),
        total_timeout=optional_duration(task.timeouts.total),
        artifacts=task.artifacts,
        artifacts_when=task.artifacts_when,
        reports=task.reports,
        report_options=report_options_to_proto(task.report_options),
        secret_names=list(task.secret_variables),
        version_control=version_control_to_proto(request.version_control),
        fingerprints=task.cache is not None,
        gang=task.gang is not None,
        cache_inputs=task.cache.inputs if task.cache is not None else (),
        coverage=coverage_to_proto(task.coverage) if task.coverage is not None else None,
        random_seed=int(run_id.replace("-", ""), 16) & 0x7FFFFFFF,
    )
