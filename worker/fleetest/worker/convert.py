"""Between the worker's values and the messages of `worker.proto`: pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from msgspec.structs import replace

from fleetest.common.carried_specs import KEPT_SPECS, forget_oldest
from fleetest.common.convert import (
    artifact_from_proto,
    artifact_to_proto,
    attempts_done_in,
    case_result_from_proto,
    case_result_to_proto,
    duration_from_proto,
    duration_to_proto,
    fill_case_result,
    fill_resources,
    load_sample_from_proto,
    load_sample_to_proto,
    planned_case_from_proto,
    planned_case_to_proto,
    report_options_from_proto,
    report_options_to_proto,
    resource_sample_to_proto,
    resource_usage_from_proto,
    resource_usage_to_proto,
    resources_from_proto,
    resources_to_proto,
    service_from_proto,
    service_to_proto,
    shard_kind_from_proto,
    verdict_from_proto,
    verdict_to_proto,
)
from fleetest.common.convert_coverage import (
    coverage_from_proto,
    coverage_to_proto,
    file_coverage_to_proto,
    file_coverages_from_proto,
)
from fleetest.common.convert_text import text_to_proto
from fleetest.common.convert_version_control import version_control_from_proto, version_control_to_proto
from fleetest.common.errors import InvalidRequest
from fleetest.common.results import ResourceUsage
from fleetest.common.tasks import KeepWhen, Network, Pull
from fleetest.v1 import types_pb2, worker_pb2
from fleetest.worker.assignments import Assignment, AttemptRef, Ended, TaskSpec
from fleetest.worker.messages import (
    Acknowledged,
    Assign,
    Begin,
    Declined,
    Drain,
    Expect,
    Goodbye,
    HandBack,
    Heard,
    Heartbeat,
    Hello,
    Instruction,
    Offer,
    Registered,
    Statement,
    Stop,
    StoredBatch,
    Want,
    Welcome,
)
from fleetest.worker.reports import (
    ArtifactsLeft,
    CoverageMeasured,
    Done,
    HandedBack,
    Loaded,
    Output,
    Planned,
    Report,
    ReportBody,
    Results,
    Running,
)

__all__ = [
    "attempt_ref_from_proto",
    "attempt_ref_to_proto",
    "ended_from_proto",
    "ended_to_proto",
    "instruction_from_proto",
    "offer_to_proto",
    "registered_from_proto",
    "report_from_proto",
    "report_to_proto",
    "reports_from_bytes",
    "reports_to_bytes",
    "statement_to_proto",
    "task_spec_from_proto",
    "task_spec_to_proto",
]


_UNMEASURED: Final = ResourceUsage()


def attempt_ref_to_proto(value: AttemptRef) -> types_pb2.AttemptRef:
    return types_pb2.AttemptRef(run_id=value.run_id, shard_id=value.shard_id, token=value.token)


def attempt_ref_from_proto(message: types_pb2.AttemptRef) -> AttemptRef:
    return AttemptRef(run_id=message.run_id, shard_id=message.shard_id, token=message.token)


def offer_to_proto(value: Offer) -> worker_pb2.RegisterRequest:
    return worker_pb2.RegisterRequest(
        worker_id=value.worker_id,
        version=value.version,
        capabilities=value.capabilities,
        capacity=resources_to_proto(value.capacity),
        slots=value.slots,
        hostname=value.hostname,
        instance=value.instance,
    )


def registered_from_proto(message: worker_pb2.RegisterResponse) -> Registered:
    return Registered(
        session_id=message.session_id,
        lease_ttl=duration_from_proto(message.lease_ttl),
        heartbeat_interval=duration_from_proto(message.heartbeat_interval),
        sample_interval=duration_from_proto(message.sample_interval),
        session_address=message.session_address,
    )


def statement_to_proto(value: Statement) -> worker_pb2.WorkerMessage:
    """
    Raises:
        InvalidRequest: a stored batch cannot be read back.
    """
    match value:
        case Hello():
            return worker_pb2.WorkerMessage(
                hello=worker_pb2.Hello(
                    session_id=value.session_id, attempts=[attempt_ref_to_proto(ref) for ref in value.attempts]
                )
            )
        case Heartbeat():
            return worker_pb2.WorkerMessage(heartbeat=_heartbeat_to_proto(value))
        case Want():
            message = worker_pb2.WorkerMessage()
            _fill_want(message.want, value)
            return message
        case Declined():
            return worker_pb2.WorkerMessage(
                declined=worker_pb2.Declined(
                    attempt=attempt_ref_to_proto(value.ref), reason=text_to_proto(value.reason)
                )
            )
        case Goodbye():
            return worker_pb2.WorkerMessage(goodbye=worker_pb2.Goodbye(reason=text_to_proto(value.reason)))
        case StoredBatch():
            message = worker_pb2.WorkerMessage()
            _read_batch(message.reports, value.payload)
            message.reports.sequence = value.sequence
            if value.want is not None:
                _fill_want(message.reports.want, value.want)
            return message


def _fill_want(message: worker_pb2.Want, value: Want) -> None:
    message.number, message.shards = value.number, value.shards
    fill_resources(message.free, value.free)
    message.warm_environment_keys.extend(value.warm_environment_keys)
    message.unhurried, message.ahead = value.unhurried, value.ahead


def _heartbeat_to_proto(value: Heartbeat) -> worker_pb2.Heartbeat:
    return worker_pb2.Heartbeat(
        host=resource_sample_to_proto(value.host) if value.host is not None else None,
        attempts=[
            worker_pb2.AttemptSample(
                attempt=attempt_ref_to_proto(ref),
                sample=resource_sample_to_proto(sample) if sample is not None else None,
            )
            for ref, sample in value.attempts.items()
        ],
        ready=not value.not_ready_reason,
        not_ready_reason=text_to_proto(value.not_ready_reason),
        draining=value.draining,
    )


def reports_to_bytes(reports: Sequence[Report]) -> bytes:
    """A batch as it lies in the spool; its sequence number is the spool's."""
    batch = worker_pb2.ReportBatch()
    add = batch.reports.add
    done: defaultdict[str, list[tuple[AttemptRef, Done]]] = defaultdict(list)
    for report in reports:
        if isinstance(report.body, Done):
            done[report.ref.run_id].append((report.ref, report.body))
        else:
            _fill_report(add(), report)
    for run_id, attempts in done.items():
        _fill_done(batch.done.add(run_id=run_id), attempts)
    return batch.SerializeToString()


