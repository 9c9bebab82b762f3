"""Runs, cases, and the history of cases and tasks on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec

from fleetest.common.results import ResourceUsage
from fleetest.common.states import Outcome, RunState
from fleetest.master.store.ports import USAGES_KEPT, CaseHistory, CaseRow, RunQuery, RunRow
from fleetest.master.store.sqlite_database import Database
from fleetest.master.store.sqlite_rows import insert
from fleetest.master.store.sqlite_shortcut import SMALL_BYTES
from fleetest.master.store.values import from_json, from_microseconds, to_json, to_microseconds

__all__ = ["SqliteProjections", "saving_runs"]

_MICROSECOND: Final = timedelta(microseconds=1)

_SAVE_RUN: Final = """
    INSERT INTO runs (run_id, project, suite_name, branch, state, submitted_at_us, ended_at_us, position, body)
    VALUES {rows}
    ON CONFLICT (run_id) DO UPDATE SET
        project = excluded.project, suite_name = excluded.suite_name, branch = excluded.branch,
        state = excluded.state, submitted_at_us = excluded.submitted_at_us, ended_at_us = excluded.ended_at_us,
        position = excluded.position, body = excluded.body
    WHERE excluded.position >= runs.position
"""
_RUNS: Final = """
    SELECT run_id, project, suite_name, branch, state, submitted_at_us, ended_at_us, position, body FROM runs
"""
_FOUND_RUNS: Final = 10
# No text is greater than one that begins alike and goes on with the last code point.
_LAST_CODE_POINT: Final = "\U0010ffff"

_SAVE_CASE: Final = """
    INSERT INTO cases (run_id, task_id, case_id, place, outcome, flaky, position, body, result)
    VALUES {rows}
    ON CONFLICT (run_id, task_id, case_id) DO UPDATE SET
        place = excluded.place, outcome = excluded.outcome, flaky = excluded.flaky,
        position = excluded.position, body = excluded.body, result = excluded.result
    WHERE excluded.position >= cases.position
"""
_CASES: Final = """
    SELECT run_id, task_id, case_id, place, outcome, flaky, position, body, result FROM cases
"""

_SAVE_HISTORY: Final = """
    INSERT INTO case_history (project, task, case_id, duration_us, outcome, worker_id, measured_us, failing)
    VALUES {rows}
    ON CONFLICT (project, task, case_id) DO UPDATE SET
        duration_us = (duration_us + excluded.duration_us) / 2, outcome = excluded.outcome,
        worker_id = excluded.worker_id, measured_us = excluded.measured_us, failing = (failing + excluded.failing) / 2
"""
_LOAD_HISTORY: Final = """
    SELECT case_id, duration_us, outcome, worker_id, measured_us, failing FROM case_history
    WHERE project = ? AND task = ?
"""

_SAVE_USAGE: Final = """
    INSERT OR REPLACE INTO task_usage (
        project, task, run_id, cpu_time_us, wall_time_us, peak_memory_bytes, disk_read_bytes, disk_written_bytes
    ) VALUES {rows}
"""
_FORGET_USAGE: Final = """
    DELETE FROM task_usage WHERE project = ?1 AND task = ?2 AND run_id NOT IN (
        SELECT run_id FROM task_usage WHERE project = ?1 AND task = ?2 ORDER BY run_id DESC LIMIT ?3
    )
"""
_LOAD_USAGE: Final = """
    SELECT task, cpu_time_us, wall_time_us, peak_memory_bytes, disk_read_bytes, disk_written_bytes
    FROM task_usage JOIN json_each(?2) ON task = value WHERE project = ?1 ORDER BY task, run_id DESC
