from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fleetest.common.coverage import FileCoverage
from fleetest.common.errors import InvalidRequest
from fleetest.common.load import LoadSample, RequestSample
from fleetest.common.results import Artifact, CaseResult, PlannedCase, ResourceSample, ResourceUsage
from fleetest.common.states import Outcome, ShardKind, Verdict
from fleetest.common.tasks import Coverage, Network, Pull, ReportOptions, Resources
from fleetest.common.version_control import VersionControl
from fleetest.v1 import types_pb2, worker_pb2
from fleetest.worker import convert
from fleetest.worker.assignments import AttemptRef, Ended, TaskSpec
from fleetest.worker.messages import (
    Acknowledged,
    Drain,
    Goodbye,
    Heartbeat,
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
    Results,
    Running,
)

texts = st.text(st.characters(codec="utf-8"), max_size=10)
tuples = st.lists(texts, max_size=3).map(tuple)
sizes = st.integers(0, 2**63 - 1)
lines = st.integers(0, 2**31 - 1)
durations = st.timedeltas(timedelta(), timedelta(days=3000))
refs = st.builds(AttemptRef, run_id=texts, shard_id=texts, token=sizes)
usages = st.builds(ResourceUsage, cpu_time=durations, peak_memory_bytes=sizes)
results = st.builds(CaseResult, case_id=texts, outcome=st.sampled_from(Outcome), duration=durations)
endings = st.builds(Ended, verdict=st.sampled_from(Verdict), reason=texts, usage=usages, missing=tuples, extra=tuples)
bodies = st.one_of(
    st.builds(Running, variables=st.dictionaries(texts, texts, max_size=2)),
    st.builds(
        Planned,
        cases=st.lists(st.builds(PlannedCase, case_id=texts), max_size=3).map(tuple),
        deselected=lines,
        collection_errors=st.lists(results, max_size=2).map(tuple),
        fingerprints=st.dictionaries(texts, texts, max_size=2),
    ),
    st.builds(Results, results=st.lists(results, max_size=3).map(tuple)),
    st.builds(HandedBack, case_ids=tuples),
    st.builds(Output, offset_bytes=sizes, content=st.binary(max_size=10), truncated=st.booleans()),
    st.builds(
        ArtifactsLeft,
        artifacts=st.lists(st.builds(Artifact, path=texts, digest=texts, size_bytes=sizes), max_size=2).map(tuple),
        problems=tuples,
    ),
    st.builds(
        Loaded,
        sample=st.builds(
            LoadSample,
            second=lines,
            length=durations,
            users=lines,
            arrivals=sizes,
            lag=durations,
            last=st.booleans(),
            requests=st.lists(st.builds(RequestSample, name=texts, errors=sizes, histogram=texts), max_size=2).map(
                tuple
            ),
        ),
    ),
    st.builds(
        CoverageMeasured,
        files=st.dictionaries(texts, st.builds(FileCoverage, lines=st.binary(max_size=3), branches=lines), max_size=2),
        combined=st.booleans(),
    ),
    endings,
    st.builds(Done, results=st.lists(results, max_size=2).map(tuple), usage=usages),
)
reports = st.builds(Report, ref=refs, body=bodies)
specs = st.builds(
    TaskSpec,
    spec_id=texts,
    environment_key=texts,
    task_id=texts,
    type=texts,
    project=texts,
    workspace_digest=texts,
    command=tuples,
    shell=texts,
    setup=tuples,
    setup_digest=texts,
    env=st.dictionaries(texts, texts, max_size=2),
    working_directory=texts,
    python=texts,
    image=texts,
    pull=st.sampled_from(Pull),
    network=st.sampled_from(Network),
    executor=texts,
    limits=st.builds(Resources, cpu_millis=sizes, memory_bytes=sizes, disk_bytes=sizes),
    start_timeout=st.none() | durations,
    silence_timeout=st.none() | durations,
    total_timeout=st.none() | durations,
    artifacts=tuples,
    coverage=st.none() | st.builds(Coverage, source=tuples, branch=st.none() | st.booleans(), config=texts),
    reports=tuples,
    report_options=st.dictionaries(texts, st.builds(ReportOptions, form=texts, fail_level=texts), max_size=2),
    secret_names=tuples,
    version_control=st.builds(VersionControl, commit=texts, dirty=st.booleans()),
    random_seed=sizes,
    fingerprints=st.booleans(),
    cache_inputs=tuples,
    gang=st.booleans(),
)
REF = AttemptRef(run_id="r", shard_id="unit#0", token=7)
PROTO_REF = types_pb2.AttemptRef(run_id="r", shard_id="unit#0", token=7)


@given(st.lists(reports, max_size=3).map(tuple))
def test_reports_survive_the_spool(batch):
    done = [report for report in batch if isinstance(report.body, Done)]
    runs = [report.ref.run_id for report in done]

    read = convert.reports_from_bytes(convert.reports_to_bytes(batch))

    assert [report for report in read if report not in done] == [report for report in batch if report not in done]
    assert [report for report in read if report in done] == sorted(
        done, key=lambda report: runs.index(report.ref.run_id)
    )


