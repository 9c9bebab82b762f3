"""
Tells the life of a run in short sentences, and checks after each that the log alone would tell the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from fleetest.common.backoff import Backoff
from fleetest.common.clock import ManualClock
from fleetest.common.results import Counts, PlannedCase
from fleetest.common.states import Outcome, RunState, TaskState, Verdict
from fleetest.common.tasks import Need, Probe, Resources, RunnerType, Service, Task, When
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.events import Event, RunSubmitted, decode, encode
from fleetest.master.runs.planner import Fleet, plan
from fleetest.master.runs.results import KeptResult
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import TaskStatus

T = TypeVar("T")

START = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)
RUN_ID = "019a0000-0000-7000-8000-000000000000"
BACKOFF = Backoff(fraction=lambda: 1.0)


def pytest_task(name: str = "unit", *, shards: int | None = 1, **settings: Any) -> Task:
    return Task(name=name, type="pytest", shards=shards, **settings)


def command_task(name: str = "lint", **settings: Any) -> Task:
    return Task(name=name, type="command", runner=RunnerType.COMMAND, command=("true",), **settings)


def service_task(name: str = "shop", **settings: Any) -> Task:
    service = Service(ready=Probe(tcp=True))
    settings = {"resources": Resources(), **settings}
    return Task(name=name, type="service", runner=RunnerType.SERVICE, command=("shop",), service=service, **settings)


def need(task: str, when: When = When.PASSED) -> Need:
    return Need(task=task, when=when)


def submitted(*tasks: Task, **settings: Any) -> RunSubmitted:
    return RunSubmitted(at=START, project="p", suite_name="s", tasks=tasks, **settings)


def result(case_id: str, outcome: str = "passed", **settings: Any) -> KeptResult:
    return KeptResult(case_id=case_id, outcome=Outcome(outcome), duration=timedelta(milliseconds=5), **settings)


def cases(*case_ids: str) -> tuple[PlannedCase, ...]:
    return tuple(PlannedCase(case_id=case_id, file=case_id.partition("::")[0]) for case_id in case_ids)


class Story:
    """
    One run without store or queue: every sentence is one commit.

    Attributes:
        queued: shards that were to be enqueued since they were last looked at.
        stopped: shards whose workers were to be told to stop.
        log: the encoded commits.
    """

    def __init__(self, *tasks: Task, **settings: Any) -> None:
        self.clock = ManualClock(START)
        self.status = RunStatus(RUN_ID)
        self.log: list[bytes] = []
        self.queued: list[str] = []
        self.stopped: list[tuple[str, bool]] = []
        self._retold = RunStatus(RUN_ID)
        self.ask(lambda decider: decider.submit(submitted(*tasks, **settings)))

    # -- what happens

    def ask(self, request: Callable[[Decider], T]) -> T:
        decider = Decider(self.status, self.clock.now(), BACKOFF)
        try:
            return request(decider)
        finally:
            if decider.events:
                self.log.append(encode(decider.events))
                self._retell(decode(self.log[-1]))
            self.queued += [shard.shard_id for shard in decider.enqueue]
            self.stopped += [(shard.shard_id, request.finish_running_case) for shard, request in decider.stop]
            check_books(self.status)

    def start(self, shard_id: str, worker: str = "w1") -> int:
        return self.ask(lambda decider: decider.start_attempt(shard_id, worker, f"{worker}-1"))

    def token(self, shard_id: str) -> int:
        shard = self.status.shard(shard_id)
        assert shard is not None, shard_id
        assert shard.attempt is not None, f"{shard_id} has no attempt"
        return shard.attempt.token

    def report(self, shard_id: str, *results: KeptResult, **outcomes: str) -> None:
        """Results of the live attempt, such as `a="passed"`."""
        some = [*results, *(result(case_id, outcome) for case_id, outcome in outcomes.items())]
        token = self.token(shard_id)
        self.ask(lambda decider: decider.attempt_running(shard_id, token))
        self.ask(lambda decider: decider.cases_finished(shard_id, token, some))

    def end(self, shard_id: str, verdict: str = "completed", reason: str = "", *, missing: Sequence[str] = ()) -> None:
        token = self.token(shard_id)
        self.ask(lambda decider: decider.attempt_ended(shard_id, token, Verdict(verdict), reason, missing=missing))

    def runs(self, shard_id: str, *results: KeptResult, **outcomes: str) -> None:
        """A whole attempt that ends in order."""
        self.start(shard_id)
        self.report(shard_id, *results, **outcomes)
        self.end(shard_id)

    def collects(
        self, task_id: str, *case_ids: str, errors: Sequence[KeptResult] = (), deselected: int = 0, slots: int = 1
    ) -> None:
        """The live plan attempt says what there is."""
        shard_id = f"{task_id}#plan"
        token, task = self.token(shard_id), self.status.tasks[task_id].task
        dealt = plan(task, cases(*case_ids), {}, fleet=Fleet(slots={"w1": slots}))
        self.ask(
            lambda decider: decider.planned(shard_id, token, dealt, deselected=deselected, collection_errors=errors)
        )

    def plans(self, task_id: str, *case_ids: str, **settings: Any) -> None:
        """A whole plan attempt."""
        self.start(f"{task_id}#plan")
        self.collects(task_id, *case_ids, **settings)
        self.end(f"{task_id}#plan")

    def cancel(self, task_id: str = "") -> bool:
        return self.ask(lambda decider: decider.cancel(task_id, by="user:ann", reason="ann said so"))

    # -- what has become of it

    def task(self, task_id: str) -> TaskStatus:
        return self.status.tasks[task_id]

    def state(self, task_id: str) -> TaskState:
        return self.task(task_id).state

    def outcomes(self, task_id: str) -> dict[str, str]:
        return {case_id: (case.outcome or "") for case_id, case in self.task(task_id).cases.items()}

    @property
    def run(self) -> RunState:
        return self.status.state

    def waiting(self) -> list[str]:
        return [
            shard.shard_id
            for task in self.status.tasks.values()
            if self.status.may_be_queued(task)
            for shard in task.shards.values()
            if shard.waiting
        ]

    def live(self) -> list[str]:
        return [shard.shard_id for task in self.status.tasks.values() for shard in task.live_attempts]

    def _retell(self, events: Sequence[Event]) -> None:
        position = self._retold.position + 1
        for event in events:
            self._retold.apply(event, position)
        assert snapshot(self._retold) == snapshot(self.status), "the log tells another story"


def snapshot(status: RunStatus) -> dict[str, object]:
    """All that the log says of a run."""
    return {name: value for name, value in vars(status).items() if name != "touched"}


def check_books(status: RunStatus) -> None:
    """Whatever is counted as it changes equals a recount."""
    for task in status.tasks.values():
        outcomes = [case.outcome for case in task.cases.values() if case.outcome is not None]
        assert task.counts == Counts(
            planned=len(task.cases),
            flaky=sum(case.flaky for case in task.cases.values()),
            **{outcome.value: outcomes.count(outcome) for outcome in Outcome},
        )
        assert task.final_failures == sum(case.failed_for_good(task.task) for case in task.cases.values())
        assert task.live == sum(shard.attempt is not None for shard in task.shards.values())
        assert task.open_shards == sum(shard.verdict is None for shard in task.shards.values())
        ends = [each.task for each in task.task.needs if each.when is not When.READY]
        assert task.open_needs == sum(not status.tasks[each].state.ended for each in ends)
    assert status.live_tasks == sum(not task.state.ended for task in status.tasks.values())
    assert status.state.ended == (not status.live_tasks)
