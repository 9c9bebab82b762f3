"""Events as they are stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from fleetest.common.convert import case_result_from_proto, case_result_to_proto
from fleetest.common.coverage import CoverageTotals, FileCoverage
from fleetest.common.errors import InvalidRequest
from fleetest.common.load import LoadSample, RequestSample
from fleetest.common.results import Artifact, CacheOrigin, CaseResult, PlannedCase, ResourceUsage
from fleetest.common.states import Outcome, RunState, ShardKind, TaskState, Verdict
from fleetest.common.tasks import CachePolicy, Need, Resources, RetryOn, RunnerType, Split, Task, Timeouts, When
from fleetest.common.version_control import VersionControl
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
    encode,
)
from fleetest.master.runs.results import KeptResult, decode_result, encode_result
from fleetest.master.servicers.convert_results import kept_result, put_result
from fleetest.v1 import types_pb2

SECOND = timedelta(seconds=1)
AT = datetime(2026, 11, 3, 12, 30, 15, 123456, tzinfo=UTC)

TASK = Task(
    name="unit[python=3.12]",
    type="pytest",
    args=("tests", "-k", "nicht schnell – ☃"),
    env={"A": "1"},
    requirements={"os": "linux"},
    resources=Resources(cpu_millis=500, memory_bytes=1 << 40),
    needs=(Need(task="lint", when=When.ALWAYS),),
    timeouts=Timeouts(queue=timedelta(minutes=1), start=None),
    retries=2,
    retry_on=frozenset({RetryOn.ERRORED, RetryOn.FAILED}),
    split=Split.GROUP,
    cache=CachePolicy(inputs=("data/*",), sample=0.1),
)

RESULT = kept_result(case_result_to_proto(CaseResult(case_id="a", outcome=Outcome.PASSED)))

EVENTS: tuple[Event, ...] = (
    RunSubmitted(
        at=AT,
        project="p",
        suite_name="s",
        tasks=(TASK, replace(TASK, name="lint", type="command", runner=RunnerType.COMMAND, needs=())),
        version_control=VersionControl(commit="abc", dirty=True),
        labels={"team": "a"},
        fail_fast=True,
    ),
    TaskQueued(at=AT, task_id="unit"),
    CasesAskedBack(at=AT, shard_id="unit#0", task_id="unit", token=3, case_ids=("a", "b"), parts=2),
    CasesHandedBack(
        at=AT,
        shard_id="unit#0",
        task_id="unit",
        token=3,
        case_ids=("a",),
        shards=(ShardPlan(shard_id="unit#1", cases=(0,), predicted=timedelta(seconds=1)),),
    ),
    TaskPlanned(
        at=AT,
        task_id="unit",
        cases=(PlannedCase(case_id="a", file="f.py", line=3, group="g"),),
        shards=(ShardPlan(shard_id="unit#0", cases=(0,), predicted=timedelta(microseconds=1)),),
        predicted=timedelta(days=2),
        cache_keys={"f.py": "a/b/c"},
        sampled={"a": CacheOrigin(run_id="r0", at=AT)},
    ),
    AttemptStarted(
        at=AT, shard_id="unit#0", task_id="unit", number=1, worker_id="w", instance="i", kind=ShardKind.EXECUTE
    ),
    AttemptRunning(at=AT, shard_id="unit#0", token=3),
    CasesFinished(
        at=AT,
        shard_id="unit#0",
        task_id="unit",
        token=3,
        worker_id="w",
        results=(KeptResult(case_id="a", outcome=Outcome.XFAILED, started_at=AT, properties={"k": "v"}),),
    ),
    WrongHit(
        at=AT,
        task_id="unit",
        case_id="a",
        file="f.py",
        outcome=Outcome.FAILED,
        cached_from=CacheOrigin(run_id="r0", at=AT),
    ),
    GangStarted(at=AT, task_id="unit", start_at=AT + timedelta(seconds=1)),
    GangBroken(at=AT, task_id="unit", reason="lost"),
    LoadSampled(
        at=AT,
        shard_id="load#0",
        task_id="load",
        token=3,
        sample=LoadSample(
            second=4, length=SECOND, requests=(RequestSample(name="GET /", errors=1, histogram="HISTFAAA"),)
        ),
    ),
    PerformanceMeasured(at=AT, task_id="load", second=5, window=SECOND, throughput=39.5, p95=SECOND),
    CoverageUpdated(
        at=AT,
        task_id="coverage",
        files={"a.py": FileCoverage(lines=b"\x06", covered=b"\x02")},
        totals=CoverageTotals(lines=2, covered=1),
        combined=True,
    ),
    ArtifactsSaved(
        at=AT, shard_id="unit#0", task_id="unit", artifacts=(Artifact(path="x", digest="d", size_bytes=1 << 33),)
    ),
    AttemptEnded(
        at=AT,
        shard_id="unit#0",
        task_id="unit",
        token=3,
        verdict=Verdict.ERRORED,
        usage=ResourceUsage(cpu_time=timedelta(seconds=1.5)),
        will_retry=True,
        retry_at=AT,
        case_ids=("a",),
    ),
    AttemptsStarted(
        at=AT,
        task_id="unit",
        worker_id="w",
        instance="i",
        kind=ShardKind.EXECUTE,
        shard_ids=["unit#0", "unit#1"],
        numbers=[1, 3],
    ),
    AttemptsDone(
        at=AT,
        task_id="unit",
        worker_id="w",
        attempts=[
            DoneAttempt(shard_id="unit#0", token=3, results=(RESULT,), usage=ResourceUsage(peak_memory_bytes=7)),
            DoneAttempt(shard_id="unit#1", token=4, results=(), reason="nothing to do"),
        ],
    ),
    AttemptDone(
        at=AT,
        shard_id="unit#0",
        task_id="unit",
        token=3,
        worker_id="w",
        results=(RESULT,),
    ),
    CancelRequested(
        at=AT, task_id="unit", by="user:x", grace=timedelta(seconds=3), finish_running_case=True, spares="e2e"
    ),
    TaskEnded(at=AT, task_id="unit", state=TaskState.TIMED_OUT, reason="late"),
    RunEnded(at=AT, state=RunState.FAILED),
)


def test_every_event_comes_back_as_it_was() -> None:
    assert decode(encode(EVENTS)) == EVENTS
    assert {type(event) for event in EVENTS} == set(Event.__args__)


def test_results_of_a_log_from_before_they_were_kept_whole_are_read() -> None:
    before = CaseResult(case_id="a", outcome=Outcome.FAILED, duration=timedelta(seconds=2), message="no", line=3)
    older = msgspec.msgpack.encode(
        [
            {
                "type": "CasesFinished",
                "at": AT,
                "shard_id": "unit#0",
                "task_id": "unit",
                "token": 3,
                "worker_id": "w",
                "results": [before],
            }
        ]
    )

    [event] = decode(older)

    assert isinstance(event, CasesFinished)
    [result] = event.results
    message = types_pb2.CaseResult()
    put_result(result, message)
    assert case_result_from_proto(message) == before


def test_a_result_is_kept_whole_under_the_name_that_it_was_accepted_by() -> None:
    sent = CaseResult(case_id="lint", outcome=Outcome.FAILED, started_at=AT, message="no", details="at 3", stdout="out")

    kept = kept_result(case_result_to_proto(sent), clock_ahead=timedelta(seconds=2))
    stored = decode_result(encode_result(msgspec.structs.replace(kept, case_id="lint [1/2]")))
    message = types_pb2.CaseResult()
    put_result(stored, message)

    assert (kept.case_id, kept.outcome) == ("lint", Outcome.FAILED)
    expected = msgspec.structs.replace(sent, case_id="lint [1/2]", started_at=AT - timedelta(seconds=2))
    assert case_result_from_proto(message) == expected


def test_a_cached_result_is_sent_as_it_was_with_its_origin() -> None:
    origin = CacheOrigin(run_id="r0", at=AT)
    kept = kept_result(case_result_to_proto(CaseResult(case_id="a", outcome=Outcome.PASSED, properties={"k": "v"})))
    message = types_pb2.CaseResult()

    put_result(msgspec.structs.replace(kept, cached_from=origin), message)

    received = case_result_from_proto(message)
    assert (received.cached_from, received.properties) == (origin, {"k": "v"})


def test_a_result_with_a_time_that_nobody_can_read_is_refused() -> None:
    message = types_pb2.CaseResult(case_id="lint", outcome=types_pb2.OUTCOME_PASSED, started_at=Timestamp(nanos=-1))

    with pytest.raises(InvalidRequest, match="not a time"):
        kept_result(message)


def test_a_field_that_a_newer_version_added_is_passed_over() -> None:
    newer = msgspec.msgpack.encode([{"type": "TaskQueued", "at": AT, "task_id": "unit", "colour": "red"}])

    assert decode(newer) == (TaskQueued(at=AT, task_id="unit"),)


@pytest.mark.parametrize(
    "data",
    [b"", b"garbage", msgspec.msgpack.encode([{"type": "TaskPainted", "at": AT}]), encode(EVENTS)[:-3]],
    ids=["empty", "garbage", "unknown event", "cut off"],
)
def test_what_is_no_commit_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode(data)
