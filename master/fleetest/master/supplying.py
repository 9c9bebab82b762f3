"""
Sees to it that tasks get what they take of the artifacts of others, and are queued then.

Which tasks wait for that is in the log: every commit of this master is looked at, and every run that is reconciled,
since the master of the last commit may have died. That two masters do it harms nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from fleetest.common.ending import end_tasks
from fleetest.common.errors import FleetestError, NotFound, WrongState
from fleetest.common.states import TaskState
from fleetest.master.input_workspaces import InputWorkspaces
from fleetest.master.runs.book import RunBook
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.inputs import InputsMissing
from fleetest.master.runs.state import RunStatus

__all__ = ["Supplying"]

_log = structlog.get_logger()

_AT_ONCE: Final = 4


class Supplying:
    """What fails for want of the store or the blobs is tried again when its run is looked at again."""

    def __init__(self, book: RunBook, workspaces: InputWorkspaces) -> None:
        self._book = book
        self._workspaces = workspaces
        self._waiting: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._known: set[tuple[str, str]] = set()

    def look_at(self, status: RunStatus) -> None:
        """Some of the run's tasks may wait for what they take of others."""
        for task_id in status.awaiting_inputs:
            key = status.run_id, task_id
            if key not in self._known:
                self._known.add(key)
                self._waiting.put_nowait(key)

    async def run(self) -> None:
        """Supply tasks until cancelled."""
        loops = [asyncio.create_task(self._work(), name="supply") for _ in range(_AT_ONCE)]
        try:
            await asyncio.gather(*loops)
        finally:
            await end_tasks(loops)

    async def supply_all(self) -> None:
        """Supply those that wait now."""
        while not self._waiting.empty():
            await self._supply_next()

    async def _work(self) -> None:
        while True:
            await self._supply_next()

    async def _supply_next(self) -> None:
        run_id, task_id = await self._waiting.get()
        self._known.discard((run_id, task_id))
        try:
            await self._supply(run_id, task_id)
        except FleetestError as error:
            _log.warning("inputs_not_supplied", run_id=run_id, task=task_id, error=str(error))

    async def _supply(self, run_id: str, task_id: str) -> None:
        keeper = self._book.keeper(run_id)
        status = await keeper.status()
        if task_id not in status.awaiting_inputs:
            return
        task = status.tasks[task_id].task
        try:
            supplied = await self._workspaces.make(status, task, task.inputs)
        except InputsMissing as error:
            await keeper.ask(_giving_up(task_id, TaskState.FAILED, error))
        except (WrongState, NotFound) as error:  # the run's own files are gone
            await keeper.ask(_giving_up(task_id, TaskState.ERRORED, error))
        else:
            await keeper.ask(lambda decider: decider.supply(task_id, supplied))


def _giving_up(task_id: str, state: TaskState, error: FleetestError) -> Callable[[Decider], None]:
    return lambda decider: decider.give_up_supplying(task_id, state, error.message)
