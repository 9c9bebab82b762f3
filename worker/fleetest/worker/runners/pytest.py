"""Runs pytest suites, in resident sessions."""

from __future__ import annotations

from fleetest.common.tasks import RunnerType
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.ports import Blobs, Environment, Session
from fleetest.worker.runners.pytest_session import PytestSession
from fleetest.worker.runners.pytest_standby import Standbys

__all__ = ["PytestRunner"]


class PytestRunner:
    """Fulfils `Runner` for tasks of type `pytest`."""

    type: str = RunnerType.PYTEST.value

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._standbys = Standbys()

    async def open(self, spec: TaskSpec, environment: Environment) -> Session:
        return PytestSession(spec, environment, self._blobs, self._standbys)

    async def leave(self, environment: Environment) -> None:
        await self._standbys.end(environment)