@given(specs)
def test_task_spec_survives_the_wire(spec):
    sent = convert.task_spec_to_proto(spec).SerializeToString()

    assert convert.task_spec_from_proto(worker_pb2.TaskSpec.FromString(sent)) == spec


@given(specs)
def test_spec_of_a_run_like_one_before_has_its_own_name_and_seed(spec):
    alike = [replace(spec, spec_id=f"{run}/unit", random_seed=run) for run in (1, 2)]
    carried = {}

    for each in alike:
        assign = worker_pb2.Assign(specs=[convert.task_spec_to_proto(each)])
        convert.instruction_from_proto(worker_pb2.MasterMessage(assign=assign), carried)

    assert list(carried.values()) == alike


def test_stored_batch_is_sent_with_its_number():
    report = Report(ref=REF, body=Running(variables={"HOST": "ready"}))

    message = convert.statement_to_proto(StoredBatch(sequence=5, payload=convert.reports_to_bytes([report])))

    assert message.reports.sequence == 5
    assert convert.report_from_proto(message.reports.reports[0]) == report


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xff",
        worker_pb2.ReportBatch(reports=[worker_pb2.Report()]),
        worker_pb2.ReportBatch(done=[worker_pb2.DoneAttempts(shard_ids=["a#0"], tokens=[1])]),
    ],
)
def test_reports_that_cannot_be_understood_are_refused(payload):
    encoded = payload if isinstance(payload, bytes) else payload.SerializeToString()

    with pytest.raises(InvalidRequest):
        convert.reports_from_bytes(encoded)


def test_heartbeat_says_what_it_knows():
    sample = ResourceSample(at=datetime(2026, 11, 21, tzinfo=UTC), memory_bytes=3)
    other = AttemptRef(run_id="r", shard_id="unit#1", token=8)

    heartbeat = Heartbeat(host=None, attempts={REF: sample, other: None}, not_ready_reason="sick", draining=True)
    message = convert.statement_to_proto(heartbeat).heartbeat

    assert not message.HasField("host")
    assert [each.HasField("sample") for each in message.attempts] == [True, False]
    assert (message.ready, message.not_ready_reason, message.draining) == (False, "sick", True)


def test_want_and_goodbye_say_what_they_mean():
    want = Want(number=3, shards=2, free=Resources(cpu_millis=1), warm_environment_keys=("a",))

    message = convert.statement_to_proto(want).want

    assert (message.number, message.shards, message.free.cpu_millis) == (3, 2, 1)
    assert list(message.warm_environment_keys) == ["a"]
    assert convert.statement_to_proto(Goodbye(reason="home")).goodbye.reason == "home"


@pytest.mark.parametrize(
    ("message", "instruction"),
    [
        ({"welcome": worker_pb2.Welcome(forget=[PROTO_REF])}, Welcome(forget=(REF,))),
        ({"acknowledged": worker_pb2.Acknowledged(sequence=4)}, Acknowledged(sequence=4)),
        ({"drain": worker_pb2.Drain(reason="old")}, Drain(reason="old")),
        (
            {"stop": worker_pb2.Stop(attempts=[PROTO_REF], reason="no", finish_running_case=True)},
            Stop(refs=(REF,), reason="no", grace=timedelta(), finish_running_case=True),
        ),
        ({}, None),
    ],
)
def test_instructions_are_understood_and_newer_ones_passed_over(message, instruction):
    assert convert.instruction_from_proto(worker_pb2.MasterMessage(**message), {}) == instruction


def test_assignment_finds_its_task_among_those_the_stream_has_carried():
    spec = TaskSpec(spec_id="s", environment_key="e", task_id="unit", type="pytest", project="p")
    first = worker_pb2.Assignment(
        attempt=PROTO_REF,
        spec_id="s",
        kind=types_pb2.SHARD_KIND_PLAN,
        number=2,
        secrets={"A": "hush"},
        more_shard_ids=["unit#9"],
        more_numbers=[3],
        more_shard_indexes=[9],
    )
    unknown = worker_pb2.Assignment(attempt=PROTO_REF, spec_id="other", kind=types_pb2.SHARD_KIND_PLAN)
    carried = {}
    first_message = worker_pb2.Assign(want_number=1, assignments=[first], specs=[convert.task_spec_to_proto(spec)])
    later_message = worker_pb2.Assign(want_number=2, assignments=[first, unknown])

    convert.instruction_from_proto(worker_pb2.MasterMessage(assign=first_message), carried)
    assign = convert.instruction_from_proto(worker_pb2.MasterMessage(assign=later_message), carried)

    assignment, more = assign.assignments
    assert (assignment.spec, assignment.kind, assignment.number) == (spec, ShardKind.PLAN, 2)
    assert assignment.secrets == {"A": "hush"}
    assert "hush" not in repr(assignment)
    assert more == replace(assignment, ref=replace(REF, shard_id="unit#9"), number=3, shard_index=9)
    assert list(assign.unreadable) == [REF]
