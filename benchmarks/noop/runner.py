"""A runner whose tasks do nothing, so that what is left to measure is what a task costs by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from fleetest.common.results import CaseResult, ResourceSample
from fleetest.common.states import Outcome, Verdict
from fleetest.common.tasks import TaskType
from fleetest.worker.assignments import Assignment, AttemptRef, Ended, Reporter, TaskSpec
from fleetest.worker.ports import Environment, Session

__all__ = ["NoopRunner"]


class NoopRunner:
    """Fulfils `Runner`: takes the place of the one for commands, and starts none."""

    type: str = TaskType.COMMAND.value

    async def open(self, spec: TaskSpec, environment: Environment) -> Session:
        return _NoopSession(spec, environment)


class _NoopSession:
    def __init__(self, spec: TaskSpec, environment: Environment) -> None:
        self.environment_key = spec.environment_key
        self._environment = environment

    def submit(self, assignment: Assignment, reporter: Reporter) -> asyncio.Future[Ended]:
        reporter.running(self._environment.notes)
        began = datetime.now(UTC)
        _do_nothing()
        case_id = f"{assignment.spec.task_id} {assignment.shard_index + 1}/{assignment.shard_count}"
        reporter.result(
            CaseResult(
                case_id=case_id, outcome=Outcome.PASSED, started_at=began, duration=max(timedelta(), _since(began))
            )
        )
        future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        future.set_result(Ended(verdict=Verdict.COMPLETED))
        return future

    def flush(self) -> None:
        """Nothing is held back."""

    @property
    def backlog(self) -> int:
        return 0

    def on_hungry(self, callback: Callable[[], None]) -> None:
        """It never is: an attempt has ended when it has begun."""

    async def stop(self, ref: AttemptRef, *, reason: str, grace: timedelta, finish_running_case: bool) -> None:
        """Whatever it is, it has ended."""

    def sample(self) -> ResourceSample | None:
        return None

    async def close(self) -> None:
        """Nothing is open."""


def _do_nothing() -> None:
    return None


def _since(moment: datetime) -> timedelta:
    return datetime.now(UTC) - moment
