"""Ids, clocks, states, and other small values that every part shares."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from fleetest.common.clock import ManualClock, SystemClock
from fleetest.common.ids import day_of_run, new_run_id, new_token
from fleetest.common.results import Counts
from fleetest.common.states import Outcome, RunState, TaskState
from fleetest.common.tasks import Resources, RunnerType, Task
from fleetest.common.version import version

# -- ids


def test_run_ids_sort_by_the_time_of_submission_and_carry_their_day() -> None:
    before = datetime.now(UTC).date()
    first = new_run_id()
    ids = {new_run_id() for _ in range(100)}
    after = datetime.now(UTC).date()

    assert len(ids) == 100
    assert all(UUID(each).version == 7 and UUID(each).variant == "specified in RFC 4122" for each in ids)
    assert all(each[:12] >= first[:12] for each in ids)
    assert before <= day_of_run(first) <= after


def test_the_day_of_a_run_is_that_of_its_milliseconds() -> None:
    assert (
        day_of_run("017f22e2-79b0-7cc3-98c4-dc0c0c07398f") == datetime(2022, 2, 22, tzinfo=UTC).date()
    )  # RFC 9562 A.6


@pytest.mark.parametrize(
    "run_id", ["", "7", "x" * 36, "919108f7-52d1-4320-9bac-f847db4148a8", "f" * 12 + "7" + "f" * 19]
)
def test_what_is_no_run_id_has_no_day(run_id: str) -> None:
    with pytest.raises(ValueError, match="not a run id"):
        day_of_run(run_id)


def test_tokens_are_long_and_different() -> None:
    assert len({new_token() for _ in range(10)}) == 10
    assert len(new_token()) >= 43


# -- clocks


def test_the_systems_clock_is_aware_and_goes_forward() -> None:
    clock = SystemClock()

    first, second = clock.monotonic(), clock.monotonic()

    assert clock.now().tzinfo is UTC
    assert second >= first


def test_a_manual_clock_goes_as_far_as_it_is_turned() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    clock = ManualClock(start)

    clock.advance(timedelta(seconds=90))

    assert (clock.now(), clock.monotonic()) == (start + timedelta(seconds=90), 90.0)


# -- states and amounts


def test_six_states_are_ends_of_a_task() -> None:
    assert [state.value for state in TaskState if state.ended] == [
        "passed",
        "failed",
        "errored",
        "timed_out",
        "cancelled",
        "skipped",
    ]
    assert [state for state in RunState if not state.ended] == [RunState.RUNNING]


def test_three_outcomes_make_a_task_fail() -> None:
    assert {outcome for outcome in Outcome if outcome.bad} == {Outcome.FAILED, Outcome.ERROR, Outcome.TIMED_OUT}


def test_pytest_tasks_are_planned_and_commands_that_list_their_cases() -> None:
    command = Task(name="a", type="command", runner=RunnerType.COMMAND, shell="x")

    assert Task(name="a", type="pytest").planned
    assert replace(command, cases="ls").planned
    assert not command.planned


def test_counts_add_up_field_by_field() -> None:
    total = Counts(planned=9, passed=3, failed=1, flaky=1) + Counts(error=1, skipped=1, timed_out=1, xfailed=1)

    assert (total.planned, total.done, total.bad, total.flaky) == (9, 8, 3, 1)


@pytest.mark.parametrize("lack", ["cpu_millis", "memory_bytes", "disk_bytes"])
def test_something_fits_only_when_all_of_it_does(lack: str) -> None:
    room = Resources(cpu_millis=2, memory_bytes=2, disk_bytes=2)

    assert room.fits(room)
    assert not (room + Resources(**{lack: 1})).fits(room)
    assert (room + Resources(**{lack: 1}) - Resources(**{lack: 1})) == room


def test_the_version_is_the_installed_one() -> None:
    assert version().count(".") >= 2
