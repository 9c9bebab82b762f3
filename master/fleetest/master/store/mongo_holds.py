"""Holds of blobs on MongoDB."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from pymongo import DeleteOne, UpdateOne

from fleetest.master.store.mongo_database import MongoDatabase, insert_new, repeated
from fleetest.master.store.mongo_schema import Document
from fleetest.master.store.ports import BlobHold
from fleetest.master.store.values import from_microseconds, to_microseconds

__all__ = ["MongoHolds"]

_HOLDS: Final = "blob_holds"


class MongoHolds:
    """`BlobHolds` on MongoDB."""

    _database: MongoDatabase

    async def hold(self, holds: Sequence[BlobHold]) -> None:
        documents = [_key(hold) | {"until_us": to_microseconds(hold.until)} for hold in holds]
        with self._database.work():
            known = await insert_new(self._database.collection(_HOLDS), documents)
        await self._change(
            [
                UpdateOne(_key(holds[index]), {"$max": {"until_us": documents[index]["until_us"]}}, upsert=True)
                for index in known
            ]
        )

    async def held(self, digests: Collection[str], *, at: datetime, project: str | None = None) -> frozenset[str]:
        conditions: dict[str, Any] = {
            "_id.digest": {"$in": sorted(digests)},
            "until_us": {"$gt": to_microseconds(at)},
        }
        if project is not None:
            conditions["_id.project"] = project
        with self._database.work():
            found = await self._database.collection(_HOLDS).find(conditions, {"_id.digest": 1}).to_list()
        return frozenset(document["_id"]["digest"] for document in found)

    async def holds_of(self, holder: str) -> Sequence[BlobHold]:
        with self._database.work():
            found = self._database.collection(_HOLDS).find({"_id.holder": holder})
            return [_to_hold(each) for each in await found.sort([("_id.name", 1), ("_id.digest", 1)]).to_list()]

    async def end_holds(self, holds: Sequence[BlobHold], *, at: datetime) -> None:
        await self._change([UpdateOne(_key(hold), {"$min": {"until_us": to_microseconds(at)}}) for hold in holds])

    async def ended_holds(self, by: datetime, *, limit: int) -> Sequence[BlobHold]:
        with self._database.work():
            found = self._database.collection(_HOLDS).find({"until_us": {"$lte": to_microseconds(by)}})
            return [_to_hold(each) for each in await found.sort("until_us").limit(limit).to_list()]

    async def release(self, holds: Sequence[BlobHold]) -> None:
        await self._change(
            [DeleteOne(_key(hold) | {"until_us": {"$lte": to_microseconds(hold.until)}}) for hold in holds]
        )

    async def _change(self, changes: Sequence[UpdateOne | DeleteOne]) -> None:
        if changes:
            with self._database.work():
                collection = self._database.collection(_HOLDS)
                await repeated(lambda: collection.bulk_write(list(changes), ordered=False))


def _key(hold: BlobHold) -> Document:
    return {
        "_id": {"digest": hold.digest, "project": hold.project, "holder": hold.holder, "name": hold.name},
    }


def _to_hold(document: Document) -> BlobHold:
    key = document["_id"]
    return BlobHold(
        digest=key["digest"],
        project=key["project"],
        holder=key["holder"],
        name=key["name"],
        until=from_microseconds(document["until_us"]),
    )
