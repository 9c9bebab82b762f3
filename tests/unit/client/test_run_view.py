from __future__ import annotations

from datetime import timedelta

from fleetest.client.convert import commit_from_proto
from fleetest.client.view.fold import Eta, RunView
from fleetest.client.view.news import (
    AttemptFailed,
    CancelAsked,
    CaseFailed,
    CaseRecovered,
    RunOver,
    RunStarted,
    TaskChanged,
    WronglyCached,
)
from fleetest.common.results import Counts
from fleetest.common.states import RunState, TaskState, Verdict
from fleetest.v1 import run_pb2
from tests.unit.client.scripted_master import (
    RUN_ID,
    at,
    attempt_ended,
    cached,
    commits,
    finished,
    leased,
    planned,
    result,
    run_ended,
    running,
    submitted,
    task,
    task_ended,
    wrong_hit,
)


def view_of(*groups):
    view = RunView(RUN_ID)
    news = [each for message in commits(*groups) for each in view.apply(commit_from_proto(message))]
    return view, news


def test_a_run_is_told_from_beginning_to_end():
    view, news = view_of(
        [submitted(task("unit", "BLOCKED"))],
        [run_pb2.RunEvent(task_queued=run_pb2.TaskQueued(task_id="unit"))],
        [leased("unit"), running("unit")],
        [finished("unit", result("a")), attempt_ended("unit")],
        [task_ended("unit", "PASSED"), run_ended("PASSED")],
    )

    assert [type(each) for each in news] == [RunStarted, *[TaskChanged] * 4, RunOver]
    assert [each.state for each in news if isinstance(each, TaskChanged)] == [
        TaskState.QUEUED,
        TaskState.LEASED,
        TaskState.RUNNING,
        TaskState.PASSED,
    ]
    assert (view.state, view.position, view.slots_in_use) == (RunState.PASSED, 5, 0)
    assert view.elapsed(at(100)) == timedelta(seconds=4)
    assert view.tasks["unit"].duration(at(100)) == timedelta(seconds=2)


def test_counts_hold_each_case_once_by_its_last_result():
    view, news = view_of(
        [submitted(task("unit"))],
        [leased("unit"), running("unit"), planned("unit", "a", "b", "c")],
        [finished("unit", result("a", "FAILED", message="no"), result("b"))],
        [finished("unit", result("a"))],
    )

    assert view.counts == Counts(planned=3, passed=2, flaky=1)
    assert (view.counts.done, view.retried) == (2, 1)
    assert [case_id for _, case_id in view.flaky_cases()] == ["a"]
    assert not list(view.failures())
    assert view.earlier_failures("unit", "a")[0].message == "no"
    assert view.earlier_failures("unit", "b") == view.earlier_failures("none", "a") == ()
    assert isinstance(news[-1], CaseRecovered)
    assert isinstance(news[-2], CaseFailed)


def test_cached_cases_count_as_such_and_are_no_work():
    view, _ = view_of(
        [submitted(task("unit"))],
        [leased("unit"), running("unit"), planned("unit", "a", "b", "c", predicted=timedelta(seconds=8))],
        [finished("unit", cached("a", duration=timedelta(seconds=100)))],
        [finished("unit", result("b", seconds=3))],
    )

    assert view.counts == Counts(planned=3, passed=2, cached=1)
    assert view.eta() == Eta(left=timedelta(seconds=4), whole=True)
    assert [each.case_id for each in view.slowest] == ["b"]


def test_a_wrong_hit_is_news():
    view, news = view_of(
        [submitted(task("unit"))], [finished("unit", result("a", "FAILED")), wrong_hit("unit", "a", "t.py")]
    )

    assert isinstance(news[-1], WronglyCached)
    assert [each.case_id for each in view.wrong_hits] == ["a"]


def test_a_case_that_fails_again_is_one_failure():
    view, news = view_of(
        [submitted(task("unit"))],
        [finished("unit", result("a", "FAILED"))],
        [finished("unit", result("a", "TIMED_OUT"))],
        [finished("unit", result("a", "ERROR"))],
    )

    assert view.counts == Counts(planned=1, error=1)
    assert [each.number for each in news if isinstance(each, CaseFailed)] == [1, 2, 3]
    assert len(view.earlier_failures("unit", "a")) == 2


def test_a_flaky_case_that_fails_after_all_is_flaky_no_more():
    view, _ = view_of(
        [submitted(task("unit"))],
        [finished("unit", result("a", "FAILED"))],
        [finished("unit", result("a"))],
        [finished("unit", result("a", "FAILED"))],
    )

    assert view.counts == Counts(planned=1, failed=1)


def test_an_attempt_that_waits_behind_a_running_one_occupies_no_slot():
    view, _ = view_of(
        [submitted(task("unit"), task("e2e"))],
        [leased("unit", "0"), running("unit", "0"), leased("unit", "1"), leased("e2e", "0", worker="w2")],
    )

    assert view.slots_in_use == 2
    assert view.attempts.slots_by_task() == {"unit": 1, "e2e": 1}
    assert view.attempts.preparing_since() == {"e2e": at(2)}