def reports_from_bytes(payload: bytes) -> tuple[Report, ...]:
    """
    Raises:
        InvalidRequest: these are no reports, or not of this version.
    """
    batch = worker_pb2.ReportBatch()
    _read_batch(batch, payload)
    done = (report for message in batch.done for report in _done_from_proto(message))
    return (*map(report_from_proto, batch.reports), *done)


def _read_batch(batch: worker_pb2.ReportBatch, payload: bytes) -> None:
    """In place: to copy a batch into a message takes longer than to read it there."""
    try:
        batch.MergeFromString(payload)
    except DecodeError as error:
        raise InvalidRequest(f"not a batch of reports: {error}") from error


def report_to_proto(value: Report) -> worker_pb2.Report:
    message = worker_pb2.Report()
    _fill_report(message, value)
    return message


def _fill_report(message: worker_pb2.Report, value: Report) -> None:  # noqa: C901 - a flat table
    """In place: there are several for each attempt, and copying one into another takes several times as long."""
    ref, attempt = value.ref, message.attempt
    attempt.run_id, attempt.shard_id, attempt.token = ref.run_id, ref.shard_id, ref.token
    match value.body:
        case Done():
            raise AssertionError("what went well is told of many attempts at once")
        case Running() as running:
            _fill_running(message.running, running)
        case Planned() as planned:
            message.planned.deselected = planned.deselected
            message.planned.cases.extend(map(planned_case_to_proto, planned.cases))
            message.planned.collection_errors.extend(map(case_result_to_proto, planned.collection_errors))
            message.planned.fingerprints.update(
                {text_to_proto(file): digest for file, digest in planned.fingerprints.items()}
            )
        case Results(results=results):
            message.results.SetInParent()
            add = message.results.results.add
            for result in results:
                fill_case_result(add(), result)
        case HandedBack(case_ids=case_ids):
            message.handed_back.SetInParent()
            message.handed_back.case_ids.extend(map(text_to_proto, case_ids))
        case Output() as output:
            message.output.offset_bytes, message.output.content = output.offset_bytes, output.content
            message.output.truncated = output.truncated
        case ArtifactsLeft() as left:
            message.artifacts.SetInParent()
            message.artifacts.artifacts.extend(map(artifact_to_proto, left.artifacts))
            message.artifacts.problems.extend(map(text_to_proto, left.problems))
        case Loaded(sample=sample):
            message.load_sample.CopyFrom(load_sample_to_proto(sample))
        case CoverageMeasured(files=files, combined=combined):
            message.coverage.combined = combined
            message.coverage.files.extend(file_coverage_to_proto(path, file) for path, file in files.items())
        case Ended() as ended:
            _fill_ended(message.ended, ended)


