"""Random walks through the rules: whatever is asked in whatever order, no case is lost or counted twice."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fleetest.common.errors import LeaseLost, NotFound, WrongState
from fleetest.common.states import Outcome, ShardKind, TaskState, Verdict
from fleetest.common.tasks import Need, OnLost, RetryOn, Task, When
from tests.tools.story import Story, cases, command_task, pytest_task, result, service_task

CASES = ("a", "b", "c", "d", "e")

names = st.sampled_from(["t0", "t1", "t2", "t3"])
case_ids = st.sampled_from([*CASES, "t0", "t1", "stranger"])
outcomes = st.sampled_from([outcome.value for outcome in Outcome])
seldom = st.sampled_from([False] * 9 + [True])
verdicts = st.sampled_from([verdict.value for verdict in Verdict])


def _ways_to_need(task: Task) -> st.SearchStrategy[When]:
    return st.just(When.READY) if task.service else st.sampled_from([when for when in When if when is not When.READY])


@st.composite
def graphs(draw: st.DrawFn) -> list[Task]:
    tasks: list[Task] = []
    for index in range(draw(st.integers(1, 4))):
        common: dict[str, Any] = {
            "retries": draw(st.integers(0, 2)),
            "retry_on": draw(st.frozensets(st.sampled_from(RetryOn))),
            "maxfail": draw(st.integers(0, 2)),
            "shards": draw(st.integers(1, 3)),
            "needs": tuple(
                Need(task=task.name, when=draw(_ways_to_need(task))) for task in tasks if draw(st.booleans())
            ),
        }
        if draw(st.integers(0, 3)) == 0:
            tasks.append(service_task(f"t{index}", **{**common, "shards": 1}))
        elif draw(st.booleans()):
            args = ("--continue-on-collection-errors",) if draw(st.booleans()) else ()
            tasks.append(pytest_task(f"t{index}", args=args, **common))
        else:
            tasks.append(command_task(f"t{index}", gang=draw(st.none() | st.sampled_from(OnLost)), **common))
    return tasks


class RunWalk(RuleBasedStateMachine):
    """After every step the story itself checks that the log tells the same, and that all counts are right."""

    story: Story

    @initialize(tasks=graphs(), fail_fast=st.booleans())
    def submit(self, tasks: list[Task], fail_fast: bool) -> None:  # noqa: FBT001 - drawn
        self.story = Story(*tasks, fail_fast=fail_fast)

    @precondition(lambda self: self.story.waiting())
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.story.start(data.draw(st.sampled_from(self.story.waiting())))

    @precondition(lambda self: self.story.live())
    @rule(data=st.data(), strange=st.lists(st.tuples(case_ids, outcomes), max_size=2))
    def report(self, data: st.DataObject, strange: list[tuple[str, str]]) -> None:
        shard_id = data.draw(st.sampled_from(self.story.live()))
        shard = self.story.status.shard(shard_id)
        assert shard is not None
        some = strange + [(case_id, data.draw(outcomes)) for case_id in shard.case_ids if data.draw(st.booleans())]
        before = self._good()

        self.story.report(shard_id, *(result(case_id, outcome) for case_id, outcome in some))

        assert self._good() >= before - {(shard_id.rpartition("#")[0], case_id) for case_id, _ in some}

    @precondition(lambda self: self.story.live())
    @rule(data=st.data(), collected=st.lists(st.sampled_from(CASES)), errors=st.booleans())
    def collect(self, data: st.DataObject, collected: list[str], errors: bool) -> None:  # noqa: FBT001 - drawn
        plans = [each for each in self.story.live() if each.endswith("#plan")]
        if plans:
            shard_id = data.draw(st.sampled_from(plans))
            problems = [result("broken.py", "error")] if errors else []
            self.story.collects(shard_id.removesuffix("#plan"), *collected, errors=problems)

    @precondition(lambda self: self.story.live())
    @rule(data=st.data(), verdict=verdicts, missing=st.lists(case_ids, max_size=2))
    def end(self, data: st.DataObject, verdict: str, missing: list[str]) -> None:
        self.story.end(data.draw(st.sampled_from(self.story.live())), verdict, "because", missing=missing)

    @precondition(lambda self: self.story.live())
    @rule(data=st.data())
    def decline(self, data: st.DataObject) -> None:
        shard_id = data.draw(st.sampled_from(self.story.live()))
        token = self.story.token(shard_id)
        with contextlib.suppress(WrongState):
            self.story.ask(lambda decider: decider.attempt_declined(shard_id, token, "no"))

    @precondition(lambda self: self.story.live())
    @rule(data=st.data(), asked=st.lists(case_ids, max_size=3), given=st.lists(case_ids, max_size=3))
    def hand_back(self, data: st.DataObject, asked: list[str], given: list[str]) -> None:
        """Whatever a worker says that it gives, asked for or not, is either run elsewhere or awaited from it."""
        shard_id = data.draw(st.sampled_from(self.story.live()))
        token, task_id = self.story.token(shard_id), shard_id.rpartition("#")[0]
        before = self._to_do(task_id)

        self.story.ask(lambda decider: decider.ask_back_cases(shard_id, token, asked, 2))
        self.story.ask(lambda decider: decider.cases_handed_back(shard_id, token, given))

        if self.story.task(task_id).stop is None:
            assert self._to_do(task_id) == before

    @rule(task_id=st.sampled_from(["", "t0", "t1", "t9"]), seldom=seldom)
    def cancel(self, task_id: str, seldom: bool) -> None:  # noqa: FBT001 - drawn
        with contextlib.suppress(NotFound):
            if not seldom:
                return
            self.story.cancel(task_id)

    @rule(task_id=names, seldom=seldom)
    def give_up(self, task_id: str, seldom: bool) -> None:  # noqa: FBT001 - drawn
        if seldom and task_id in self.story.status.tasks:
            self.story.ask(lambda decider: decider.give_up_waiting(task_id))

    @rule(shard=st.sampled_from(["t0#plan", "t0#0", "t1#1", "t7#0", "#", ""]), token=st.integers(-1, 60))
    def intrude(self, shard: str, token: int) -> None:
        """Whoever does not hold the attempt changes nothing."""
        held = self.story.status.shard(shard)
        if held is not None and held.attempt is not None and held.attempt.token == token:
            return
        before = len(self.story.log)
        for request in (
            lambda decider: decider.attempt_running(shard, token),
            lambda decider: decider.cases_finished(shard, token, [result("a")]),
            lambda decider: decider.attempt_ended(shard, token, Verdict.COMPLETED, ""),
            lambda decider: decider.attempt_declined(shard, token, ""),
            lambda decider: decider.ask_back_cases(shard, token, ["a"], 1),
            lambda decider: decider.cases_handed_back(shard, token, ["a"]),
        ):
            with pytest.raises((LeaseLost, WrongState)):
                self.story.ask(request)
        assert len(self.story.log) == before

    def _to_do(self, task_id: str) -> list[str]:
        """The cases that some shard still has to run, or to end: each once."""
        shards = self.story.task(task_id).shards.values()
        awaited = [shard.attempt.awaited if shard.attempt else shard.case_ids for shard in shards if not shard.verdict]
        return sorted(case_id for some in awaited for case_id in some)

    def _good(self) -> set[tuple[str, str]]:
        return {
            (task_id, case_id)
            for task_id, task in self.story.status.tasks.items()
            for case_id, case in task.cases.items()
            if case.outcome is not None
        }

    @invariant()
    def something_can_happen(self) -> None:
        assert self.story.run.ended or self.story.waiting() or self.story.live()
        for task in self.story.status.tasks.values():
            if task.state is TaskState.BLOCKED:
                assert task.open_needs or not self.story.status.is_served(task)
            elif not task.state.ended and task.stop is not None:
                assert task.live

    @invariant()
    def no_attempt_counts_a_case_twice(self) -> None:
        for task in self.story.status.tasks.values():
            for case in task.cases.values():
                assert case.tries <= (task.shards[case.shard_id].attempts if case.shard_id else 0)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """A task that has passed has a good result for every case."""
        for task in self.story.status.tasks.values():
            if task.state is TaskState.PASSED:
                assert all(case.outcome is not None and not case.bad for case in task.cases.values())

    def teardown(self) -> None:
        """When every attempt is answered in order, the run ends."""
        story = getattr(self, "story", None)
        for _ in range(200):
            if story is None or story.run.ended:
                break
            for shard_id in story.waiting():
                story.start(shard_id)
            for shard_id in story.live():
                shard = story.status.shard(shard_id)
                if shard.kind is ShardKind.PLAN:
                    story.collects(shard.task_id, *CASES)
                else:
                    story.report(shard_id, *(result(case.case_id) for case in cases(*shard.case_ids)))
                story.end(shard_id)
        else:
            raise AssertionError("the run does not end")
        if story is not None:
            self.nothing_is_forgotten()


RunWalk.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRunWalk = RunWalk.TestCase
