"""Runs services: what is tested, started for as long as tasks of the same run need it."""

from __future__ import annotations

from fleetest.common.tasks import RunnerType
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.ports import Blobs, Environment, Session
from fleetest.worker.runners.command import CommandSession
from fleetest.worker.runners.service_attempt import ServiceAttempt

__all__ = ["ServiceRunner"]


class ServiceRunner:
    """Fulfils `Runner` for services."""

    type: str = RunnerType.SERVICE.value

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def open(self, spec: TaskSpec, environment: Environment) -> Session:
        return CommandSession(spec, environment, self._blobs, ServiceAttempt)

    async def leave(self, environment: Environment) -> None:
        """Nothing is kept in it."""