def _fill_running(message: worker_pb2.Running, value: Running) -> None:
    message.SetInParent()
    if value.variables:
        message.variables.update(value.variables)


def _fill_done(message: worker_pb2.DoneAttempts, attempts: Sequence[tuple[AttemptRef, Done]]) -> None:
    """What all of them have alike is left out."""
    message.shard_ids.extend([ref.shard_id for ref, _ in attempts])
    message.tokens.extend([ref.token for ref, _ in attempts])
    if any(len(done.results) != 1 for _, done in attempts):
        message.result_counts.extend([len(done.results) for _, done in attempts])
    if any(done.usage != _UNMEASURED for _, done in attempts):
        message.usages.extend([resource_usage_to_proto(done.usage) for _, done in attempts])
    add = message.results.add
    for _, done in attempts:
        for result in done.results:
            fill_case_result(add(), result)


def _done_from_proto(message: worker_pb2.DoneAttempts) -> Iterator[Report]:
    for shard_id, token, results, usage in attempts_done_in(message):
        yield Report(
            ref=AttemptRef(run_id=message.run_id, shard_id=shard_id, token=token),
            body=Done(
                results=tuple(map(case_result_from_proto, results)),
                usage=resource_usage_from_proto(usage) if usage is not None else _UNMEASURED,
            ),
        )


def _running_from_proto(message: worker_pb2.Running) -> Running:
    return Running(variables=dict(message.variables))


def report_from_proto(message: worker_pb2.Report) -> Report:
    body: ReportBody
    match message.WhichOneof("report"):
        case "running":
            body = _running_from_proto(message.running)
        case "planned":
            body = Planned(
                cases=tuple(planned_case_from_proto(case) for case in message.planned.cases),
                deselected=message.planned.deselected,
                collection_errors=tuple(case_result_from_proto(error) for error in message.planned.collection_errors),
                fingerprints=dict(message.planned.fingerprints),
            )
        case "results":
            body = Results(results=tuple(case_result_from_proto(result) for result in message.results.results))
        case "handed_back":
            body = HandedBack(case_ids=tuple(message.handed_back.case_ids))
        case "output":
            output = message.output
            body = Output(offset_bytes=output.offset_bytes, content=output.content, truncated=output.truncated)
        case "artifacts":
            body = ArtifactsLeft(
                artifacts=tuple(artifact_from_proto(artifact) for artifact in message.artifacts.artifacts),
                problems=tuple(message.artifacts.problems),
            )
        case "load_sample":
            body = Loaded(sample=load_sample_from_proto(message.load_sample))
        case "coverage":
            body = CoverageMeasured(
                files=file_coverages_from_proto(message.coverage.files), combined=message.coverage.combined
            )
        case "ended":
            body = ended_from_proto(message.ended)
        case _:
            raise InvalidRequest("a report of a kind that this version does not know")
    return Report(ref=attempt_ref_from_proto(message.attempt), body=body)


def ended_to_proto(value: Ended) -> worker_pb2.Ended:
    message = worker_pb2.Ended()
    _fill_ended(message, value)
    return message


def _fill_ended(message: worker_pb2.Ended, value: Ended) -> None:
    message.verdict = verdict_to_proto(value.verdict)
    if value.reason:
        message.reason = text_to_proto(value.reason)
    if value.usage != _UNMEASURED:
        message.usage.CopyFrom(resource_usage_to_proto(value.usage))
    if value.missing:
        message.missing_case_ids.extend(map(text_to_proto, value.missing))
    if value.extra:
        message.extra_case_ids.extend(map(text_to_proto, value.extra))


