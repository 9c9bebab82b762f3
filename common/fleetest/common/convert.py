"""
Between the values that every part shares and their messages in `types.proto`: pure functions, two for each.

A number or a time that this version cannot understand, as a newer or broken peer may send it, is an
`InvalidRequest`. Text that UTF-8 cannot carry (a lone surrogate, as a test's output may hold) is escaped on its
way out rather than refused: a result must never be lost over its spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from fleetest.common.convert_text import text_to_proto
from fleetest.common.errors import InvalidRequest
from fleetest.common.load import LoadRow, LoadSample, RequestSample
from fleetest.common.results import (
    Artifact,
    Assertion,
    CacheOrigin,
    CaseResult,
    PlannedCase,
    ResourceSample,
    ResourceUsage,
)
from fleetest.common.states import Outcome, RunState, ShardKind, TaskState, Verdict, WorkerState
from fleetest.common.tasks import Probe, ReportOptions, Resources, Service
from fleetest.v1 import fleet_pb2, run_pb2, types_pb2, worker_pb2

__all__ = [
    "artifact_from_proto",
    "artifact_to_proto",
    "attempts_done_in",
    "cache_origin_from_proto",
    "cache_origin_to_proto",
    "case_result_from_proto",
    "case_result_to_proto",
    "check_time",
    "duration_from_proto",
    "duration_to_proto",
    "fill_case_result",
    "fill_duration",
    "fill_resources",
    "fill_time",
    "load_row_from_proto",
    "load_row_to_proto",
    "load_sample_from_proto",
    "load_sample_to_proto",
    "outcome_from_proto",
    "outcome_to_proto",
    "planned_case_from_proto",
    "planned_case_to_proto",
    "report_options_from_proto",
    "report_options_to_proto",
    "resource_sample_from_proto",
    "resource_sample_to_proto",
    "resource_usage_from_proto",
    "resource_usage_to_proto",
    "resources_from_proto",
    "resources_to_proto",
    "run_state_from_proto",
    "run_state_to_proto",
    "service_from_proto",
    "service_to_proto",
    "shard_kind_from_proto",
    "shard_kind_to_proto",
    "task_state_from_proto",
    "task_state_to_proto",
    "time_from_proto",
    "time_to_proto",
    "verdict_from_proto",
    "verdict_to_proto",
    "worker_state_from_proto",
    "worker_state_to_proto",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_SECONDS: Final = 86_400
_SECOND_NANOS: Final = 1_000_000_000
_FIRST_SECOND: Final = -62_135_596_800  # of the year 1
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999
_TEXTS: Final = ("message", "details", "stdout", "stderr", "log", "file", "uncacheable")

_Word = TypeVar("_Word", bound=StrEnum)
_Number = TypeVar("_Number", bound=int)


def _enum_codec(
    words: type[_Word], numbers: Iterable[tuple[str, _Number]], prefix: str
) -> tuple[Callable[[_Word], _Number], Callable[[int], _Word]]:
    """The two functions for an enum whose numbers are named by its words behind a prefix."""
    number_named = dict(numbers)
    number_of = {word: number_named[f"{prefix}_{word.name}"] for word in words}
    word_of: dict[int, _Word] = {number: word for word, number in number_of.items()}

    def from_proto(number: int) -> _Word:
        try:
            return word_of[number]
        except KeyError:
            raise InvalidRequest(
                f"{number} is no {words.__name__} that this version knows",
                hint="The other side may be newer: update this one.",
            ) from None

    return number_of.__getitem__, from_proto


task_state_to_proto, task_state_from_proto = _enum_codec(TaskState, types_pb2.TaskState.items(), "TASK_STATE")
run_state_to_proto, run_state_from_proto = _enum_codec(RunState, types_pb2.RunState.items(), "RUN_STATE")
outcome_to_proto, outcome_from_proto = _enum_codec(Outcome, types_pb2.Outcome.items(), "OUTCOME")
shard_kind_to_proto, shard_kind_from_proto = _enum_codec(ShardKind, types_pb2.ShardKind.items(), "SHARD_KIND")
verdict_to_proto, verdict_from_proto = _enum_codec(Verdict, types_pb2.Verdict.items(), "VERDICT")
worker_state_to_proto, worker_state_from_proto = _enum_codec(WorkerState, fleet_pb2.WorkerState.items(), "WORKER_STATE")


def duration_to_proto(value: timedelta) -> Duration:
    """As `Duration.FromTimedelta`, which takes four times as long; there are several in each result."""
    if value.days >= 0:
        return Duration(seconds=value.days * _DAY_SECONDS + value.seconds, nanos=value.microseconds * 1000)
    message = Duration()
    message.FromTimedelta(value)  # whose parts share a sign
    return message


def fill_duration(message: Duration, value: timedelta) -> None:
    """As `duration_to_proto`, in place: to make a message and copy it into another takes several times as long."""
    if value.days >= 0:
        message.seconds, message.nanos = value.days * _DAY_SECONDS + value.seconds, value.microseconds * 1000
    else:
        message.FromTimedelta(value)


def duration_from_proto(message: Duration) -> timedelta:
    """As `Duration.ToTimedelta`."""
    seconds, nanos = message.seconds, message.nanos
    try:
        return timedelta(0, seconds, nanos // 1000) if nanos >= 0 else message.ToTimedelta()
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"not a duration: {error}") from error


def time_to_proto(value: datetime) -> Timestamp:
    """As `Timestamp.FromDatetime`, in a fraction of its time; refuses a time without its zone."""
    since = value - _EPOCH
    return Timestamp(seconds=since.days * _DAY_SECONDS + since.seconds, nanos=since.microseconds * 1000)


def fill_time(message: Timestamp, value: datetime) -> None:
    """As `time_to_proto`, in place."""
    since = value - _EPOCH
    message.seconds, message.nanos = since.days * _DAY_SECONDS + since.seconds, since.microseconds * 1000


def time_from_proto(message: Timestamp) -> datetime:
    """As `Timestamp.ToDatetime`."""
    seconds, nanos = message.seconds, message.nanos
    if not 0 <= nanos < _SECOND_NANOS:
        raise InvalidRequest(f"not a time: {nanos} nanoseconds")
    try:
        return _EPOCH + timedelta(0, seconds, nanos // 1000)
    except OverflowError as error:
        raise InvalidRequest(f"not a time: {error}") from error


def check_time(message: Timestamp) -> None:
    """Raises as `time_from_proto`, for whoever does not need the time itself."""
    if not (0 <= message.nanos < _SECOND_NANOS and _FIRST_SECOND <= message.seconds <= _LAST_SECOND):
        time_from_proto(message)


def resources_to_proto(value: Resources) -> types_pb2.Resources:
    return types_pb2.Resources(
        cpu_millis=value.cpu_millis, memory_bytes=value.memory_bytes, disk_bytes=value.disk_bytes
    )


def fill_resources(message: types_pb2.Resources, value: Resources) -> None:
    """As `resources_to_proto`, in place."""
    message.cpu_millis, message.memory_bytes, message.disk_bytes = (
        value.cpu_millis,
        value.memory_bytes,
        value.disk_bytes,
    )


def resources_from_proto(message: types_pb2.Resources) -> Resources:
    return Resources(cpu_millis=message.cpu_millis, memory_bytes=message.memory_bytes, disk_bytes=message.disk_bytes)


def resource_sample_to_proto(value: ResourceSample) -> types_pb2.ResourceSample:
    return types_pb2.ResourceSample(
        at=time_to_proto(value.at),
        cpu_cores=value.cpu_cores,
        memory_bytes=value.memory_bytes,
        disk_read_bytes=value.disk_read_bytes,
        disk_written_bytes=value.disk_written_bytes,
        network_received_bytes=value.network_received_bytes,
        network_sent_bytes=value.network_sent_bytes,
    )


def resource_sample_from_proto(message: types_pb2.ResourceSample) -> ResourceSample:
    return ResourceSample(
        at=time_from_proto(message.at),
        cpu_cores=message.cpu_cores,
        memory_bytes=message.memory_bytes,
        disk_read_bytes=message.disk_read_bytes,
        disk_written_bytes=message.disk_written_bytes,
        network_received_bytes=message.network_received_bytes,
        network_sent_bytes=message.network_sent_bytes,
    )


def resource_usage_to_proto(value: ResourceUsage) -> types_pb2.ResourceUsage:
    return types_pb2.ResourceUsage(
        cpu_time=duration_to_proto(value.cpu_time),
        peak_memory_bytes=value.peak_memory_bytes,
        disk_read_bytes=value.disk_read_bytes,
        disk_written_bytes=value.disk_written_bytes,
        wall_time=duration_to_proto(value.wall_time),
    )


def resource_usage_from_proto(message: types_pb2.ResourceUsage) -> ResourceUsage:
    return ResourceUsage(
        cpu_time=duration_from_proto(message.cpu_time),
        peak_memory_bytes=message.peak_memory_bytes,
        disk_read_bytes=message.disk_read_bytes,
        disk_written_bytes=message.disk_written_bytes,
        wall_time=duration_from_proto(message.wall_time),
    )


def cache_origin_to_proto(value: CacheOrigin) -> types_pb2.CacheOrigin:
    return types_pb2.CacheOrigin(run_id=value.run_id, at=time_to_proto(value.at))


def cache_origin_from_proto(message: types_pb2.CacheOrigin) -> CacheOrigin:
    return CacheOrigin(run_id=message.run_id, at=time_from_proto(message.at))


def case_result_to_proto(value: CaseResult) -> types_pb2.CaseResult:
    message = types_pb2.CaseResult()
    fill_case_result(message, value)
    return message


def fill_case_result(message: types_pb2.CaseResult, value: CaseResult) -> None:
    """In place, and only what there is: most results have none of the texts."""
    message.case_id, message.outcome = text_to_proto(value.case_id), outcome_to_proto(value.outcome)
    fill_duration(message.duration, value.duration)
    if value.started_at is not None:
        fill_time(message.started_at, value.started_at)
    if value.message or value.details or value.stdout or value.stderr or value.log or value.file or value.uncacheable:
        for name in _TEXTS:
            if text := getattr(value, name):
                setattr(message, name, text_to_proto(text))
    if value.line:
        message.line = value.line
    if value.truncated:
        message.truncated = True
    for name, text in value.properties.items():
        message.properties[text_to_proto(name)] = text_to_proto(text)
    if value.cached_from is not None:
        message.cached_from.CopyFrom(cache_origin_to_proto(value.cached_from))
    if value.assertions:
        message.assertions.extend(map(_assertion_to_proto, value.assertions))


def case_result_from_proto(message: types_pb2.CaseResult) -> CaseResult:
    properties, assertions = message.properties, message.assertions  # most results have none: to ask is cheaper
    return CaseResult(
        case_id=message.case_id,
        outcome=outcome_from_proto(message.outcome),
        duration=duration_from_proto(message.duration),
        started_at=time_from_proto(message.started_at) if message.HasField("started_at") else None,
        message=message.message,
        details=message.details,
        stdout=message.stdout,
        stderr=message.stderr,
        log=message.log,
        file=message.file,
        line=message.line,
        truncated=message.truncated,
        properties=dict(properties) if properties else {},
        cached_from=cache_origin_from_proto(message.cached_from) if message.HasField("cached_from") else None,
        uncacheable=message.uncacheable,
        assertions=tuple([Assertion(name=each.name, passed=each.passed, message=each.message) for each in assertions])
        if assertions
        else (),
    )


def attempts_done_in(
    message: worker_pb2.DoneAttempts,
) -> Iterator[tuple[str, int, Sequence[types_pb2.CaseResult], types_pb2.ResourceUsage | None]]:
    """
    Of each attempt its shard's id, its token, its results and what it used.

    Raises:
        InvalidRequest: it cannot be told which of them has what.
    """
    shard_ids, tokens, results = list(message.shard_ids), list(message.tokens), list(message.results)
    counts = list(message.result_counts) or [1] * len(shard_ids)
    usages: Sequence[types_pb2.ResourceUsage | None] = list(message.usages) or [None] * len(shard_ids)
    of_each = len(shard_ids) == len(tokens) == len(counts) == len(usages)
    if not of_each or min(counts, default=0) < 0 or sum(counts) != len(results):
        raise InvalidRequest(f"{len(shard_ids)} attempts are told of with parts of others")
    end = 0
    for shard_id, token, count, usage in zip(shard_ids, tokens, counts, usages, strict=True):
        begin, end = end, end + count
        yield shard_id, token, results[begin:end], usage


def _assertion_to_proto(value: Assertion) -> types_pb2.Assertion:
    return types_pb2.Assertion(
        name=text_to_proto(value.name), passed=value.passed, message=text_to_proto(value.message)
    )


def service_to_proto(value: Service) -> worker_pb2.Service:
    ready = value.ready
    return worker_pb2.Service(
        port=value.port,
        ports=dict(value.ports),
        publish=dict(value.publish),
        grace=duration_to_proto(value.grace),
        ready=worker_pb2.Probe(
            http=ready.http,
            status=ready.status,
            tcp=ready.tcp,
            shell=ready.shell,
            interval=duration_to_proto(ready.interval),
            timeout=duration_to_proto(ready.timeout),
        ),
    )


def service_from_proto(message: worker_pb2.Service) -> Service:
    ready = message.ready
    return Service(
        port=message.port,
        ports=dict(message.ports),
        publish=dict(message.publish),
        grace=duration_from_proto(message.grace),
        ready=Probe(
            http=ready.http,
            status=ready.status,
            tcp=ready.tcp,
            shell=ready.shell,
            interval=duration_from_proto(ready.interval),
            timeout=duration_from_proto(ready.timeout),
        ),
    )


def load_sample_to_proto(value: LoadSample) -> worker_pb2.LoadSample:
    return worker_pb2.LoadSample(
        second=value.second,
        length=duration_to_proto(value.length),
        users=value.users,
        arrivals=value.arrivals,
        lag=duration_to_proto(value.lag),
        last=value.last,
        requests=[
            worker_pb2.RequestSample(name=text_to_proto(each.name), errors=each.errors, histogram=each.histogram)
            for each in value.requests
        ],
    )


def load_sample_from_proto(message: worker_pb2.LoadSample) -> LoadSample:
    return LoadSample(
        second=message.second,
        length=duration_from_proto(message.length),
        users=message.users,
        arrivals=message.arrivals,
        lag=duration_from_proto(message.lag),
        last=message.last,
        requests=tuple(
            RequestSample(name=each.name, errors=each.errors, histogram=each.histogram) for each in message.requests
        ),
    )


def load_row_to_proto(value: LoadRow) -> run_pb2.LoadRow:
    return run_pb2.LoadRow(
        request=text_to_proto(value.request),
        requests=value.requests,
        errors=value.errors,
        throughput=value.throughput,
        mean=duration_to_proto(value.mean),
        p50=duration_to_proto(value.p50),
        p95=duration_to_proto(value.p95),
        p99=duration_to_proto(value.p99),
        max=duration_to_proto(value.max),
    )


def load_row_from_proto(message: run_pb2.LoadRow) -> LoadRow:
    return LoadRow(
        request=message.request,
        requests=message.requests,
        errors=message.errors,
        throughput=message.throughput,
        mean=duration_from_proto(message.mean),
        p50=duration_from_proto(message.p50),
        p95=duration_from_proto(message.p95),
        p99=duration_from_proto(message.p99),
        max=duration_from_proto(message.max),
    )


def planned_case_to_proto(value: PlannedCase) -> types_pb2.PlannedCase:
    return types_pb2.PlannedCase(
        case_id=text_to_proto(value.case_id),
        file=text_to_proto(value.file),
        line=value.line,
        group=text_to_proto(value.group),
    )


def planned_case_from_proto(message: types_pb2.PlannedCase) -> PlannedCase:
    return PlannedCase(case_id=message.case_id, file=message.file, line=message.line, group=message.group)


def report_options_to_proto(value: Mapping[str, ReportOptions]) -> dict[str, worker_pb2.ReportOptions]:
    return {
        glob: worker_pb2.ReportOptions(format=each.form, fail_level=each.fail_level) for glob, each in value.items()
    }


def report_options_from_proto(message: Mapping[str, worker_pb2.ReportOptions]) -> dict[str, ReportOptions]:
    return {glob: ReportOptions(form=each.format, fail_level=each.fail_level) for glob, each in message.items()}


def artifact_to_proto(value: Artifact) -> types_pb2.Artifact:
    return types_pb2.Artifact(
        path=text_to_proto(value.path),
        digest=value.digest,
        size_bytes=value.size_bytes,
        media_type=value.media_type,
        executable=value.executable,
        case_id=text_to_proto(value.case_id),
        attempt=value.attempt,
        created_at=None if value.created_at is None else time_to_proto(value.created_at),
        expires_at=None if value.expires_at is None else time_to_proto(value.expires_at),
    )


def artifact_from_proto(message: types_pb2.Artifact) -> Artifact:
    return Artifact(
        path=message.path,
        digest=message.digest,
        size_bytes=message.size_bytes,
        media_type=message.media_type,
        executable=message.executable,
        case_id=message.case_id,
        attempt=message.attempt,
        created_at=time_from_proto(message.created_at) if message.HasField("created_at") else None,
        expires_at=time_from_proto(message.expires_at) if message.HasField("expires_at") else None,
    )
