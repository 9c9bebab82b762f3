"""Commits on their way into the log: those that wait share one bulk insert (group commit)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Any, Final

from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from pymongo import DESCENDING
from pymongo.errors import BulkWriteError, PyMongoError, WriteError

from fleetest.common.errors import DependencyUnavailable, WrongState
from fleetest.master.store.mongo_database import repeated
from fleetest.master.store.mongo_errors import DUPLICATE_KEY, failed_writes, unconfirmed
from fleetest.master.store.mongo_partitions import Partitions
from fleetest.master.store.mongo_schema import Document
from fleetest.master.store.ports import PositionTaken

__all__ = ["Append", "Appender", "positions"]

_LARGEST_GROUP: Final = 1000
_LARGEST_GROUP_BYTES: Final = 16 << 20

_VISIBLE_WITHIN: Final = 5.0
"""Seconds in which a majority has what another master inserted before us."""


def positions(run_id: str, *, after: object = MinKey()) -> dict[str, object]:
    """A filter: the commits of a run, by the `_id` that documents of the log have."""
    return {"_id": {"$gt": {"run_id": run_id, "position": after}, "$lt": {"run_id": run_id, "position": MaxKey()}}}


@dataclass(slots=True, kw_only=True, eq=False)
class Append:
    """
    A commit that waits for its place in the log.

    Args:
        document: has a mark of its own in `by`, by which a try whose answer was lost is known again.
    """

    day: date
    document: Document
    size_bytes: int
    answer: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def run_id(self) -> str:
        return str(self.document["_id"]["run_id"])

    @property
    def position(self) -> int:
        return int(self.document["_id"]["position"])

    @property
    def by(self) -> ObjectId:
        mark: ObjectId = self.document["by"]
        return mark

    def succeed(self) -> None:
        if not self.answer.done():  # else nobody waits any longer
            self.answer.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Appender:
    """
    Inserts one group at a time; the next gathers meanwhile.

    A group has at most one commit of each run. So whatever part of a group is lost, no log has a gap: a commit is
    inserted only when the one before it is known to be in the majority's hands.
    """

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        self._waiting: list[Append] = []
        self._worker: asyncio.Task[None] | None = None

    async def append(self, append: Append) -> None:
        """
        Wait until it is in the log. A caller that gives up waiting does not undo it.

        Raises:
            PositionTaken, WrongState, DependencyUnavailable: see `RunLog.append`.
            PyMongoError: it may be in the log, or not.
        """
        self._waiting.append(append)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="store-appender")
        await append.answer

    async def finish(self) -> None:
        """Wait for the end of what was begun."""
        if self._worker is not None:
            await self._worker

    async def _work(self) -> None:
        while group := self._next_group():
            try:
                await self._commit(group)
            except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
                for append in group:
                    append.fail(error)

    def _next_group(self) -> list[Append]:
        """What may go together, first come first served; at least one when any waits."""
        group: dict[str, Append] = {}
        left, size_bytes = [], 0
        for append in self._waiting:
            fits = len(group) < _LARGEST_GROUP and size_bytes + append.size_bytes <= _LARGEST_GROUP_BYTES
            if append.run_id not in group and (fits or not group):
                group[append.run_id] = append
                size_bytes += append.size_bytes
            else:
                left.append(append)
        self._waiting = left
        return list(group.values())

    async def _commit(self, group: Sequence[Append]) -> None:
        by_day: defaultdict[date, list[Append]] = defaultdict(list)
        for append in group:
            if self._partitions.is_dropped(append.day):
                append.fail(self._partitions.refusal(append.run_id))
            else:
                by_day[append.day].append(append)
        for day, appends in by_day.items():
            try:
                await self._acknowledge(day, await repeated(partial(self._insert, day, appends)))
            except PyMongoError as error:
                for append in appends:
                    append.fail(error)

    async def _insert(self, day: date, appends: Sequence[Append]) -> list[Append]:
        """Answer those that are in the log now; the others are refused."""
        ready = await self._without_gap(day, [append for append in appends if not append.answer.done()])
        if not ready:
            return []
        documents = [append.document for append in ready]
        try:
            await self._partitions.commits(day).insert_many(documents, ordered=False)
        except BulkWriteError as error:
            failed = failed_writes(error)
            inserted = [append for index, append in enumerate(ready) if index not in failed]
            if unconfirmed(error):
                for append in inserted:
                    append.fail(error)
                inserted = []
            taken = [ready[index] for index, each in failed.items() if each["code"] == DUPLICATE_KEY]
            for index, each in failed.items():
                if each["code"] != DUPLICATE_KEY:
                    ready[index].fail(WriteError(each["errmsg"], each["code"], each))
            return inserted + await self._standing(day, taken)
        return ready

    async def _without_gap(self, day: date, appends: Sequence[Append]) -> list[Append]:
        """
        Refuse those whose predecessor is not in the log.

        Asked anew for each try: a server that was restored from a backup, or told to acknowledge before its journal or
        its majority has a commit, knows less than we were told.
        """
        before = [
            {"run_id": append.run_id, "position": append.position - 1} for append in appends if append.position != 1
        ]
        found = await self._marks(day, before) if before else {}
        for append in appends:
            if append.position != 1 and (append.run_id, append.position - 1) not in found:
                append.fail(await self._gap(append))
        return [append for append in appends if not append.answer.done()]

    async def _standing(self, day: date, appends: Sequence[Append]) -> list[Append]:
        """
        Of those whose position exists: those that stand there themselves, from a try whose answer was lost.

        What took the place of the others can be read when they hear of it.
        """
        marks = await self._visible_marks(day, appends) if appends else {}
        for append in appends:
            if (append.run_id, append.position) not in marks:
                append.fail(
                    DependencyUnavailable(
                        f"commit {append.position} of run {append.run_id} is another master's, and not confirmed yet",
                        hint="see whether a majority of the replica set of FLEETEST_MONGODB_URL is up",
                    )
                )
            elif marks[append.run_id, append.position] != append.by:
                append.fail(_taken(append))
        return [append for append in appends if not append.answer.done()]

    async def _visible_marks(self, day: date, appends: Sequence[Append]) -> Mapping[tuple[str, int], ObjectId]:
        ids = [append.document["_id"] for append in appends]
        limit = asyncio.get_running_loop().time() + _VISIBLE_WITHIN
        pause = 0.005
        while len(marks := await self._marks(day, ids)) < len(ids):
            await self._partitions.look()
            if self._partitions.is_dropped(day) or asyncio.get_running_loop().time() > limit:
                break
            await asyncio.sleep(pause)  # a majority rings no bell
            pause *= 2
        return marks

    async def _marks(self, day: date, ids: Sequence[Mapping[str, Any]]) -> Mapping[tuple[str, int], ObjectId]:
        """Of the commits that exist: by whose try they came there."""
        found = await self._partitions.commits(day).find({"_id": {"$in": list(ids)}}, {"by": 1}).to_list()
        return {(each["_id"]["run_id"], each["_id"]["position"]): each["by"] for each in found}

    async def _gap(self, append: Append) -> WrongState:
        await self._partitions.look()
        if self._partitions.is_dropped(append.day):
            return self._partitions.refusal(append.run_id)
        newest = await self._partitions.commits(append.day).find_one(
            positions(append.run_id), {"_id": 1}, sort=[("_id", DESCENDING)]
        )
        last = newest["_id"]["position"] if newest else 0
        return WrongState(f"commit {append.position} of run {append.run_id} would leave a gap: its last is {last}")

    async def _acknowledge(self, day: date, inserted: Sequence[Append]) -> None:
        """See `mongo_partitions`: whether the partition was dropped meanwhile."""
        if not inserted:
            return
        await self._partitions.look()
        if self._partitions.is_dropped(day):
            await self._partitions.discard([day])
            for append in inserted:
                append.fail(self._partitions.refusal(append.run_id))
        for append in inserted:
            append.succeed()


def _taken(append: Append) -> PositionTaken:
    return PositionTaken(f"run {append.run_id} already has a commit {append.position}")