def ended_from_proto(message: worker_pb2.Ended) -> Ended:
    return Ended(
        verdict=verdict_from_proto(message.verdict),
        reason=message.reason,
        usage=resource_usage_from_proto(message.usage),
        missing=tuple(message.missing_case_ids),
        extra=tuple(message.extra_case_ids),
    )


def instruction_from_proto(  # noqa: PLR0911 - a flat table
    message: worker_pb2.MasterMessage, specs: MutableMapping[str, TaskSpec]
) -> Instruction | None:
    """
    What the master says; `None` for something that only a newer master says.

    `specs` are those that this stream has carried lately; the message's own are added.
    """
    match message.WhichOneof("message"):
        case "welcome":
            return Welcome(forget=_refs(message.welcome.forget))
        case "assign":
            return _assign_from_proto(message.assign, specs)
        case "acknowledged":
            return Acknowledged(sequence=message.acknowledged.sequence)
        case "stop":
            return Stop(
                refs=_refs(message.stop.attempts),
                reason=message.stop.reason,
                grace=duration_from_proto(message.stop.grace),
                finish_running_case=message.stop.finish_running_case,
            )
        case "hand_back":
            return HandBack(
                ref=attempt_ref_from_proto(message.hand_back.attempt), case_ids=tuple(message.hand_back.case_ids)
            )
        case "begin":
            return Begin(
                ref=attempt_ref_from_proto(message.begin.attempt), after=duration_from_proto(message.begin.after)
            )
        case "expect":
            spec = task_spec_from_proto(message.expect.spec)
            return Expect(
                run_id=message.expect.run_id,
                spec=spec,
                slots=message.expect.slots,
                after=duration_from_proto(message.expect.after),
            )
        case "heard":
            return Heard()
        case "drain":
            return Drain(reason=message.drain.reason)
        case _:
            return None


def _refs(messages: Sequence[types_pb2.AttemptRef]) -> tuple[AttemptRef, ...]:
    return tuple(attempt_ref_from_proto(message) for message in messages)


def _assign_from_proto(message: worker_pb2.Assign, specs: MutableMapping[str, TaskSpec]) -> Assign:
    assignments: list[Assignment] = []
    unreadable: dict[AttemptRef, str] = {}
    for each in message.specs:
        spec = _spec_from_proto(each)
        specs.pop(spec.spec_id, None)  # it is the newest now, as at the other end
        specs[spec.spec_id] = spec
    for given in message.assignments:
        try:
            assignments += _assignments_from_proto(given, specs)
        except InvalidRequest as error:
            unreadable |= dict.fromkeys(_refs_of(given), error.message)
    forget_oldest(specs)
    return Assign(
        want_number=message.want_number,
        assignments=tuple(assignments),
        unreadable=unreadable,
        acknowledged=message.acknowledged,
    )


def _spec_from_proto(message: worker_pb2.TaskSpec) -> TaskSpec:
    """Most runs bring what runs before them have brought, but for these two, and to read it takes a while."""
    spec_id, random_seed = message.spec_id, message.random_seed
    message.ClearField("spec_id")
    message.ClearField("random_seed")
    known = _known_spec(message.SerializeToString(deterministic=True))
    return replace(known, spec_id=spec_id, random_seed=random_seed)


@lru_cache(maxsize=KEPT_SPECS)
def _known_spec(content: bytes) -> TaskSpec:
    return task_spec_from_proto(worker_pb2.TaskSpec.FromString(content))


def _refs_of(message: worker_pb2.Assignment) -> list[AttemptRef]:
    first = attempt_ref_from_proto(message.attempt)
    return [
        first,
        *(AttemptRef(run_id=first.run_id, shard_id=id_, token=first.token) for id_ in message.more_shard_ids),
    ]


