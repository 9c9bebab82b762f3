"""Events as they are stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fleetest.common.results import Artifact, CaseResult, PlannedCase, ResourceUsage, VersionControl
from fleetest.common.states import Outcome, RunState, ShardKind, TaskState, Verdict
from fleetest.common.tasks import Need, Resources, RetryOn, Split, Task, TaskType, Timeouts, When
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
    ShardPlan,
    TaskEnded,
    TaskPlanned,
    TaskQueued,
    decode,
    encode,
)

AT = datetime(2026, 11, 3, 12, 30, 15, 123456, tzinfo=UTC)

TASK = Task(
    name="unit[python=3.12]",
    type=TaskType.PYTEST,
    args=("tests", "-k", "nicht schnell – ☃"),
    env={"A": "1"},
    requirements={"os": "linux"},
    resources=Resources(cpu_millis=500, memory_bytes=1 << 40),
    needs=(Need(task="lint", when=When.ALWAYS),),
    timeouts=Timeouts(queue=timedelta(minutes=1), start=None),
    retries=2,
    retry_on=frozenset({RetryOn.ERRORED, RetryOn.FAILED}),
    split=Split.GROUP,
)

EVENTS: tuple[Event, ...] = (
    RunSubmitted(
        at=AT,
        project="p",
        suite_name="s",
        tasks=(TASK, replace(TASK, name="lint", type=TaskType.COMMAND, needs=())),
        version_control=VersionControl(commit="abc", dirty=True),
        labels={"team": "a"},
        fail_fast=True,
    ),
    TaskQueued(at=AT, task_id="unit"),
    TaskPlanned(
        at=AT,
        task_id="unit",
        cases=(PlannedCase(case_id="a", file="f.py", line=3, group="g"),),
        shards=(ShardPlan(shard_id="unit#0", cases=(0,), predicted=timedelta(microseconds=1)),),
        predicted=timedelta(days=2),
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
        results=(CaseResult(case_id="a", outcome=Outcome.XFAILED, started_at=AT, properties={"k": "v"}),),
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
    CancelRequested(
        at=AT, task_id="unit", by="user:x", grace=timedelta(seconds=3), finish_running_case=True, spares="e2e"
    ),
    TaskEnded(at=AT, task_id="unit", state=TaskState.TIMED_OUT, reason="late"),
    RunEnded(at=AT, state=RunState.FAILED),
)


def test_every_event_comes_back_as_it_was() -> None:
    assert decode(encode(EVENTS)) == EVENTS
    assert {type(event) for event in EVENTS} == set(Event.__args__)


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
