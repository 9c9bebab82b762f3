"""
The log's partitions on MongoDB: two collections for each UTC day of run ids, and the mark before which they are gone.

Dropping first raises the mark in `meta`, then drops collections. A master that has not seen the mark may insert after
the drop, which makes the collection again. It therefore looks at the mark after each insert and before it acknowledges:
either its insert came before the drop, and went with it, or it sees the mark, refuses the commit, and discards the
collection. Should it die in between, nothing was acknowledged, and the next drop finds what it left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from typing import Final

from pymongo.asynchronous.collection import AsyncCollection

from fleetest.common.errors import WrongState
from fleetest.master.store.mongo_database import MongoDatabase, repeated
from fleetest.master.store.mongo_schema import META, Document

__all__ = ["Partitions"]

_NAME: Final = re.compile(r"log_(\d{8})(_parts)?")
_MARK: Final = {"_id": "log_retention"}


class Partitions:
    """Where the log of a day lies, and whether it still does."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database
        self._mark: date | None = None  # as last seen; it never goes back

    def commits(self, day: date) -> AsyncCollection[Document]:
        return self._database.collection(f"log_{day:%Y%m%d}")

    def parts(self, day: date) -> AsyncCollection[Document]:
        """Of commits that are too large for one document."""
        return self._database.collection(f"log_{day:%Y%m%d}_parts")

    def is_dropped(self, day: date) -> bool:
        """As far as this master has seen: without asking the database."""
        return self._mark is not None and day < self._mark

    async def look(self) -> date | None:
        """The mark as it is now."""
        document = await self._database.collection(META).find_one(_MARK)
        if document is not None:
            self._mark = date.fromisoformat(document["dropped_before"])
        return self._mark

    async def drop_before(self, day: date) -> list[date]:
        """Drop what is older, also what came back after an earlier drop; answer the days, oldest first."""
        raise_mark = {"$max": {"dropped_before": day.isoformat()}}
        await repeated(lambda: self._database.collection(META).update_one(_MARK, raise_mark, upsert=True))
        await self.look()
        dropped = sorted({each for each in await self._days() if each < day})
        await self.discard(dropped)
        return dropped

    async def discard(self, days: Iterable[date]) -> None:
        """Drop the collections of days that lie before the mark."""
        for day in days:
            await repeated(self.commits(day).drop)
            await repeated(self.parts(day).drop)

    def refusal(self, run_id: str) -> WrongState:
        """What whoever appends to a dropped log is told."""
        return WrongState(
            f"the log of run {run_id} was dropped, with all from before {self._mark}", hint="submit the run again"
        )

    async def _days(self) -> list[date]:
        names = map(_NAME.fullmatch, await self._database.collection_names())
        return [date.fromisoformat(name[1]) for name in names if name]
