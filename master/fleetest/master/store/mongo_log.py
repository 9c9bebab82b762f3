"""The runs' log on MongoDB."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

from bson.objectid import ObjectId

from fleetest.common.errors import DependencyUnavailable, InvalidRequest
from fleetest.common.ids import day_of_run
from fleetest.master.store.mongo_appends import Append, Appender, positions
from fleetest.master.store.mongo_database import MongoDatabase
from fleetest.master.store.mongo_partitions import Partitions
from fleetest.master.store.mongo_parts import LARGEST_PART_BYTES, Parts
from fleetest.master.store.mongo_schema import Document
from fleetest.master.store.ports import Commit, PositionTaken
from fleetest.master.store.values import from_microseconds, to_microseconds

__all__ = ["MongoLog"]

_OVERHEAD_BYTES: Final = 256
"""About what a commit takes beside its events."""


class MongoLog:
    """
    `RunLog` on MongoDB.

    A commit is a document whose `_id` is `{run_id, position}`: its insert is the one atomic step, whichever masters try
    it. When a connection breaks before the answer, the insert is tried again, and knows itself by its mark.
    """

    _database: MongoDatabase
    _partitions: Partitions
    _parts: Parts
    _appender: Appender

    async def append(self, commit: Commit) -> None:
        with self._database.work():
            day = _day_of(commit.run_id)
            mark = ObjectId()
            document: Document = {
                "_id": {"run_id": commit.run_id, "position": commit.position},
                "by": mark,
                "at_us": to_microseconds(commit.at),
            }
            size_bytes, parts = len(commit.events) + _OVERHEAD_BYTES, 0
            if len(commit.events) <= LARGEST_PART_BYTES:
                document["events"] = commit.events
            else:
                size_bytes, parts = _OVERHEAD_BYTES, await self._parts.write(day, mark, commit.events)
                document["parts"] = parts
            try:
                await self._appender.append(Append(day=day, document=document, size_bytes=size_bytes))
            except PositionTaken:
                if parts:
                    await self._parts.remove(day, mark, parts)
                raise

    async def read(self, run_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[Commit]:
        with self._database.work():
            day = _day_of(run_id)
            if self._partitions.is_dropped(day):
                return []
            found = self._partitions.commits(day).find(positions(run_id, after=after)).sort("_id").limit(limit)
            return [await self._to_commit(day, document) for document in await found.to_list()]

    async def drop_before(self, day: date) -> Sequence[date]:
        with self._database.work():
            return await self._partitions.drop_before(day)

    async def dropped_before(self) -> date | None:
        with self._database.work():
            return await self._partitions.look()

    async def _to_commit(self, day: date, document: Document) -> Commit:
        run_id, position = document["_id"]["run_id"], document["_id"]["position"]
        events = document.get("events")
        if events is None:
            events = await self._parts.read(day, document["by"], document["parts"])
        if events is None:
            raise DependencyUnavailable(
                f"commit {position} of run {run_id} is not whole in the store {self._database.where}",
                hint="its partition may just be being dropped: try again; else restore the store from a backup",
            )
        return Commit(run_id=run_id, position=position, at=from_microseconds(document["at_us"]), events=events)


def _day_of(run_id: str) -> date:
    try:
        return day_of_run(run_id)
    except ValueError:
        raise InvalidRequest(f"not a run id: {run_id!r}") from None