"""

_FEW: Final = 50
"""Tasks whose usage is read at once."""

_FEW_ROWS: Final = 4
"""That may be saved at once."""

_Conditions = Mapping[str, Sequence[Any]]
"""SQL with its parameters. The SQL is always a literal of this module."""


class SqliteProjections:
    """`Projections` on SQLite. Saving waits for no disk: after the death of the machine, the log makes them again."""

    _database: Database

    async def save_runs(self, runs: Sequence[RunRow], cases: Sequence[CaseRow] = ()) -> None:
        """In one transaction, with few statements: commits wait for it, and at each it waits for a busy event loop."""
        case_rows, run_rows = [_to_case_row(case) for case in cases], [_to_run_row(run) for run in runs]

        def work(connection: sqlite3.Connection) -> None:
            insert(connection, _SAVE_CASE, case_rows)
            insert(connection, _SAVE_RUN, run_rows)

        rows = [*case_rows, *run_rows]
        small = len(rows) <= _FEW_ROWS and sum(len(row[-1]) for row in rows) <= SMALL_BYTES  # the last is the longest
        await self._database.write_derived(work, small=small)

    async def save_cases(self, cases: Sequence[CaseRow]) -> None:
        rows = [_to_case_row(case) for case in cases]
        await self._database.write_derived(lambda connection: insert(connection, _SAVE_CASE, rows))

    async def get_run(self, run_id: str) -> RunRow | None:
        found = self._database.read_at_once(_finding_runs({"run_id = ?": (run_id,)}, limit=1))
        return found[0] if found else None

    async def find_runs(self, prefix: str) -> Sequence[RunRow]:
        return await self._runs({"run_id BETWEEN ? AND ?": (prefix, prefix + _LAST_CODE_POINT)}, limit=_FOUND_RUNS)

    async def list_runs(self, query: RunQuery) -> Sequence[RunRow]:
        wanted = {
            "project = ?": query.project,
            "branch = ?": query.branch,
            "suite_name = ?": query.suite_name,
            "state = ?": query.state,
            "run_id < ?": query.before_run_id,
        }
        return await self._runs({sql: (value,) for sql, value in wanted.items() if value}, limit=query.limit)

    async def list_cases(
        self,
        run_id: str,
        *,
        task_id: str = "",
        outcomes: frozenset[Outcome] = frozenset(),
        after: tuple[str, int] | None = None,
        limit: int = 1000,
    ) -> Sequence[CaseRow]:
        conditions: dict[str, Sequence[Any]] = {"run_id = ?": (run_id,)}
        if task_id:
            conditions["task_id = ?"] = (task_id,)
        if outcomes:
            conditions[f"outcome IN ({', '.join('?' * len(outcomes))})"] = sorted(outcomes)
        if after:
            conditions["(task_id, place) > (?, ?)"] = after

        def work(connection: sqlite3.Connection) -> list[CaseRow]:
            rows = _select(connection, _CASES, conditions, order="task_id, place", limit=limit)
            return [_from_case_row(row) for row in rows]

        return await self._database.read(work)

    async def save_history(self, project: str, task: str, cases: Sequence[CaseHistory]) -> None:
        rows = [
            (
                project,
                task,
                case.case_id,
                case.duration // _MICROSECOND,
                str(case.outcome),
                case.worker_id,
                case.measured // _MICROSECOND,
                case.failing,
            )
            for case in cases
        ]
        await self._database.write_derived(lambda connection: insert(connection, _SAVE_HISTORY, rows))

    async def load_history(self, project: str, task: str) -> Mapping[str, CaseHistory]:
        def work(connection: sqlite3.Connection) -> dict[str, CaseHistory]:
            return {row[0]: _from_history_row(*row) for row in connection.execute(_LOAD_HISTORY, (project, task))}

        return await self._database.read(work)

    async def save_usage(self, project: str, run_id: str, usages: Mapping[str, ResourceUsage]) -> None:
        rows = [
            (
                project,
                task,
                run_id,
                usage.cpu_time // _MICROSECOND,
                usage.wall_time // _MICROSECOND,
                usage.peak_memory_bytes,
                usage.disk_read_bytes,
                usage.disk_written_bytes,
            )
            for task, usage in usages.items()
        ]

        def work(connection: sqlite3.Connection) -> None:
            insert(connection, _SAVE_USAGE, rows)
            connection.executemany(_FORGET_USAGE, [(project, task, USAGES_KEPT) for task in usages])

        await self._database.write_derived(work)

    async def load_usage(self, project: str, tasks: Sequence[str]) -> Mapping[str, Sequence[ResourceUsage]]:
        def work(connection: sqlite3.Connection) -> dict[str, list[ResourceUsage]]:
            found: dict[str, list[ResourceUsage]] = {}
            names = msgspec.json.encode(list(tasks)).decode()
            for task, *columns in connection.execute(_LOAD_USAGE, (project, names)):
                found.setdefault(task, []).append(_from_usage_columns(*columns))
            return found

        return self._database.read_at_once(work) if len(tasks) <= _FEW else await self._database.read(work)

    async def _runs(self, conditions: _Conditions, *, limit: int) -> list[RunRow]:
        return await self._database.read(_finding_runs(conditions, limit=limit))


def _to_case_row(case: CaseRow) -> tuple[Any, ...]:
    """Words and numbers as such: for each value of a type of its own, SQLite's module looks for how to write it."""
    return (
        case.run_id,
        case.task_id,
        case.case_id,
        case.index,
        str(case.outcome),
        int(case.flaky),
        case.position,
        to_json(case.body),
        case.result,
    )