def _assignments_from_proto(message: worker_pb2.Assignment, specs: Mapping[str, TaskSpec]) -> list[Assignment]:
    spec = specs.get(message.spec_id)
    if spec is None:
        raise InvalidRequest(f"the stream has not carried the task {message.spec_id!r} yet")
    secrets = message.secrets  # most have none: to ask is cheaper
    ref, *more = _refs_of(message)
    first = Assignment(
        ref=ref,
        spec=spec,
        kind=shard_kind_from_proto(message.kind),
        number=message.number,
        case_ids=tuple(message.case_ids),
        shard_index=message.shard_index,
        shard_count=message.shard_count,
        secrets=dict(secrets) if secrets else {},
        reserve=resources_from_proto(message.reserve) if message.HasField("reserve") else spec.limits,
        follows=message.follows,
    )
    if not len(more) == len(message.more_numbers) == len(message.more_shard_indexes):
        raise InvalidRequest(f"of {len(more)} more shards of {message.task_id} not all is said")
    others = zip(more, message.more_numbers, message.more_shard_indexes, strict=True)
    return [first, *[replace(first, ref=ref, number=number, shard_index=index) for ref, number, index in others]]


def task_spec_to_proto(value: TaskSpec) -> worker_pb2.TaskSpec:
    def limit(name: str) -> Duration | None:
        length = getattr(value, name)
        return duration_to_proto(length) if length is not None else None

    return worker_pb2.TaskSpec(
        spec_id=value.spec_id,
        environment_key=value.environment_key,
        task_id=value.task_id,
        type=value.type,
        project=value.project,
        workspace_digest=value.workspace_digest,
        command=value.command,
        shell=value.shell,
        cases=value.cases,
        setup=value.setup,
        setup_digest=value.setup_digest,
        env=value.env,
        working_directory=value.working_directory,
        python=value.python,
        image=value.image,
        pull=value.pull.value,
        network=value.network.value,
        executor=value.executor,
        limits=resources_to_proto(value.limits),
        start_timeout=limit("start_timeout"),
        silence_timeout=limit("silence_timeout"),
        total_timeout=limit("total_timeout"),
        artifacts=value.artifacts,
        artifacts_when=value.artifacts_when.value,
        reports=value.reports,
        report_options=report_options_to_proto(value.report_options),
        secret_names=value.secret_names,
        version_control=version_control_to_proto(value.version_control),
        random_seed=value.random_seed,
        fingerprints=value.fingerprints,
        gang=value.gang,
        cache_inputs=value.cache_inputs,
        service=service_to_proto(value.service) if value.service is not None else None,
        coverage=coverage_to_proto(value.coverage) if value.coverage is not None else None,
        run_network=value.run_network,
    )


def task_spec_from_proto(message: worker_pb2.TaskSpec) -> TaskSpec:
    return TaskSpec(
        spec_id=message.spec_id,
        environment_key=message.environment_key,
        task_id=message.task_id,
        type=message.type,
        project=message.project,
        workspace_digest=message.workspace_digest,
        command=tuple(message.command),
        shell=message.shell,
        cases=message.cases,
        setup=tuple(message.setup),
        setup_digest=message.setup_digest,
        env=dict(message.env),
        working_directory=message.working_directory,
        python=message.python,
        image=message.image,
        pull=Pull(message.pull or Pull.MISSING),
        network=Network(message.network or Network.BRIDGE),
        executor=message.executor,
        limits=resources_from_proto(message.limits),
        start_timeout=duration_from_proto(message.start_timeout) if message.HasField("start_timeout") else None,
        silence_timeout=(duration_from_proto(message.silence_timeout) if message.HasField("silence_timeout") else None),
        total_timeout=duration_from_proto(message.total_timeout) if message.HasField("total_timeout") else None,
        artifacts=tuple(message.artifacts),
        artifacts_when=KeepWhen(message.artifacts_when or KeepWhen.ALWAYS),
        reports=tuple(message.reports),
        report_options=report_options_from_proto(message.report_options),
        secret_names=tuple(message.secret_names),
        version_control=version_control_from_proto(message.version_control),
        random_seed=message.random_seed,
        fingerprints=message.fingerprints,
        gang=message.gang,
        cache_inputs=tuple(message.cache_inputs),
        service=service_from_proto(message.service) if message.HasField("service") else None,
        coverage=coverage_from_proto(message.coverage) if message.HasField("coverage") else None,
        run_network=message.run_network,
    )
