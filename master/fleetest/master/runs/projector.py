"""
Derives from commits what is read often: the run's summary, its cases, and the history that the planner uses.

Runs behind the commits by a fraction of a second; `flush` catches up with this master's, `current` with everybody's.
Everything written is idempotent by position, so that a projection may be made again at any time, by several masters.

A run's row says up to which commit its projections are whole. Whoever moves it on makes them so, other masters' commits
included: those may die before they come to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from operator import itemgetter
from typing import Final, Protocol

import structlog

from fleetest.common.errors import FleetestError, NotFound
from fleetest.master.runs.events import Event, Finished, decode, results_of
from fleetest.master.runs.history import save_history
from fleetest.master.runs.results import encode_result
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.summary import row_of, summary_of
from fleetest.master.store.ports import CaseRow, RunRow, Store

__all__ = ["Projector", "Source"]

_log = structlog.get_logger()

INTERVAL: Final = timedelta(milliseconds=100)

_RUNS_AT_ONCE: Final = 16

_SHARE: Final = 5
"""How many times as long as the projecting itself the pause after it is, at least."""


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

    async def newest_status(self) -> RunStatus:
        """As `status`, with what other masters committed just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Derived:
    """What is to be saved of a run; `finished` is what its cases were made of."""

    source: Source
    row: RunRow
    cases: Sequence[CaseRow]
    finished: list[tuple[int, Finished]]
    ended: bool

    @property
    def run_id(self) -> str:
        return self.row.run_id


