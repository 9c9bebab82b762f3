from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fleetest.common.clock import ManualClock
from fleetest.common.states import Verdict
from fleetest.worker.readiness import Readiness


def failing(times):
    clock = ManualClock(datetime(2026, 11, 21, tzinfo=UTC))
    readiness = Readiness(clock)
    for _ in range(times):
        readiness.attempt_ended(Verdict.ERRORED, "no disk\nmore")
    return readiness, clock


def test_third_infrastructure_failure_in_a_row_makes_a_worker_not_ready():
    assert failing(2)[0].not_ready_reason == ""
    assert failing(3)[0].not_ready_reason == "3 infrastructure failures in a row, the last: no disk"


def test_red_tests_and_cancelled_attempts_do_not_count():
    readiness, _ = failing(2)
    readiness.attempt_ended(Verdict.CANCELLED, "")
    readiness.attempt_ended(Verdict.FAILED, "")
    readiness.attempt_ended(Verdict.ERRORED, "again")

    assert readiness.not_ready_reason == ""


def test_pause_ends_in_a_probe_whose_failure_doubles_it():
    readiness, clock = failing(3)
    clock.advance(timedelta(seconds=30))
    assert readiness.not_ready_reason == ""
    assert readiness.suspect

    readiness.attempt_ended(Verdict.ERRORED, "no disk")
    clock.advance(timedelta(seconds=30))
    assert readiness.not_ready_reason
    clock.advance(timedelta(seconds=30))
    assert not readiness.not_ready_reason


def test_probe_that_goes_well_makes_the_worker_as_good_as_new():
    readiness, clock = failing(5)
    clock.advance(timedelta(minutes=10))
    readiness.attempt_ended(Verdict.COMPLETED, "")

    assert not readiness.suspect
    assert not readiness.pause
