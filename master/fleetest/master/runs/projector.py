"""
Derives from commits what is read often: the run's summary, its cases, and the history that the planner uses.

Runs behind the commits by a fraction of a second; `flush` catches up. Everything written is idempotent by position,
so that a projection may be made again at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

import msgspec
import structlog

from fleetest.common.errors import FleetestError
from fleetest.master.runs.events import CasesFinished, Event, decode
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.summary import row_of, summary_of
from fleetest.master.store.ports import CaseHistory, CaseRow, Store

__all__ = ["Projector"]

_log = structlog.get_logger()

INTERVAL: Final = timedelta(milliseconds=100)


class Projector:
    """Use as an asynchronous context manager; leaving it flushes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dirty: dict[str, RunStatus] = {}
        self._cases: dict[str, dict[tuple[str, str], CaseRow]] = {}
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Projector:
        self._task = asyncio.create_task(self._run(), name="projector")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._flush(list(self._dirty))

    def take(self, status: RunStatus, position: int, events: Iterable[Event]) -> None:
        """Remember what a commit changed. `status` has the commit applied."""
        for event in events:
            if isinstance(event, CasesFinished):
                self._take_cases(status, position, event)
        self._dirty[status.run_id] = status
        self._wake.set()

    async def flush(self, run_id: str) -> None:
        """Bring the projections of this run up to what was taken."""
        if run_id in self._dirty:
            await self._flush([run_id])

    async def rebuild(self, status: RunStatus) -> None:
        """Project a whole run again from its log."""
        after = 0
        while commits := await self._store.read(status.run_id, after=after):
            for commit in commits:
                self.take(status, commit.position, decode(commit.events))
            after = commits[-1].position
        await self.flush(status.run_id)

    def _take_cases(self, status: RunStatus, position: int, event: CasesFinished) -> None:
        task = status.tasks[event.task_id]
        rows = self._cases.setdefault(status.run_id, {})
        for result in event.results:
            case = task.cases[result.case_id]
            body = {"result": msgspec.to_builtins(result), "attempts": case.tries, "worker_id": event.worker_id}
            body["shard_id"] = event.shard_id
            rows[event.task_id, result.case_id] = CaseRow(
                run_id=status.run_id,
                task_id=event.task_id,
                case_id=result.case_id,
                index=case.index,
                outcome=result.outcome,
                flaky=case.flaky,
                position=position,
                body=body,
            )

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._flush(list(self._dirty))
            await asyncio.sleep(INTERVAL.total_seconds())  # lets commits gather; not a wait for anything

    async def _flush(self, run_ids: Sequence[str]) -> None:
        async with self._lock:
            for run_id in run_ids:
                status = self._dirty.pop(run_id, None)
                if status is None:
                    continue
                cases = self._cases.pop(run_id, {})
                try:
                    await self._project(status, list(cases.values()))
                except FleetestError as error:
                    _log.warning("projection_failed", run_id=run_id, error=str(error))
                    self._dirty.setdefault(run_id, status)
                    self._cases[run_id] = cases | self._cases.get(run_id, {})

    async def _project(self, status: RunStatus, cases: Sequence[CaseRow]) -> None:
        row = row_of(summary_of(status))
        if cases:
            await self._store.save_cases(cases)
        if status.state.ended:
            await self._save_history(status)
        await self._store.save_run(row)

    async def _save_history(self, status: RunStatus) -> None:
        """Once, when the run has ended: the run's row says whether that was done already."""
        known = await self._store.get_run(status.run_id)
        if known is not None and known.state.ended:
            return
        for task_id, task in status.tasks.items():
            history = [
                CaseHistory(case_id=case_id, duration=case.duration, outcome=case.outcome)
                for case_id, case in task.cases.items()
                if case.outcome is not None
            ]
            if history:
                await self._store.save_history(status.request.project, task_id, history)