class Projector:
    """
    Use as an asynchronous context manager; leaving it flushes.

    Args:
        interval: for so long commits gather, but for the last of a run that ends while no other waits.
    """

    def __init__(self, store: Store, *, interval: timedelta = INTERVAL) -> None:
        self._store = store
        self._interval = interval
        self._dirty: dict[str, Source] = {}
        self._cases: dict[str, list[tuple[int, Finished]]] = {}
        self._taken: dict[str, set[int]] = {}
        self._whole: dict[str, int] = {}
        self._alone: set[str] = set()  # runs that began here, and of which no other master has committed anything
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._pause = interval.total_seconds()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Projector:
        self._task = asyncio.create_task(self._run(), name="projector")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._flush_all()

    def take(self, source: Source, status: RunStatus, position: int, events: Iterable[Event]) -> None:
        """Remember what a commit of this master changed. `status` has the commit applied."""
        finished = [(position, event) for event in events if isinstance(event, Finished)]
        if finished:
            self._cases.setdefault(status.run_id, []).extend(finished)
        self._taken.setdefault(status.run_id, set()).add(position)
        if position == 1 and status.run_id not in self._whole:
            self._whole[status.run_id] = 0  # nothing can have been projected before
            self._alone.add(status.run_id)
        self._dirty[status.run_id] = source
        if status.state.ended and len(self._dirty) == 1:
            self._due.set()  # nothing gathers, and whoever waited for this has just been told
        elif self._timer is None:
            # Lets commits gather, and goes out of the way of those that somebody waits for; not a wait for anything.
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._due.set)

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

    async def current(self, source: Source) -> RunRow | None:
        """
        The run's row, with what any master had committed when this was called; its cases are listed likewise. `None`
        when there is no such run. A run whose log was dropped is answered as it was projected last.

        Raises as `flush` does.
        """
        await self.flush(source.run_id)
        row = await self._store.get_run(source.run_id)
        if row is not None and row.state.ended:
            return row
        try:
            position = (await source.newest_status()).position
        except NotFound:
            return row
        if row is not None and row.position >= position:
            return row
        self._dirty.setdefault(source.run_id, source)
        await self.flush(source.run_id)
        return await self._store.get_run(source.run_id)

    async def rebuild(self, source: Source) -> None:
        """Project a whole run again from its log. Raises as `flush` does."""
        self._taken.pop(source.run_id, None)
        self._alone.discard(source.run_id)
        self._whole[source.run_id] = 0
        self._dirty[source.run_id] = source
        await self.flush(source.run_id)

    async def _run(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            began = time.monotonic()
            await self._flush_all()
            # What takes long is not done often: a run has many tasks.
            self._pause = max(self._interval.total_seconds(), _SHARE * (time.monotonic() - began))

    async def _flush_all(self) -> None:
        sources = list(self._dirty.values())
        for first in range(0, len(sources), _RUNS_AT_ONCE):
            async with self._lock:
                await self._flush_some(sources[first : first + _RUNS_AT_ONCE])

    async def _flush_some(self, sources: Sequence[Source]) -> None:
        """The store takes the rows of all at once. What is wrong with one run must not keep the others from it."""
        some: list[_Derived] = []
        try:
            with self._kept_on_failure(some):
                for source in sources:
                    if source.run_id in self._dirty:
                        with _said_of(source.run_id):
                            some.append(await self._derive(source))
                    await asyncio.sleep(0)  # whatever somebody waits for goes in between
                await self._save(some)
        except Exception:  # noqa: BLE001 - whatever it is, it is met again by the run to which it belongs
            for each in some:
                with _said_of(each.run_id):
                    await self._project(each.source)

    async def _project(self, source: Source) -> None:
        derived = await self._derive(source)
        with self._kept_on_failure([derived]):
            await self._save([derived])

    async def _derive(self, source: Source) -> _Derived:
        """What is taken from now on stays for the next time."""
        status = await self._gather(source)
        finished = self._cases.get(source.run_id, [])
        derived = _Derived(
            source=source,
            row=row_of(summary_of(status)),
            cases=_case_rows(status, finished),
            finished=finished,
            ended=status.state.ended,
        )
        del self._dirty[source.run_id]
        self._cases.pop(source.run_id, None)
        if derived.ended:
            with self._kept_on_failure([derived]):
                await self._save_history(status)
        return derived

    async def _save(self, some: Sequence[_Derived]) -> None:
        if not some:
            return
        await self._store.save_runs([each.row for each in some], [case for each in some for case in each.cases])
        for each in some:
            run_id, position = each.run_id, each.row.position
            self._whole[run_id] = position
            taken = self._taken[run_id] = {later for later in self._taken.get(run_id, ()) if later > position}
            if each.ended and not taken:
                del self._whole[run_id], self._taken[run_id]
                self._alone.discard(run_id)

    @contextmanager
    def _kept_on_failure(self, some: Sequence[_Derived]) -> Iterator[None]:
        """For the next time."""
        try:
            yield
        except BaseException:
            for each in some:
                self._dirty.setdefault(each.run_id, each.source)
                self._cases[each.run_id] = each.finished + self._cases.get(each.run_id, [])
            raise

    async def _gather(self, source: Source) -> RunStatus:
        """The run's state, with the cases of every commit in it taken; until the caller awaits something else."""
        run_id = source.run_id
        if run_id not in self._whole:
            known = await self._store.get_run(run_id)
            self._whole[run_id] = known.position if known is not None else 0
        others: list[tuple[int, Finished]] = []
        while True:
            status = await source.status()
            taken = self._taken.setdefault(run_id, set())
            gap = next((p for p in range(self._whole[run_id] + 1, status.position + 1) if p not in taken), None)
            if gap is None or not (commits := await self._store.read(run_id, after=gap - 1)):
                break
            self._alone.discard(run_id)
            for commit in commits:
                # What others have committed since is not in the status yet: that is for the next time.
                if commit.position <= status.position and commit.position not in taken:
                    taken.add(commit.position)
                    events = decode(commit.events)
                    others += [(commit.position, event) for event in events if isinstance(event, Finished)]
        if others:
            self._cases.setdefault(run_id, []).extend(others)
        return status

    async def _save_history(self, status: RunStatus) -> None:
        """
        Once, when the run has ended: the run's row says whether that was done already. Two masters that see the end
        in the same moment may both do it: then this run counts for more in the average, and nothing else.
        """
        if status.run_id not in self._alone:
            known = await self._store.get_run(status.run_id)
            if known is not None and known.state.ended:
                return
        await save_history(self._store, status)


def _case_rows(status: RunStatus, finished: Sequence[tuple[int, Finished]]) -> list[CaseRow]:
    """One for each case, with its last result."""
    rows: dict[tuple[str, str], CaseRow] = {}
    for position, event in sorted(finished, key=itemgetter(0)):
        task_id, worker_id = event.task_id, event.worker_id
        cases = status.tasks[task_id].cases
        for shard_id, result in results_of(event):
            case = cases[result.case_id]
            rows[task_id, result.case_id] = CaseRow(
                run_id=status.run_id,
                task_id=task_id,
                case_id=result.case_id,
                index=case.index,
                outcome=result.outcome,
                flaky=case.flaky,
                position=position,
                body={"attempts": case.tries, "worker_id": worker_id, "shard_id": shard_id},
                result=encode_result(result),
            )
    return list(rows.values())


@contextmanager
def _said_of(run_id: str) -> Iterator[None]:
    """A failure is said in the log, and goes no further."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - one run must not keep the others from being projected
        _log.warning("projection_failed", run_id=run_id, error=str(error), exc_info=_unexpected(error))


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, FleetestError) else error
