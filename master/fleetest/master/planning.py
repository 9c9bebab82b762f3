"""Makes the plan of a task out of all that it depends on: its history, the workers, and what is likely to fail."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import structlog

from fleetest.common.errors import FleetestError
from fleetest.common.results import PlannedCase
from fleetest.common.tasks import Task
from fleetest.master.queue.ports import WorkerRegistry
from fleetest.master.runs.planner import Fleet, Plan, plan
from fleetest.master.runs.risk import risks
from fleetest.master.runs.speeds import SpeedBook
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.summary import summary_of_row
from fleetest.master.store.ports import RunQuery, Store
from fleetest.master.workspaces import WorkspaceSource

__all__ = ["Planning"]

_log = structlog.get_logger()

_NOTHING: Final[frozenset[str]] = frozenset()


class Planning:
    """
    Args:
        workspaces: tell what has changed since the suite's run before.
    """

    def __init__(self, store: Store, registry: WorkerRegistry, workspaces: WorkspaceSource) -> None:
        self._store = store
        self._registry = registry
        self._workspaces = workspaces
        self._speeds = SpeedBook(store)

    async def plan(self, status: RunStatus, task: Task, cases: Sequence[PlannedCase]) -> Plan:
        """
        Deal the collected cases to shards.

        Raises:
            DependencyUnavailable: the store, or Redis, does not answer.
        """
        history = await self._store.load_history(status.request.project, task.name)
        fleet = await self._fleet(status.request.project)
        if not (status.request.fail_fast or task.maxfail):
            return plan(task, cases, history, fleet=fleet)
        likely = risks(cases, history, await self._changed(status))
        return plan(task, cases, history, fleet=fleet, risk=likely)

    async def _fleet(self, project: str) -> Fleet:
        slots = {worker.worker_id: worker.slots for worker in await self._registry.list() if not worker.offline}
        speeds = await self._speeds.of_project(project)
        return Fleet(
            slots=slots, speeds={worker_id: each.speed for worker_id, each in speeds.items() if worker_id in slots}
        )

    async def _changed(self, status: RunStatus) -> Collection[str]:
        """The files that are new, or other than in the suite's run before; none when that is not known (any more)."""
        request = status.request
        query = RunQuery(project=request.project, suite_name=request.suite_name, before_run_id=status.run_id, limit=1)
        earlier = [summary_of_row(row).workspace_digest for row in await self._store.list_runs(query)]
        if not (earlier and earlier[0] and request.workspace_digest) or earlier[0] == request.workspace_digest:
            return _NOTHING
        try:
            before = set((await self._workspaces.load(earlier[0])).files)
            now = (await self._workspaces.load(request.workspace_digest)).files
        except FleetestError as error:
            _log.info("changes_not_known", run_id=status.run_id, reason=error.message)
            return _NOTHING
        return {file.path for file in now if file not in before}
