"""
Derives from commits what is read often: the run's summary, its cases, and the history that the planner uses.

Runs behind the commits by a fraction of a second; `flush` catches up. Everything written is idempotent by position,
so that a projection may be made again at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from datetime import timedelta
from typing import Final, Protocol

import msgspec
import structlog

from fleetest.common.errors import FleetestError
from fleetest.master.runs.events import CasesFinished, Event, decode
from fleetest.master.runs.sizing import telling_usage
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.summary import row_of, summary_of
from fleetest.master.store.ports import CaseHistory, CaseRow, Store

__all__ = ["Projector", "Source"]

_log = structlog.get_logger()

INTERVAL: Final = timedelta(milliseconds=100)


class Source(Protocol):
    """Where a run's state is read: its keeper."""

    @property
    def run_id(self) -> str: ...

    async def status(self) -> RunStatus:
        """
        What is durable, until the caller awaits something else.

        Raises:
            FleetestError: it cannot be read.
        """


class Projector:
    """Use as an asynchronous context manager; leaving it flushes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dirty: dict[str, Source] = {}
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
        await self._flush_all()

    def take(self, source: Source, status: RunStatus, position: int, events: Iterable[Event]) -> None:
        """Remember what a commit changed. `status` has the commit applied."""
        for event in events:
            if isinstance(event, CasesFinished):
                self._take_cases(status, position, event)
        self._dirty[status.run_id] = source
        self._wake.set()

    async def flush(self, run_id: str) -> None:
        """
        Bring the projections of this run up to what was taken.

        Raises:
            DependencyUnavailable, CapacityExceeded: the store does not take them; they are tried again later.
        """
        async with self._lock:
            source = self._dirty.get(run_id)
            if source is not None:
                await self._project(source)

    async def rebuild(self, source: Source) -> None:
        """Project a whole run again from its log. Raises as `flush` does."""
        after = 0
        while commits := await self._store.read(source.run_id, after=after):
            status = await source.status()
            for commit in commits:
                self.take(source, status, commit.position, decode(commit.events))
            after = commits[-1].position
        await self.flush(source.run_id)

    def _take_cases(self, status: RunStatus, position: int, event: CasesFinished) -> None:
        task = status.tasks[event.task_id]
        rows = self._cases.setdefault(status.run_id, {})
        for result in event.results:
            case = task.cases[result.case_id]
            rows[event.task_id, result.case_id] = CaseRow(
                run_id=status.run_id,
                task_id=event.task_id,
                case_id=result.case_id,
                index=case.index,
                outcome=result.outcome,
                flaky=case.flaky,
                position=position,
                body={
                    "result": msgspec.to_builtins(result),
                    "attempts": case.tries,
                    "worker_id": event.worker_id,
                    "shard_id": event.shard_id,
                },
            )

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._flush_all()
            await asyncio.sleep(INTERVAL.total_seconds())  # lets commits gather; not a wait for anything

    async def _flush_all(self) -> None:
        for run_id in list(self._dirty):
            try:
                await self.flush(run_id)
            except Exception as error:  # noqa: BLE001 - one run must not keep the others from being projected
                _log.warning("projection_failed", run_id=run_id, error=str(error), exc_info=_unexpected(error))

    async def _project(self, source: Source) -> None:
        """What is taken meanwhile stays for the next time, and so does everything when this fails."""
        status = await source.status()
        row, ended = row_of(summary_of(status)), status.state.ended
        del self._dirty[source.run_id]
        cases = self._cases.pop(source.run_id, {})
        try:
            if cases:
                await self._store.save_cases(list(cases.values()))
            if ended:
                await self._save_history(status)
            await self._store.save_run(row)  # last: its position says that all before it is there
        except BaseException:
            self._dirty.setdefault(source.run_id, source)
            self._cases[source.run_id] = cases | self._cases.get(source.run_id, {})
            raise

    async def _save_history(self, status: RunStatus) -> None:
        """Once, when the run has ended: the run's row says whether that was done already."""
        known = await self._store.get_run(status.run_id)
        if known is not None and known.state.ended:
            return
        for task_id, task in status.tasks.items():
            history = [
                CaseHistory(case_id=case_id, duration=case.duration, outcome=case.outcome)
                for case_id, case in task.cases.items()
                if case.outcome is not None and case.repeatable
            ]
            if history:
                await self._store.save_history(status.request.project, task_id, history)
        usages = {task_id: usage for task_id, task in status.tasks.items() if (usage := telling_usage(task))}
        if usages:
            await self._store.save_usage(status.request.project, status.run_id, usages)


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, FleetestError) else error
