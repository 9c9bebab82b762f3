"""
A runner whose tasks do nothing, so that what is left to measure is what a task costs by itself.

The last word of a task's command is how many cases it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from fleetest.common.results import CaseResult, ResourceSample
from fleetest.common.states import Outcome, Verdict
from fleetest.common.tasks import RunnerType
from fleetest.worker.assignments import Assignment, AttemptRef, Ended, Reporter, TaskSpec
from fleetest.worker.ports import Environment, Session

__all__ = ["NoopRunner"]


class NoopRunner:
    """Fulfils `Runner`: takes the place of the one for commands, and starts none."""

    type: str = RunnerType.COMMAND.value

    async def open(self, spec: TaskSpec, environment: Environment) -> Session:
        return _NoopSession(spec, environment)

    async def leave(self, environment: Environment) -> None:
        """Nothing is kept in it."""


class _NoopSession:
    def __init__(self, spec: TaskSpec, environment: Environment) -> None:
        self.environment_key = spec.environment_key
        self._environment = environment

    def submit(self, assignment: Assignment, reporter: Reporter) -> asyncio.Future[Ended]:
        reporter.running(self._environment.notes)
        task_id, index, count = assignment.spec.task_id, assignment.shard_index, assignment.shard_count
        for number in range(int(assignment.spec.command[-1])):
            began = datetime.now(UTC)
            _do_nothing()
            reporter.result(
                CaseResult(
                    case_id=f"{task_id} {index + 1}/{count} case {number}",
                    outcome=Outcome.PASSED,
                    started_at=began,
                    duration=max(timedelta(), datetime.now(UTC) - began),
                )
            )
        future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        future.set_result(Ended(verdict=Verdict.COMPLETED))
        return future

    def expect(self, run_id: str) -> None: ...

    def hand_back(self, ref: AttemptRef, case_ids: Sequence[str]) -> None: ...

    def flush(self) -> None:
        """Nothing is held back."""

    @property
    def backlog(self) -> int:
        return 0

    @property
    def ahead(self) -> int:
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
