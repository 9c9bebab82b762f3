"""
Takes in runs whose results were obtained elsewhere.

What a client sends is put by until all of it is there: of a stream that breaks, nothing is kept. Then it is written
into a run's log, a bounded piece a commit; a small import is one commit, and so there as a whole or not at all. A
master that dies in between leaves a run which the reconciler ends, unless the client comes again with the same key:
then it is continued where it stopped.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Final

import msgspec
import structlog

from fleetest.common.clock import Clock
from fleetest.common.errors import CapacityExceeded, InvalidRequest, NotFound
from fleetest.common.ids import new_run_id
from fleetest.common.limits import MAX_CASES_PER_TASK
from fleetest.common.tasks import Resources, RunnerType, Task
from fleetest.common.version_control import VersionControl
from fleetest.master.runs.book import RunBook
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.events import RunSubmitted
from fleetest.master.runs.importing import begin_import, end_imported_task, import_cases
from fleetest.master.runs.projector import Projector
from fleetest.master.runs.results import KeptResult
from fleetest.master.store.ports import SUBMITTED_WITH, Store
from fleetest.master.submission import Submitted, chosen_project

__all__ = ["MAX_PART_BYTES", "ImportBeginning", "ImportPart", "Imports"]

_log = structlog.get_logger()

MAX_PART_BYTES: Final = 4 << 20
"""Of results in one message, and about as much in one commit: whoever follows the run gets a commit in one message."""

MAX_IMPORT_BYTES: Final = 1 << 30
MAX_REPORTS: Final = 1000
_LONGEST_NAME: Final = 200
_LENGTH_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportBeginning:
    """
    What is to be made of the results; see `ImportBegin` in `run.proto`.

    Args:
        reports: where each was read, by the task that it becomes.
        only_project: the one that the importer has to do with; empty means any.
    """

    name: str
    reports: Mapping[str, str]
    project: str = ""
    idempotency_key: str = ""
    version_control: VersionControl = VersionControl()
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    only_project: str = ""


class ImportPart(msgspec.Struct, frozen=True, kw_only=True):
    """
    Some results of one task.

    Args:
        flaky: ids of cases that passed after they had not.
    """

    task_id: str
    results: tuple[KeptResult, ...]
    flaky: frozenset[str] = frozenset()


class Imports:
    """
    Where results are handed in.

    Args:
        new_id: makes the ids of runs.
    """

    def __init__(
        self,
        *,
        store: Store,
        book: RunBook,
        projector: Projector,
        clock: Clock,
        new_id: Callable[[], str] = new_run_id,
    ) -> None:
        self._store = store
        self._book = book
        self._projector = projector
        self._clock = clock
        self._new_id = new_id

    async def take(self, beginning: ImportBeginning, parts: AsyncIterable[ImportPart]) -> Submitted:
        """
        Make a run of results, once all of them have come. Idempotent by project and key.

        Args:
            parts: in the order of `beginning.reports`. What it raises ends the import, of which nothing is kept.

        Raises:
            InvalidRequest: something about the import is wrong.
            Forbidden: its project is not the importer's.
            CapacityExceeded: it is too large.
        """
        _check(beginning)
        project = chosen_project(beginning.project, beginning.name, beginning.only_project)
        with tempfile.TemporaryFile(prefix="fleetest-import-") as spool:
            await _put_by(spool, beginning, parts)
            return await self._write(spool, beginning, project)

    async def _write(self, spool: IO[bytes], beginning: ImportBeginning, project: str) -> Submitted:
        new_id, key = self._new_id(), beginning.idempotency_key
        run_id = await self._store.put_if_absent(SUBMITTED_WITH, f"{project}/{key}", new_id) if key else new_id
        already = run_id != new_id and await self._is_whole(run_id)
        if not already:
            keeper = self._book.new_keeper(run_id) if run_id == new_id else self._book.keeper(run_id)
            event = self._event(beginning, project)
            pieces = _pieces(spool, tuple(beginning.reports))
            while piece := await asyncio.to_thread(next, pieces, None):
                await keeper.ask(partial(_take_piece, event, piece))
            await self._projector.flush(run_id)
        _log.info(
            "run_imported",
            run_id=run_id,
            project=project,
            user=beginning.user,
            reports=len(beginning.reports),
            already=already,
        )
        return Submitted(run_id=run_id, already=already)

    async def _is_whole(self, run_id: str) -> bool:
        """Whether the holder of an idempotency key was written to its end."""
        try:
            return (await self._book.keeper(run_id).newest_status()).state.ended
        except NotFound:
            return False

    def _event(self, beginning: ImportBeginning, project: str) -> RunSubmitted:
        return RunSubmitted(
            at=self._clock.now(),
            project=project,
            suite_name=beginning.name,
            tasks=tuple(
                Task(name=task_id, type="import", runner=RunnerType.COMMAND, resources=Resources(), reports=(source,))
                for task_id, source in beginning.reports.items()
            ),
            version_control=beginning.version_control,
            user=beginning.user,
            labels=beginning.labels,
            imported=True,
        )


Piece = Sequence[ImportPart | str]
"""What becomes one commit: parts, and the ids of tasks that have no more of them."""


def _take_piece(event: RunSubmitted, piece: Piece, decider: Decider) -> None:
    begin_import(decider, event)
    for each in piece:
        task_id = each if isinstance(each, str) else each.task_id
        status = decider.status.tasks.get(task_id)
        if status is not None and status.state.ended and not decider.status.state.ended:
            continue  # it was written before its master died
        if isinstance(each, str):
            end_imported_task(decider, each)
        else:
            import_cases(decider, each.task_id, each.results, each.flaky)


def _check(beginning: ImportBeginning) -> None:
    if not beginning.name or len(beginning.name) > _LONGEST_NAME:
        raise InvalidRequest(f"an imported run needs a name of at most {_LONGEST_NAME} characters")
    if not beginning.reports or len(beginning.reports) > MAX_REPORTS:
        raise InvalidRequest(f"an import is of 1 to {MAX_REPORTS} reports, not of {len(beginning.reports)}")
    for task_id in beginning.reports:
        if not task_id.strip() or len(task_id) > _LONGEST_NAME or "#" in task_id or not task_id.isprintable():
            raise InvalidRequest(
                f"{task_id!r} cannot be the name of a task",
                hint=f"a name is at most {_LONGEST_NAME} printable characters, without #",
            )


async def _put_by(spool: IO[bytes], beginning: ImportBeginning, parts: AsyncIterable[ImportPart]) -> None:
    order = {task_id: place for place, task_id in enumerate(beginning.reports)}
    cases = dict.fromkeys(order, 0)
    place = size_bytes = 0
    async for part in parts:
        if order.get(part.task_id, -1) < place:
            raise InvalidRequest(f"results of {part.task_id!r} came out of turn, or it is none of the import's reports")
        place = order[part.task_id]
        cases[part.task_id] += len(part.results)
        frame = msgspec.msgpack.encode(part)
        size_bytes += len(frame)
        if cases[part.task_id] > MAX_CASES_PER_TASK:
            raise CapacityExceeded(f"{part.task_id} has more than {MAX_CASES_PER_TASK} cases")
        if size_bytes > MAX_IMPORT_BYTES:
            raise CapacityExceeded(f"an import is of at most {MAX_IMPORT_BYTES >> 30} GiB", hint="import less at once")
        await asyncio.to_thread(spool.write, len(frame).to_bytes(_LENGTH_BYTES) + frame)


def _pieces(spool: IO[bytes], order: Sequence[str]) -> Iterator[Piece]:
    """What was put by, a commit's worth at a time."""
    spool.seek(0)
    piece: list[ImportPart | str] = []
    size_bytes = place = 0
    while head := spool.read(_LENGTH_BYTES):
        frame = spool.read(int.from_bytes(head))
        part = msgspec.msgpack.decode(frame, type=ImportPart)
        if size_bytes and size_bytes + len(frame) > MAX_PART_BYTES:
            yield piece
            piece, size_bytes = [], 0
        while order[place] != part.task_id:
            piece.append(order[place])
            place += 1
        piece.append(part)
        size_bytes += len(frame)
    yield [*piece, *order[place:]]
