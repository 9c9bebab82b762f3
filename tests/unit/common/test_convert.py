from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from fleetest.common import convert
from fleetest.common.convert_version_control import version_control_from_proto, version_control_to_proto
from fleetest.common.errors import InvalidRequest
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
from fleetest.common.tasks import Resources
from fleetest.common.version_control import VersionControl
from fleetest.v1 import types_pb2

texts = st.text(st.characters(codec="utf-8"), max_size=20)
sizes = st.integers(0, 2**63 - 1)
lines = st.integers(0, 2**31 - 1)
durations = st.timedeltas(timedelta(days=-3000), timedelta(days=3000))
times = st.datetimes(timezones=st.just(UTC))

resources = st.builds(Resources, cpu_millis=sizes, memory_bytes=sizes, disk_bytes=sizes)
artifacts = st.builds(
    Artifact,
    path=texts,
    digest=texts,
    size_bytes=sizes,
    media_type=texts,
    executable=st.booleans(),
    case_id=texts,
    attempt=lines,
    created_at=st.none() | times,
    expires_at=st.none() | times,
)
planned_cases = st.builds(PlannedCase, case_id=texts, file=texts, line=lines, group=texts)
version_controls = st.builds(
    VersionControl, commit=texts, branch=texts, pull_request=texts, dirty=st.booleans(), described_version=texts
)
samples = st.builds(
    ResourceSample,
    at=times,
    cpu_cores=st.floats(0, 1000),
    memory_bytes=sizes,
    disk_read_bytes=sizes,
    disk_written_bytes=sizes,
    network_received_bytes=sizes,
    network_sent_bytes=sizes,
)
usages = st.builds(
    ResourceUsage,
    cpu_time=durations,
    peak_memory_bytes=sizes,
    disk_read_bytes=sizes,
    disk_written_bytes=sizes,
    wall_time=durations,
)
case_results = st.builds(
    CaseResult,
    case_id=texts,
    outcome=st.sampled_from(Outcome),
    duration=durations,
    started_at=st.none() | times,
    message=texts,
    details=texts,
    stdout=texts,
    stderr=texts,
    log=texts,
    file=texts,
    line=lines,
    truncated=st.booleans(),
    properties=st.dictionaries(texts, texts, max_size=3),
    uncacheable=texts,
    assertions=st.lists(st.builds(Assertion, name=texts, passed=st.booleans(), message=texts), max_size=3).map(tuple),
    cached_from=st.none() | st.builds(CacheOrigin, run_id=texts, at=times),
)


@given(resources, artifacts, planned_cases, version_controls)
def test_plain_values_survive_the_wire(wealth, artifact, planned, version_control):
    assert convert.resources_from_proto(convert.resources_to_proto(wealth)) == wealth
    assert convert.artifact_from_proto(convert.artifact_to_proto(artifact)) == artifact
    assert convert.planned_case_from_proto(convert.planned_case_to_proto(planned)) == planned
    assert version_control_from_proto(version_control_to_proto(version_control)) == version_control


@given(samples, usages)
def test_measurements_survive_the_wire(sample, usage):
    assert convert.resource_sample_from_proto(convert.resource_sample_to_proto(sample)) == sample
    assert convert.resource_usage_from_proto(convert.resource_usage_to_proto(usage)) == usage


@given(case_results)
def test_case_result_survives_the_wire(result):
    sent = convert.case_result_to_proto(result).SerializeToString()

    received = convert.case_result_from_proto(types_pb2.CaseResult.FromString(sent))

    assert received == result


@pytest.mark.parametrize(
    ("words", "to_proto", "from_proto"),
    [
        (TaskState, convert.task_state_to_proto, convert.task_state_from_proto),
        (RunState, convert.run_state_to_proto, convert.run_state_from_proto),
        (Outcome, convert.outcome_to_proto, convert.outcome_from_proto),
        (ShardKind, convert.shard_kind_to_proto, convert.shard_kind_from_proto),
        (Verdict, convert.verdict_to_proto, convert.verdict_from_proto),
        (WorkerState, convert.worker_state_to_proto, convert.worker_state_from_proto),
    ],
)
def test_every_word_has_its_number_and_other_numbers_are_refused(words, to_proto, from_proto):
    numbers = [to_proto(word) for word in words]

    assert numbers == list(range(1, len(words) + 1))
    assert [from_proto(number) for number in numbers] == list(words)
    for unknown in (0, len(words) + 1):
        with pytest.raises(InvalidRequest, match=words.__name__):
            from_proto(unknown)


def test_time_of_another_zone_is_the_same_moment_in_utc():
    local = datetime(2026, 11, 21, 12, tzinfo=timezone(timedelta(hours=2)))

    received = convert.time_from_proto(convert.time_to_proto(local))

    assert received == local
    assert received.tzinfo is UTC


def test_text_that_utf8_cannot_carry_is_escaped_not_lost():
    result = CaseResult(case_id="test[\udc80é]", outcome=Outcome.PASSED)

    received = convert.case_result_from_proto(convert.case_result_to_proto(result))

    assert received.case_id == "test[\\udc80é]"


def test_absurd_times_are_refused():
    with pytest.raises(InvalidRequest, match="not a duration"):
        convert.duration_from_proto(Duration(seconds=2**62))
    with pytest.raises(InvalidRequest, match="not a time"):
        convert.time_from_proto(Timestamp(seconds=2**62))
