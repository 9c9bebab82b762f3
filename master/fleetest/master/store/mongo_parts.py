"""
Commits that are larger than a document of MongoDB may be (16 MiB), as the plan of half a million cases is.

Their events are written in parts before the commit itself is inserted, which names them: that insert stays the one
atomic step. Parts of a commit that lost its position are removed; should their master die before, they go with their
partition.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from bson.objectid import ObjectId

from fleetest.master.store.mongo_database import repeated
from fleetest.master.store.mongo_partitions import Partitions

__all__ = ["LARGEST_PART_BYTES", "Parts"]

LARGEST_PART_BYTES: Final = 12 << 20


class Parts:
    """Where the events of large commits lie. `of` is the mark of one try to append."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions

    async def write(self, day: date, of: ObjectId, events: bytes) -> int:
        """Answer how many there are."""
        collection = self._partitions.parts(day)
        pieces = [events[first : first + LARGEST_PART_BYTES] for first in range(0, len(events), LARGEST_PART_BYTES)]
        for number, piece in enumerate(pieces):
            key = _key(of, number)
            await repeated(lambda: collection.replace_one(key, key | {"events": piece}, upsert=True))  # noqa: B023
        return len(pieces)

    async def read(self, day: date, of: ObjectId, count: int) -> bytes | None:
        """`None` when they are not there, as after their partition was dropped."""
        between = {"$gte": _key(of, 0)["_id"], "$lt": _key(of, count)["_id"]}
        found = await self._partitions.parts(day).find({"_id": between}).sort("_id").to_list()
        return b"".join(part["events"] for part in found) if len(found) == count else None

    async def remove(self, day: date, of: ObjectId, count: int) -> None:
        between = {"$gte": _key(of, 0)["_id"], "$lt": _key(of, count)["_id"]}
        await self._partitions.parts(day).delete_many({"_id": between})


def _key(of: ObjectId, number: int) -> dict[str, Any]:
    return {"_id": {"of": of, "number": number}}
