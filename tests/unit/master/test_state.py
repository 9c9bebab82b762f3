"""The fold of a run's events, where the stories of `test_decisions.py` do not reach."""

from __future__ import annotations

from datetime import timedelta

from fleetest.common.results import PlannedCase, ResourceUsage
from fleetest.common.states import Outcome, RunState, Verdict
from fleetest.master.runs.events import (
    AttemptRunning,
    CasesFinished,
    RunEnded,
    ShardPlan,
    TaskEnded,
    TaskPlanned,
)
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import plan_shard_id, shard_id
from tests.tools.story import RUN_ID, START, Story, command_task, need, pytest_task, result, submitted


def test_shards_are_named_after_their_task() -> None:
    assert (plan_shard_id("a#b"), shard_id("a#b", 7)) == ("a#b#plan", "a#b#7")


def test_a_shard_is_found_whatever_its_task_is_called() -> None:
    story = Story(command_task("a#b"), command_task("#"))

    assert story.status.shard("a#b#0") is not None
    assert story.status.shard("##0") is not None
    assert story.status.shard("a#0") is None
    assert story.status.shard("") is None


def test_the_request_of_a_run_is_what_was_submitted() -> None:
    status = RunStatus(RUN_ID)
    event = submitted(pytest_task())

    status.apply(event, 1)

    assert status.request is event
    assert (status.position, status.state) == (1, RunState.RUNNING)


def test_word_that_an_attempt_runs_counts_only_for_that_attempt() -> None:
    story = Story(command_task())
    token = story.start("lint#0")

    story.status.apply(AttemptRunning(at=START, shard_id="lint#0", token=token + 1), 9)
    story.status.apply(AttemptRunning(at=START, shard_id="nobody#0", token=token), 9)

    attempt = story.task("lint").shards["lint#0"].attempt
    assert attempt is not None
    assert not attempt.running


def test_a_log_may_hold_what_no_rule_would_write() -> None:
    """Rules change, logs stay."""
    story = Story(pytest_task())
    story.start("unit#plan")
    story.collects("unit", "a")
    late = CasesFinished(
        at=START, shard_id="unit#0", task_id="unit", token=0, worker_id="w", results=(result("a"), result("stranger"))
    )

    story.status.apply(late, 9)

    assert story.outcomes("unit") == {"a": "passed", "stranger": "passed"}
    assert story.task("unit").counts.planned == 2


def test_a_case_that_is_planned_although_it_is_known_stays_one_case() -> None:
    story = Story(pytest_task(args=("--continue-on-collection-errors",)))
    story.start("unit#plan")
    error = CasesFinished(
        at=START, shard_id="unit#plan", task_id="unit", token=2, worker_id="w", results=(result("a", "error"),)
    )
    plan = TaskPlanned(
        at=START,
        task_id="unit",
        cases=(PlannedCase(case_id="a"), PlannedCase(case_id="b")),
        shards=(ShardPlan(shard_id="unit#0", cases=(0, 1)),),
    )

    story.status.apply(error, 3)
    story.status.apply(plan, 3)

    task = story.task("unit")
    assert [(case.index, case.outcome) for case in task.cases.values()] == [(0, Outcome.ERROR), (1, None)]
    assert task.counts.planned == 2


def test_a_disagreement_between_tries_makes_a_case_flaky_once() -> None:
    story = Story(command_task(retries=3))

    for outcome in ("failed", "passed", "failed", "passed"):
        if story.waiting():
            story.runs("lint#0", result("lint", outcome), result("other", "failed"))

    assert story.task("lint").cases["lint"].flaky
    assert story.task("lint").counts.flaky == 1


def test_usage_adds_up_but_the_peak_is_the_highest() -> None:
    story = Story(command_task(shards=2))
    for shard, peak in (("lint#0", 7), ("lint#1", 5)):
        token = story.start(shard)
        usage = ResourceUsage(cpu_time=timedelta(seconds=1), peak_memory_bytes=peak, disk_read_bytes=1)
        story.ask(
            lambda decider, shard=shard, token=token, usage=usage: decider.attempt_ended(  # type: ignore[misc]  # defaults bind the loop's values
                shard, token, Verdict.COMPLETED, "", usage=usage
            )
        )

    assert story.task("lint").usage == ResourceUsage(
        cpu_time=timedelta(seconds=2), peak_memory_bytes=7, disk_read_bytes=2
    )


def test_attempts_and_counts_of_the_whole_run_add_up() -> None:
    story = Story(command_task("a", retries=1), command_task("b"))

    story.runs("a#0", a="failed")
    story.runs("a#0", a="passed")
    story.runs("b#0", b="passed")

    assert story.task("a").attempts == 2
    assert (story.status.counts.passed, story.status.counts.flaky) == (2, 1)


def test_an_end_leaves_its_trace() -> None:
    status = RunStatus(RUN_ID)
    status.apply(submitted(command_task("a"), command_task("b", needs=(need("a"),))), 1)

    status.apply(TaskEnded(at=START, task_id="a", state=Story(command_task()).state("lint"), reason="x"), 2)
    status.apply(RunEnded(at=START, state=RunState.CANCELLED, reason="y"), 3)

    assert (status.ended_at, status.reason, status.tasks["a"].ended_at) == (START, "y", START)
