"""Runs the tasks that combine what others have measured of coverage."""

from __future__ import annotations

from fleetest.common.tasks import RunnerType
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.ports import Blobs, Environment, Session
from fleetest.worker.runners.combining_attempt import CombiningAttempt
from fleetest.worker.runners.command import CommandSession

__all__ = ["CombiningRunner"]


class CombiningRunner:
    """Fulfils `Runner` for tasks of type `coverage`."""

    type: str = RunnerType.COVERAGE.value

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def open(self, spec: TaskSpec, environment: Environment) -> Session:
        return CommandSession(spec, environment, self._blobs, CombiningAttempt)

    async def leave(self, environment: Environment) -> None:
        """Nothing is kept in it."""