def test_of_a_worker_that_runs_nothing_the_oldest_attempt_occupies_its_slot():
    view, _ = view_of(
        [submitted(task("unit"), task("e2e"))],
        [leased("unit", "0"), leased("e2e", "0")],
        [attempt_ended("unit")],
        [leased("unit", "0", number=2)],
    )

    assert view.attempts.slots_by_task() == {"e2e": 1}
    assert view.attempts.preparing_since() == {"e2e": at(2)}


def test_each_running_attempt_occupies_a_slot():
    view, _ = view_of(
        [submitted(task("unit"))],
        [leased("unit", "0"), running("unit", "0"), leased("unit", "1"), running("unit", "1")],
        [leased("unit", "2"), running("unit", "2"), attempt_ended("unit", shard="2")],
        [running("unit", "never-begun")],
    )

    assert view.slots_in_use == 2
    assert not view.attempts.preparing_since()


def test_a_task_prepares_until_its_first_attempt_runs():
    view, news = view_of([submitted(task("unit"))], [leased("unit")])
    before = view.attempts.preparing_since()
    for message in commits([submitted(task("unit"))], [leased("unit")], [running("unit")])[2:]:
        news += view.apply(commit_from_proto(message))

    assert before == {"unit": at(2)}
    assert not view.attempts.preparing_since()
    assert [each.state for each in news if isinstance(each, TaskChanged)] == [TaskState.LEASED, TaskState.RUNNING]


def test_the_end_of_a_task_frees_what_it_held():
    view, _ = view_of([submitted(task("unit"))], [leased("unit"), running("unit")], [task_ended("unit", "CANCELLED")])

    assert view.slots_in_use == 0


def test_eta_is_predicted_work_over_slots():
    view, _ = view_of(
        [submitted(task("unit"), task("later", predicted=timedelta(seconds=10)))],
        [
            leased("unit", "0"),
            running("unit", "0"),
            leased("unit", "1"),
            running("unit", "1"),
            planned("unit", "a", "b", predicted=timedelta(seconds=40)),
        ],
        [finished("unit", result("a"))],
    )

    assert view.eta() == Eta(left=timedelta(seconds=15), whole=True)


def test_eta_without_history_comes_from_what_ran_already():
    view, _ = view_of(
        [submitted(task("unit"))],
        [leased("unit"), running("unit"), planned("unit", "a", "b", "c")],
        [finished("unit", result("a", seconds=2))],
    )

    assert view.eta() == Eta(left=timedelta(seconds=4), whole=True)


def test_eta_says_when_it_knows_only_a_part():
    view, _ = view_of(
        [submitted(task("unit"), task("unknown"))],
        [leased("unit"), running("unit"), planned("unit", "a", predicted=timedelta(seconds=8))],
    )

    assert view.eta() == Eta(left=timedelta(seconds=8), whole=False)


def test_no_eta_while_nothing_runs_or_nothing_is_known():
    waiting, _ = view_of([submitted(task("unit", predicted=timedelta(seconds=8)))])
    unknown, _ = view_of([submitted(task("unit"))], [leased("unit"), running("unit")])

    assert waiting.eta() is None
    assert unknown.eta() is None


def test_the_five_slowest_are_named_slowest_first():
    view, _ = view_of(
        [submitted(task("unit"))],
        [finished("unit", *(result(f"c{number}", seconds=number) for number in range(8)))],
    )

    assert [each.case_id for each in view.slowest] == ["c7", "c6", "c5", "c4", "c3"]


def test_infrastructure_trouble_and_cancelling_are_news():
    view, news = view_of(
        [submitted(task("unit"))],
        [leased("unit"), running("unit")],
        [attempt_ended("unit", "LOST", reason="lease ran out", will_retry=True)],
        [run_pb2.RunEvent(cancel_requested=run_pb2.CancelRequested(task_id="unit", by="ann"))],
        [run_pb2.RunEvent(cancel_requested=run_pb2.CancelRequested(reason="enough"))],
    )

    lost, one_task, whole = news[-3:]
    assert isinstance(lost, AttemptFailed)
    assert (lost.verdict, lost.will_retry) == (Verdict.LOST, True)
    assert isinstance(one_task, CancelAsked)
    assert one_task.task_id == "unit"
    assert isinstance(whole, CancelAsked)
    assert view.cancelling


def test_captured_output_of_failures_is_not_kept_in_memory():
    view, _ = view_of(
        [submitted(task("unit"))], [finished("unit", result("a", "FAILED", stdout="x" * 9000, details="y" * 9000))]
    )

    ((_, kept),) = view.failures()
    assert kept.stdout == ""
    assert len(kept.details) < 5000


def test_a_view_of_nothing_has_no_age():
    assert RunView("x").elapsed(at(0)) == timedelta()
