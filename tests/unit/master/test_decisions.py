"""The rules of a run, told as stories: see `tests/tools/story.py`."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

from fleetest.common.errors import LeaseLost, NotFound, WrongState
from fleetest.common.results import Artifact
from fleetest.common.states import RunState, TaskState, Verdict
from fleetest.common.tasks import RetryOn, Timeouts, When
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.endings import MAX_MISHAPS
from fleetest.master.runs.events import AttemptsStarted, DoneAttempt, decode, results_of
from fleetest.master.runs.planner import Plan
from tests.tools.story import Story, cases, command_task, need, pytest_task, result, submitted


def test_a_task_goes_from_queued_over_leased_and_running_to_passed() -> None:
    story = Story(pytest_task())
    states = [story.state("unit")]

    story.start("unit#plan")
    states.append(story.state("unit"))
    story.collects("unit", "a", "b")
    story.end("unit#plan")
    story.start("unit#0")
    story.report("unit#0", a="passed", b="skipped")
    states.append(story.state("unit"))
    story.end("unit#0")
    states.append(story.state("unit"))

    assert states == [TaskState.QUEUED, TaskState.LEASED, TaskState.RUNNING, TaskState.PASSED]
    assert (story.run, story.status.reason) == (RunState.PASSED, "")
    assert story.queued == ["unit#plan", "unit#0"]


def test_the_token_is_the_position_of_the_commit_that_began_the_attempt() -> None:
    story = Story(pytest_task())

    token = story.start("unit#plan")

    assert token == len(story.log) == 2


def test_a_run_without_tasks_has_passed() -> None:
    assert Story().run is RunState.PASSED


def test_submitting_twice_changes_nothing() -> None:
    story = Story(pytest_task())

    story.ask(lambda decider: decider.submit(submitted(command_task())))

    assert list(story.status.tasks) == ["unit"]
    assert len(story.log) == 1


# -- dependencies


def test_a_task_waits_for_what_it_needs() -> None:
    story = Story(command_task("a"), command_task("b", needs=(need("a"),)))
    assert story.state("b") is TaskState.BLOCKED

    story.runs("a#0", a="passed")

    assert story.state("b") is TaskState.QUEUED
    assert story.queued == ["a#0", "b#0"]


@pytest.mark.parametrize(
    ("outcomes", "events"),
    [
        ({"a": "passed", "b": "skipped", "x": "passed"}, ["AttemptsDone", "TaskEnded", "RunEnded"]),
        ({"a": "passed", "b": "failed"}, ["AttemptRunning", "CasesFinished", "AttemptEnded"]),
        ({"a": "passed"}, ["AttemptRunning", "CasesFinished", "AttemptEnded"]),
        ({}, ["AttemptRunning", "AttemptEnded"]),
    ],
)
def test_what_an_attempt_tells_at_once_comes_to_the_same_as_one_thing_after_the_other(
    outcomes: dict[str, str], events: list[str]
) -> None:
    at_once, one_by_one = Story(pytest_task(retries=1)), Story(pytest_task(retries=1))
    results = tuple(result(case_id, outcome) for case_id, outcome in outcomes.items())
    for story in (at_once, one_by_one):
        story.start("unit#plan")
        story.collects("unit", "a", "b")
        story.end("unit#plan")
        token = story.start("unit#0")

    def tell(decider: Decider) -> None:
        decider.attempt_running("unit#0", token)
        decider.cases_finished("unit#0", token, results)
        decider.attempt_ended("unit#0", token, Verdict.COMPLETED, "")

    done = DoneAttempt(shard_id="unit#0", token=token, results=results)
    over = DoneAttempt(shard_id="unit#0", token=token - 1, results=())
    assert at_once.ask(lambda decider: decider.attempts_done([over, done])) == [over]
    one_by_one.ask(tell)

    assert at_once.status.tasks == one_by_one.status.tasks
    assert at_once.queued == one_by_one.queued
    assert [type(event).__name__ for event in decode(at_once.log[-1])] == events


def test_what_a_worker_begins_and_ends_of_a_task_within_a_commit_is_one_event_each() -> None:
    story = Story(command_task("lint", shards=5))

    def give(decider: Decider) -> None:
        for index, worker in enumerate("aabba"):
            decider.start_attempt(f"lint#{index}", worker, f"{worker}-1")

    def tell(decider: Decider) -> None:
        outcomes = [result("lint", "failed" if index == 1 else "passed") for index in range(5)]
        decider.attempts_done(
            DoneAttempt(shard_id=f"lint#{index}", token=2, results=(outcome,)) for index, outcome in enumerate(outcomes)
        )

    story.ask(give)
    story.ask(tell)

    begun, ended = decode(story.log[-2]), decode(story.log[-1])
    assert [each.shard_ids for each in begun if isinstance(each, AttemptsStarted)] == [
        ["lint#0", "lint#1"],
        ["lint#2", "lint#3"],
        ["lint#4"],
    ]
    assert [(type(each).__name__, len(list(results_of(each)))) for each in ended[:6]] == [
        ("AttemptsDone", 1),
        ("AttemptRunning", 0),
        ("CasesFinished", 1),
        ("AttemptEnded", 0),
        ("AttemptsDone", 2),
        ("AttemptsDone", 1),
    ]
    assert list(story.outcomes("lint")) == [f"lint [{index}/5]" for index in range(1, 6)]
    assert story.run is RunState.FAILED


@pytest.mark.parametrize(
    ("when", "after_pass", "after_failure"),
    [
        (When.PASSED, TaskState.QUEUED, TaskState.SKIPPED),
        (When.ALWAYS, TaskState.QUEUED, TaskState.QUEUED),
        (When.FAILED, TaskState.SKIPPED, TaskState.QUEUED),
    ],
)
def test_when_says_which_end_of_a_needed_task_lets_the_next_one_start(
    when: When, after_pass: TaskState, after_failure: TaskState
) -> None:
    good = Story(command_task("a"), command_task("b", needs=(need("a", when),)))
    bad = Story(command_task("a"), command_task("b", needs=(need("a", when),)))

    good.runs("a#0", a="passed")
    bad.runs("a#0", a="failed")

    assert (good.state("b"), bad.state("b")) == (after_pass, after_failure)


def test_what_needs_a_skipped_task_is_skipped_too_and_each_says_why() -> None:
    story = Story(
        command_task("a"),
        command_task("b", needs=(need("a"),)),
        command_task("c", needs=(need("b"),)),
        command_task("d", needs=(need("c", When.FAILED),)),
        command_task("e", needs=(need("c", When.ALWAYS),)),
    )

    story.runs("a#0", a="failed")

    assert story.task("b").reason == "needs a passed, which failed"
    assert story.task("c").reason == "needs b passed, which was skipped"
    assert story.task("d").reason == "needs c failed, which was skipped"
    assert story.state("e") is TaskState.QUEUED


def test_a_task_is_skipped_as_soon_as_one_need_ends_otherwise_than_asked() -> None:
    story = Story(command_task("a"), command_task("b"), command_task("c", needs=(need("a"), need("b"))))

    story.runs("b#0", b="failed")

    assert story.state("c") is TaskState.SKIPPED
    assert story.state("a") is TaskState.QUEUED


def test_a_skipped_task_does_not_spoil_the_run() -> None:
    story = Story(command_task("a"), command_task("cleanup", needs=(need("a", When.FAILED),)))

    story.runs("a#0", a="passed")

    assert story.run is RunState.PASSED


def test_a_long_chain_is_skipped_in_one_commit() -> None:
    story = Story(
        command_task("0"), *(command_task(str(each), needs=(need(str(each - 1)),)) for each in range(1, 2000))
    )

    story.runs("0#0", **{"0": "failed"})

    assert all(story.state(str(each)) is TaskState.SKIPPED for each in range(1, 2000))
    assert story.run is RunState.FAILED


# -- retries


def test_only_the_cases_that_failed_are_tried_again() -> None:
    story = Story(pytest_task(retries=1))
    story.plans("unit", "a", "b", "c")

    story.runs("unit#0", a="passed", b="failed", c="failed")

    shard = story.status.shard("unit#0")
    assert shard is not None
    assert shard.waiting
    assert shard.case_ids == ("b", "c")


def test_a_case_that_passes_on_its_retry_is_flaky_and_the_task_passes() -> None:
    story = Story(pytest_task(retries=1))
    story.plans("unit", "a", "b")

    story.runs("unit#0", a="passed", b="failed")
    story.runs("unit#0", b="passed")

    assert story.state("unit") is TaskState.PASSED
    assert story.task("unit").counts.flaky == 1
    assert story.task("unit").cases["b"].tries == 2


def test_retries_come_to_an_end() -> None:
    story = Story(pytest_task(retries=2))
    story.plans("unit", "a")

    for _ in range(3):
        story.runs("unit#0", a="failed")

    assert (story.state("unit"), story.task("unit").reason) == (TaskState.FAILED, "1 of 1 case failed")
    assert story.task("unit").counts.flaky == 0


def test_what_failed_otherwise_than_retry_on_says_is_not_tried_again() -> None:
    story = Story(pytest_task(retries=1, retry_on=frozenset({RetryOn.TIMED_OUT})))
    story.plans("unit", "a", "b")

    story.runs("unit#0", a="failed", b="timed_out")

    shard = story.status.shard("unit#0")
    assert shard is not None
    assert shard.case_ids == ("b",)


def test_a_command_is_tried_again_whole() -> None:
    story = Story(command_task(retries=1))

    story.runs("lint#0", result("lint", "failed"), result("suite::x", "passed"))
    story.runs("lint#0", result("lint", "passed"), result("suite::x", "passed"))

    assert story.state("lint") is TaskState.PASSED
    assert story.outcomes("lint") == {"lint": "passed", "suite::x": "passed"}
    assert story.task("lint").counts.flaky == 1


def test_a_lost_worker_costs_only_what_it_had_not_finished() -> None:
    story = Story(pytest_task())
    story.plans("unit", "a", "b", "c")
    story.start("unit#0")
    story.report("unit#0", a="passed")

    story.end("unit#0", "lost", "its worker is gone")

    shard = story.status.shard("unit#0")
    assert shard is not None
    assert (shard.case_ids, shard.retry_at) == (("b", "c"), None)
    story.runs("unit#0", b="passed", c="passed")
    assert story.state("unit") is TaskState.PASSED
    assert story.task("unit").counts.done == 3


def test_a_worker_that_is_lost_after_its_last_case_costs_nothing() -> None:
    story = Story(pytest_task())
    story.plans("unit", "a")
    story.start("unit#0")
    story.report("unit#0", a="passed")

    story.end("unit#0", "lost")

    assert story.state("unit") is TaskState.PASSED


def test_an_infrastructure_failure_is_repeated_after_a_growing_wait_without_being_asked() -> None:
    story = Story(pytest_task())
    story.plans("unit", "a")
    waits = []

    for _ in range(MAX_MISHAPS):
        story.start("unit#0")
        story.end("unit#0", "errored", "no room on the disk")
        shard = story.status.shard("unit#0")
        assert shard is not None
        assert shard.retry_at is not None
        waits.append(shard.retry_at - story.clock.now())

    assert waits == [timedelta(seconds=1), timedelta(seconds=2), timedelta(seconds=4)]


def test_after_too_many_infrastructure_failures_the_task_is_errored() -> None:
    story = Story(pytest_task())
    story.plans("unit", "a")

    for _ in range(MAX_MISHAPS + 1):
        story.start("unit#0")
        story.end("unit#0", "errored", "no room on the disk")

    assert (story.state("unit"), story.task("unit").reason) == (TaskState.ERRORED, "no room on the disk")
    assert (story.run, story.status.reason) == (RunState.ERRORED, "unit errored")


def test_after_too_many_lost_workers_nothing_is_tried_again_since_the_rest_would_be_forgotten() -> None:
    story = Story(pytest_task(retries=9))
    story.plans("unit", "a", "b")

    for _ in range(MAX_MISHAPS + 1):
        story.start("unit#0")
        story.report("unit#0", a="failed")
        story.end("unit#0", "lost", "its worker is gone")

    assert story.state("unit") is TaskState.FAILED
    assert story.outcomes("unit") == {"a": "failed", "b": ""}


def test_cases_without_a_result_are_not_forgotten_when_others_are_tried_again() -> None:
    story = Story(pytest_task(retries=1, retry_on=frozenset({RetryOn.FAILED})))
    story.plans("unit", "a", "b")
    story.start("unit#0")
    story.report("unit#0", a="failed")

    story.end("unit#0", "timed_out", "the total limit has passed")

    assert story.waiting() == []
    assert story.state("unit") is TaskState.FAILED


def test_a_timed_out_attempt_goes_on_where_it_stopped_as_often_as_the_suite_grants() -> None:
    story = Story(pytest_task(retries=1))
    story.plans("unit", "a", "b", "c")
    story.start("unit#0")
    story.report("unit#0", a="passed", b="timed_out")

    story.end("unit#0", "timed_out", "the total limit has passed")

    shard = story.status.shard("unit#0")
    assert shard is not None
    assert shard.case_ids == ("b", "c")
    story.start("unit#0")
    story.report("unit#0", b="passed")
    story.end("unit#0", "timed_out", "the total limit has passed")
    assert (story.state("unit"), story.task("unit").reason) == (TaskState.TIMED_OUT, "the total limit has passed")
    assert story.run is RunState.FAILED


def test_a_task_whose_only_fault_is_a_timed_out_case_is_timed_out() -> None:
    story = Story(pytest_task())
    story.plans("unit", "a", "b")

    story.runs("unit#0", a="timed_out", b="passed")

    assert (story.state("unit"), story.task("unit").reason) == (TaskState.TIMED_OUT, "1 case timed out")


def test_a_worker_that_leaves_cases_out_has_errored_and_they_are_run_again() -> None:
    story = Story(pytest_task())
    story.plans("unit", "a", "b")
    story.start("unit#0")
    story.report("unit#0", a="passed")

    story.end("unit#0", "completed")

    shard = story.status.shard("unit#0")
    assert shard is not None
    assert (shard.case_ids, shard.reason) == (("b",), "the worker left out 1 case that it was given")


def test_a_worker_that_stops_unasked_has_errored() -> None:
    story = Story(command_task())
    story.start("lint#0")

    story.end("lint#0", "cancelled")

    shard = story.status.shard("lint#0")
    assert shard is not None
    assert (shard.waiting, shard.mishaps, shard.reason) == (True, 1, "the worker stopped it unasked")


def test_a_declined_attempt_costs_nothing_but_a_wait() -> None:
    story = Story(pytest_task())
    token = story.start("unit#plan")

    story.ask(lambda decider: decider.attempt_declined("unit#plan", token, "no slot"))

    shard = story.status.shard("unit#plan")
    assert shard is not None
    assert (shard.waiting, shard.mishaps, shard.reason) == (True, 0, "declined by w1: no slot")
    assert shard.retry_at == story.clock.now() + timedelta(seconds=1)
    assert story.queued == ["unit#plan", "unit#plan"]


def test_an_attempt_with_results_cannot_be_declined() -> None:
    story = Story(command_task())
    token = story.start("lint#0")
    story.report("lint#0", lint="passed")

    with pytest.raises(WrongState, match="has results already"):
        story.ask(lambda decider: decider.attempt_declined("lint#0", token, "no slot"))


def test_an_attempt_that_is_declined_while_its_task_stops_is_not_repeated() -> None:
    story = Story(command_task())
    token = story.start("lint#0")
    story.cancel()

    story.ask(lambda decider: decider.attempt_declined("lint#0", token, "no slot"))

    assert story.state("lint") is TaskState.CANCELLED


# -- handing back


def handing_back(*given: str) -> Story:
    """A shard of four cases, of which the first has passed; its worker was asked for the last two, and gave these."""
    story = Story(pytest_task())
    story.plans("unit", "a", "b", "c", "d")
    token = story.start("unit#0")
    story.report("unit#0", a="passed")
    story.ask(lambda decider: decider.ask_back_cases("unit#0", token, ["c", "d"], 1))
    story.ask(lambda decider: decider.cases_handed_back("unit#0", token, given))
    story.queued = story.queued[-len(given) :] if given else []
    return story


def test_cases_that_were_handed_back_run_in_new_shards_and_count_once() -> None:
    story = handing_back("c", "d")

    new = [story.status.shard(shard_id) for shard_id in story.queued]
    story.report("unit#0", b="passed", c="failed", d="failed")  # what it runs after all is not taken
    story.end("unit#0")
    for shard_id in story.queued:
        story.runs(shard_id, c="passed", d="passed")

    assert sorted(case_id for shard in new if shard is not None for case_id in shard.case_ids) == ["c", "d"]
    assert story.outcomes("unit") == dict.fromkeys("abcd", "passed")
    assert (story.task("unit").counts.done, story.state("unit")) == (4, TaskState.PASSED)


def test_a_lost_worker_takes_with_it_nothing_that_it_handed_back() -> None:
    story = handing_back("d")

    story.end("unit#0", "lost")

    assert [story.status.shard(each).case_ids for each in story.waiting()] == [("b", "c"), ("d",)]  # type: ignore[union-attr]  # they exist


def test_what_a_worker_was_asked_for_and_did_not_give_stays_with_it() -> None:
    story = handing_back()

    shard = story.status.shard("unit#0")
    assert shard is not None
    assert shard.attempt is not None
    assert (shard.attempt.awaited, shard.attempt.asked_back) == ({"b", "c", "d"}, None)
    assert story.waiting() == []


def test_an_attempt_that_hands_all_of_its_cases_back_costs_nothing() -> None:
    story = Story(pytest_task())
    story.plans("unit", "a", "b")
    token = story.start("unit#0")

    story.ask(lambda decider: decider.cases_handed_back("unit#0", token, ["a", "b"]))

    shard = story.status.shard("unit#0")
    assert shard is not None
    assert (shard.waiting, shard.mishaps, shard.retry_at) == (True, 0, None)
    assert shard.case_ids == ("a", "b")


# -- fencing


def test_the_word_of_an_earlier_attempt_is_refused() -> None:
    story = Story(pytest_task())
    story.plans("unit", "a")
    stale = story.start("unit#0")
    story.end("unit#0", "lost")
    story.start("unit#0", "w2")

    for request in (
        lambda decider: decider.attempt_running("unit#0", stale),
        lambda decider: decider.cases_finished("unit#0", stale, [result("a")]),
        lambda decider: decider.artifacts_saved("unit#0", stale, [], []),
        lambda decider: decider.attempt_ended("unit#0", stale, Verdict.COMPLETED, ""),
        lambda decider: decider.attempt_declined("unit#0", stale, ""),
        lambda decider: decider.cases_finished("unit#7", stale, [result("a")]),
        lambda decider: decider.cases_finished("nobody#0", stale, [result("a")]),
    ):
        with pytest.raises(LeaseLost):
            story.ask(request)

    assert story.outcomes("unit") == {"a": ""}


def test_a_shard_is_given_to_one_worker_only() -> None:
    story = Story(command_task())
    story.start("lint#0")

    with pytest.raises(WrongState, match="waits for no worker"):
        story.start("lint#0", "w2")


def test_nothing_starts_in_a_task_that_stops_or_has_ended() -> None:
    story = Story(command_task(shards=2), command_task("other"))
    story.start("lint#0")
    story.cancel("lint")
    with pytest.raises(WrongState, match="being stopped"):
        story.start("lint#1")

    story.end("lint#0", "cancelled")

    with pytest.raises(WrongState, match="waits for no worker"):
        story.start("lint#1")


def test_a_result_that_is_told_twice_counts_once() -> None:
    story = Story(pytest_task())
    story.plans("unit", "a", "b")
    story.start("unit#0")

    story.report("unit#0", result("a", "passed"), result("a", "failed"))
    story.report("unit#0", a="failed")

    assert story.outcomes("unit") == {"a": "passed", "b": ""}
    assert story.task("unit").cases["a"].tries == 1


def test_a_result_for_a_case_that_the_attempt_was_not_given_is_left_out() -> None:
    story = Story(pytest_task(shards=2))
    story.plans("unit", "a", "b")
    story.start("unit#0")

    story.report("unit#0", a="passed", b="failed", c="failed")

    assert story.outcomes("unit") == {"a": "passed", "b": ""}


def test_a_plan_attempt_has_no_results_but_its_collection_errors() -> None:
    story = Story(pytest_task())
    story.start("unit#plan")

    story.report("unit#plan", a="failed")

    assert story.outcomes("unit") == {}


def test_running_and_planned_are_idempotent() -> None:
    story = Story(pytest_task())
    story.start("unit#plan")
    story.report("unit#plan")
    story.collects("unit", "a")
    before = len(story.log)

    story.report("unit#plan")
    story.collects("unit", "x", "y")

    assert len(story.log) == before
    assert story.outcomes("unit") == {"a": ""}


def test_only_a_plan_attempt_can_plan() -> None:
    story = Story(command_task())
    token = story.start("lint#0")
    dealt = Plan(cases=cases("a"), shards=(), predicted=None)

    story.ask(lambda decider: decider.planned("lint#0", token, dealt, deselected=0, collection_errors=[]))

    assert story.outcomes("lint") == {}


# -- plans


def test_a_plan_that_is_lost_before_it_was_told_is_made_again() -> None:
    story = Story(pytest_task())
    story.start("unit#plan")

    story.end("unit#plan", "lost")

    assert story.waiting() == ["unit#plan"]


def test_a_plan_that_is_lost_after_it_was_told_is_not_made_again() -> None:
    story = Story(pytest_task())
    story.start("unit#plan")
    story.collects("unit", "a")

    story.end("unit#plan", "lost")

    assert story.waiting() == ["unit#0"]
    story.runs("unit#0", a="passed")
    assert story.state("unit") is TaskState.PASSED


def test_a_plan_attempt_that_ends_without_a_plan_has_errored() -> None:
    story = Story(pytest_task())
    story.start("unit#plan")

    story.end("unit#plan")

    shard = story.status.shard("unit#plan")
    assert shard is not None
    assert (shard.waiting, shard.reason) == (True, "the worker ended the plan without any")


def test_a_file_that_cannot_be_collected_keeps_the_task_from_running() -> None:
    story = Story(pytest_task(retries=3))

    story.plans("unit", "a", errors=[result("tests/test_x.py", "error")])

    assert (story.state("unit"), story.task("unit").reason) == (TaskState.FAILED, "1 error during collection")
    assert story.outcomes("unit") == {"tests/test_x.py": "error"}


def test_with_continue_on_collection_errors_the_rest_runs_and_the_task_fails_all_the_same() -> None:
    story = Story(pytest_task(args=("--continue-on-collection-errors",), retries=1))

    story.plans("unit", "a", errors=[result("tests/test_x.py", "error"), result("tests/test_y.py", "error")])
    story.runs("unit#0", a="passed")

    assert (story.state("unit"), story.task("unit").reason) == (TaskState.FAILED, "2 errors during collection")
    assert story.outcomes("unit") == {"tests/test_x.py": "error", "tests/test_y.py": "error", "a": "passed"}


def test_a_module_that_is_skipped_whole_while_it_is_collected_is_no_error() -> None:
    story = Story(pytest_task(args=("--continue-on-collection-errors",)))

    story.plans("unit", "a", errors=[result("tests/test_x.py", "skipped")])
    story.runs("unit#0", a="passed")

    assert story.state("unit") is TaskState.PASSED


def test_a_task_in_which_no_tests_ran_has_failed() -> None:
    story = Story(pytest_task())

    story.plans("unit", deselected=4)

    assert (story.state("unit"), story.task("unit").reason) == (TaskState.FAILED, "no tests ran (4 deselected)")


def test_a_plan_that_fails_says_why_the_task_failed() -> None:
    story = Story(pytest_task())
    story.start("unit#plan")
    story.collects("unit")

    story.end("unit#plan", "failed", "no tests ran: pytest collected nothing")

    assert (story.state("unit"), story.task("unit").reason) == (
        TaskState.FAILED,
        "no tests ran: pytest collected nothing",
    )


def test_a_case_that_was_asked_for_but_is_gone_is_an_error() -> None:
    story = Story(pytest_task(only_cases=("a", "gone")))

    story.plans("unit", "a", "b")
    story.runs("unit#0", a="passed")

    assert story.outcomes("unit") == {"a": "passed", "gone": "error"}
    assert story.state("unit") is TaskState.FAILED


def test_a_case_that_another_session_does_not_collect_is_an_error_and_the_others_run_on() -> None:
    story = Story(pytest_task(shards=2))
    story.plans("unit", "a", "b", "c", "d")
    story.start("unit#0")
    first, second = story.task("unit").shards["unit#0"].case_ids
    story.report("unit#0", result(first))

    story.end(
        "unit#0", "failed", "1 planned case is not in this session's collection", missing=[second, "unknown", second]
    )

    assert story.outcomes("unit")[second] == "error"
    assert story.task("unit").cases[second].tries == 1
    assert story.task("unit").stop is None
    assert story.waiting() == ["unit#1"]


def test_a_missing_case_gets_its_retry_as_any_other() -> None:
    story = Story(pytest_task(retries=1))
    story.plans("unit", "a")
    story.start("unit#0")

    story.end("unit#0", "failed", missing=["a"])
    story.runs("unit#0", a="passed")

    assert story.state("unit") is TaskState.PASSED


def test_a_case_that_is_missing_does_not_excuse_those_that_were_left_out() -> None:
    story = Story(pytest_task())
    story.plans("unit", "a", "b")
    story.start("unit#0")

    story.end("unit#0", "failed", "pytest.exit: enough", missing=["a"])

    assert (story.state("unit"), story.task("unit").reason) == (TaskState.FAILED, "pytest.exit: enough")


# -- commands


def test_a_command_in_shards_has_one_case_in_each() -> None:
    story = Story(command_task(shards=2))
    assert story.queued == ["lint#0", "lint#1"]

    story.runs("lint#0", lint="passed")
    story.runs("lint#1", lint="failed")

    assert story.outcomes("lint") == {"lint [1/2]": "passed", "lint [2/2]": "failed"}
    assert story.state("lint") is TaskState.FAILED


def test_what_two_shards_of_a_command_call_alike_is_two_cases() -> None:
    story = Story(command_task(shards=2))

    story.runs("lint#0", result("suite::x", "failed"))
    story.runs("lint#1", result("suite::x", "passed"))

    assert story.outcomes("lint") == {"suite::x": "failed", "suite::x [2/2]": "passed"}
    assert story.task("lint").counts.flaky == 0


def test_a_command_whose_setup_fails_has_failed_and_its_other_shards_stop() -> None:
    story = Story(command_task(shards=3, retries=5))
    story.start("lint#0")
    story.start("lint#1")

    story.end("lint#0", "failed", "setup failed: pip install exited with 1")

    assert story.stopped == [("lint#1", True)]
    story.end("lint#1", "cancelled")
    assert (story.state("lint"), story.task("lint").reason) == (
        TaskState.FAILED,
        "setup failed: pip install exited with 1",
    )


def test_artifacts_are_kept_by_shard_and_path() -> None:
    story = Story(command_task(shards=2))
    for shard_id in ("lint#0", "lint#1"):
        token = story.start(shard_id)
        artifact = Artifact(path="report.html", digest="0" * 64, size_bytes=1)
        story.ask(partial(_save, shard_id, token, artifact))

    assert list(story.task("lint").artifacts) == [("lint#0", "report.html"), ("lint#1", "report.html")]


def _save(shard_id: str, token: int, artifact: Artifact, decider: Decider) -> None:
    decider.artifacts_saved(shard_id, token, [artifact], ["too-large.bin is larger than 1 GiB"])


# -- stops


def test_maxfail_stops_the_task_after_so_many_failures() -> None:
    story = Story(pytest_task(maxfail=2, shards=3))
    story.plans("unit", "a", "b", "c", "d", "e", "f")
    for shard_id in ("unit#0", "unit#1"):
        story.start(shard_id)
    first, second = (story.task("unit").shards[shard_id].case_ids[0] for shard_id in ("unit#0", "unit#1"))

    story.report("unit#0", result(first, "failed"))
    assert story.stopped == []
    story.report("unit#1", result(second, "error"))

    assert story.stopped == [("unit#0", True), ("unit#1", True)]
    story.end("unit#0", "cancelled")
    story.end("unit#1", "cancelled")
    assert (story.state("unit"), story.task("unit").reason) == (TaskState.FAILED, "stopped after 2 failures")
    assert (story.run, story.status.reason) == (RunState.FAILED, "unit failed")


def test_a_failure_that_may_be_tried_again_does_not_count_for_maxfail() -> None:
    story = Story(pytest_task(maxfail=1, retries=1))
    story.plans("unit", "a", "b")

    story.runs("unit#0", a="failed", b="passed")

    assert story.task("unit").stop is None
    story.start("unit#0")
    story.report("unit#0", a="failed")
    stop = story.task("unit").stop
    assert stop is not None
    assert (stop.by, stop.reason) == ("maxfail", "stopped after 1 failure")


def test_fail_fast_cancels_the_rest_of_the_run_at_the_first_failed_case() -> None:
    story = Story(command_task("a"), command_task("b"), command_task("c", needs=(need("a"),)), fail_fast=True)
    story.start("a#0")
    story.start("b#0")

    story.report("a#0", a="failed")

    assert story.stopped == [("a#0", True), ("b#0", False)]
    assert story.state("c") is TaskState.CANCELLED
    story.end("a#0")
    story.end("b#0", "cancelled")
    assert (story.state("a"), story.state("b")) == (TaskState.FAILED, TaskState.CANCELLED)
    assert story.task("a").reason == "1 of 1 case failed"
    assert story.task("b").reason == "stopped at the first failure, in a"
    assert (story.run, story.status.reason) == (RunState.FAILED, "a failed")


@pytest.mark.parametrize("verdict", ["failed", "timed_out"])
def test_fail_fast_cancels_the_rest_when_a_task_fails_without_any_case(verdict: str) -> None:
    story = Story(command_task("a"), command_task("b"), fail_fast=True)
    story.start("a#0")

    story.end("a#0", verdict, "setup failed")

    assert story.state("b") is TaskState.CANCELLED
    assert story.run is RunState.FAILED


def test_fail_fast_leaves_a_task_passed_that_had_nothing_left_to_do() -> None:
    story = Story(command_task("a"), command_task("b"), fail_fast=True)
    story.start("a#0")
    story.start("b#0")
    story.report("b#0", b="passed")
    story.report("a#0", a="failed")

    story.end("b#0", "completed")

    assert story.state("b") is TaskState.PASSED


def test_fail_fast_does_not_take_from_another_task_what_it_failed_of_itself() -> None:
    story = Story(command_task("a"), command_task("b", shards=2), fail_fast=True)
    for shard_id in ("a#0", "b#0", "b#1"):
        story.start(shard_id)
    story.end("b#0", "failed", "setup failed")

    story.report("a#0", a="failed")

    story.end("b#1", "cancelled")
    assert (story.state("b"), story.task("b").reason) == (TaskState.FAILED, "setup failed")


def test_a_run_that_stops_at_its_first_failure_can_be_cancelled_without_waiting_for_that_task() -> None:
    story = Story(command_task("a", shards=2), command_task("b"), fail_fast=True)
    for shard_id in ("a#0", "a#1", "b#0"):
        story.start(shard_id)
    story.report("a#0", a="failed")
    story.stopped.clear()

    assert story.cancel()

    assert story.stopped == [("a#0", False), ("a#1", False)]
    story.end("a#0")
    story.end("a#1", "cancelled")
    story.end("b#0", "cancelled")
    assert (story.run, story.task("b").reason) == (RunState.CANCELLED, "stopped at the first failure, in a")


def test_a_cancelled_run_ends_when_its_attempts_have_stopped() -> None:
    story = Story(command_task("a"), command_task("b"), command_task("c", needs=(need("a", When.ALWAYS),)))
    story.start("a#0")

    assert story.cancel()

    assert story.stopped == [("a#0", False)]
    assert (story.state("a"), story.state("b"), story.state("c")) == (
        TaskState.LEASED,
        TaskState.CANCELLED,
        TaskState.CANCELLED,
    )
    assert story.run is RunState.RUNNING
    story.end("a#0", "cancelled")
    assert (story.run, story.status.reason) == (RunState.CANCELLED, "ann said so")
    assert not story.cancel()


def test_a_run_without_live_attempts_is_cancelled_at_once() -> None:
    story = Story(pytest_task(), command_task())

    story.cancel()

    assert story.run is RunState.CANCELLED


def test_cancelling_a_task_leaves_the_others_alone() -> None:
    story = Story(command_task("a"), command_task("b"), command_task("c", needs=(need("a"),)))

    assert story.cancel("a")
    assert not story.cancel("a")

    assert story.state("c") is TaskState.SKIPPED
    assert story.task("c").reason == "needs a passed, which was cancelled"
    story.runs("b#0", b="passed")
    assert (story.run, story.status.reason) == (RunState.CANCELLED, "a cancelled")


def test_cancelling_twice_says_so_and_changes_nothing() -> None:
    story = Story(command_task("a"))
    story.start("a#0")
    story.cancel()
    before = len(story.log)

    assert story.cancel()
    assert story.cancel("a")

    assert len(story.log) == before


def test_a_cancel_does_not_wait_for_cases_that_an_earlier_stop_would_let_finish() -> None:
    story = Story(pytest_task(maxfail=1))
    story.plans("unit", "a", "b")
    story.start("unit#0")
    story.report("unit#0", a="failed")
    assert story.stopped == [("unit#0", True)]

    story.cancel()

    assert story.stopped == [("unit#0", True), ("unit#0", False)]
    story.end("unit#0", "cancelled")
    assert story.run is RunState.CANCELLED


def test_a_stop_that_waits_does_not_soften_one_that_does_not() -> None:
    story = Story(command_task("a"), command_task("b"), fail_fast=True)
    story.start("a#0")
    story.start("b#0")
    story.cancel("a")

    story.report("b#0", b="failed")

    stop = story.task("a").stop
    assert stop is not None
    assert (stop.by, stop.finish_running_case) == ("user:ann", False)
    assert story.stopped == [("a#0", False), ("b#0", True)]


def test_a_task_that_is_cancelled_while_it_is_planned_runs_nothing() -> None:
    story = Story(pytest_task())
    story.start("unit#plan")
    story.cancel("unit")

    story.collects("unit", "a")
    story.end("unit#plan")

    assert story.waiting() == []
    assert story.state("unit") is TaskState.CANCELLED


def test_a_worker_that_is_lost_while_its_task_stops_is_not_replaced() -> None:
    story = Story(command_task("a"))
    story.start("a#0")
    story.cancel()

    story.end("a#0", "lost")

    assert story.state("a") is TaskState.CANCELLED


def test_what_does_not_exist_cannot_be_cancelled() -> None:
    story = Story(command_task("a"))

    with pytest.raises(NotFound, match="has no task 'b'"):
        story.cancel("b")

    story.status.submitted = None
    with pytest.raises(NotFound, match="there is no run"):
        story.cancel()


def test_a_task_that_waits_for_too_long_times_out() -> None:
    limit = timedelta(minutes=5)
    story = Story(command_task("a", timeouts=Timeouts(queue=limit)), command_task("b", needs=(need("a"),)))

    story.ask(lambda decider: decider.give_up_waiting("a"))

    assert (story.state("a"), story.task("a").reason) == (
        TaskState.TIMED_OUT,
        "no worker took it within its queue timeout of 0:05:00",
    )
    assert story.task("b").reason == "needs a passed, which timed out"
    assert story.run is RunState.FAILED


def test_a_task_that_a_worker_took_waits_no_more() -> None:
    story = Story(command_task("a", timeouts=Timeouts(queue=timedelta(minutes=5))))
    story.start("a#0")

    story.ask(lambda decider: decider.give_up_waiting("a"))

    assert story.state("a") is TaskState.LEASED


# -- ends of runs


def test_a_failed_task_outweighs_an_errored_one() -> None:
    story = Story(command_task("a"), command_task("b"), command_task("c"), command_task("d"))
    for _ in range(MAX_MISHAPS + 1):
        story.start("a#0")
        story.end("a#0", "errored", "no disk")
    for task_id in ("b", "c", "d"):
        story.runs(f"{task_id}#0", result(task_id, "failed"))

    assert (story.run, story.status.reason) == (RunState.FAILED, "b and 2 more failed")


def test_two_failed_tasks_are_both_named() -> None:
    story = Story(command_task("a"), command_task("b"))
    story.runs("a#0", a="failed")
    story.runs("b#0", b="error")

    assert story.status.reason == "a and b failed"
