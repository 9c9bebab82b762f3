"""Runs load tests: each attempt is a generator, a process of Locust that keeps to the schedule of all."""

from __future__ import annotations

from fleetest.common.tasks import RunnerType
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.ports import Blobs, Environment, Session
from fleetest.worker.runners.command import CommandSession
from fleetest.worker.runners.load_attempt import LoadAttempt

__all__ = ["LoadRunner"]


class LoadRunner:
    """Fulfils `Runner` for load tests."""

    type: str = RunnerType.LOAD.value

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def open(self, spec: TaskSpec, environment: Environment) -> Session:
        return CommandSession(spec, environment, self._blobs, LoadAttempt)

    async def leave(self, environment: Environment) -> None:
        """Nothing is kept in it."""