def saving_runs(runs: Sequence[RunRow]) -> Callable[[sqlite3.Connection], None]:
    """The work that saves the rows of runs."""
    rows = [_to_run_row(run) for run in runs]
    return lambda connection: insert(connection, _SAVE_RUN, rows)


def _finding_runs(conditions: _Conditions, *, limit: int) -> Callable[[sqlite3.Connection], list[RunRow]]:
    def work(connection: sqlite3.Connection) -> list[RunRow]:
        rows = _select(connection, _RUNS, conditions, order="run_id DESC", limit=limit)
        return [_from_run_row(row) for row in rows]

    return work


def _select(
    connection: sqlite3.Connection, columns: str, conditions: _Conditions, *, order: str, limit: int
) -> list[tuple[Any, ...]]:
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    parameters = [value for values in conditions.values() for value in values]
    return connection.execute(f"{columns} {where} ORDER BY {order} LIMIT ?", (*parameters, limit)).fetchall()


def _to_run_row(run: RunRow) -> tuple[Any, ...]:
    return (
        run.run_id,
        run.project,
        run.suite_name,
        run.branch,
        run.state,
        to_microseconds(run.submitted_at),
        None if run.ended_at is None else to_microseconds(run.ended_at),
        run.position,
        to_json(run.body),
    )


def _from_run_row(row: tuple[Any, ...]) -> RunRow:
    run_id, project, suite_name, branch, state, submitted_at_us, ended_at_us, position, body = row
    return RunRow(
        run_id=run_id,
        project=project,
        suite_name=suite_name,
        branch=branch,
        state=RunState(state),
        submitted_at=from_microseconds(submitted_at_us),
        ended_at=None if ended_at_us is None else from_microseconds(ended_at_us),
        position=position,
        body=from_json(body),
    )


def _from_history_row(
    case_id: str, duration_us: int, outcome: str, worker_id: str, measured_us: int, failing: float
) -> CaseHistory:
    return CaseHistory(
        case_id=case_id,
        duration=duration_us * _MICROSECOND,
        outcome=Outcome(outcome),
        worker_id=worker_id,
        measured=measured_us * _MICROSECOND,
        failing=failing,
    )


def _from_usage_columns(
    cpu_time_us: int, wall_time_us: int, peak_memory_bytes: int, disk_read_bytes: int, disk_written_bytes: int
) -> ResourceUsage:
    return ResourceUsage(
        cpu_time=cpu_time_us * _MICROSECOND,
        peak_memory_bytes=peak_memory_bytes,
        disk_read_bytes=disk_read_bytes,
        disk_written_bytes=disk_written_bytes,
        wall_time=wall_time_us * _MICROSECOND,
    )


def _from_case_row(row: tuple[Any, ...]) -> CaseRow:
    run_id, task_id, case_id, place, outcome, flaky, position, body, result = row
    return CaseRow(
        run_id=run_id,
        task_id=task_id,
        case_id=case_id,
        index=place,
        outcome=Outcome(outcome),
        flaky=bool(flaky),
        position=position,
        body=from_json(body),
        result=result,
    )
