"""Documents and output on MongoDB."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from pymongo import ReturnDocument

from fleetest.master.store.mongo_database import MongoDatabase, repeated
from fleetest.master.store.mongo_output import OutputRows
from fleetest.master.store.ports import LogPiece

__all__ = ["MongoDocuments"]

_DOCUMENTS: Final = "documents"


class MongoDocuments:
    """`Documents` on MongoDB."""

    _database: MongoDatabase
    _output: OutputRows

    async def put_if_absent(self, kind: str, key: str, value: str) -> str:
        # The server itself tries again when two such inserts meet, since the filter is the unique key.
        with self._database.work():
            stored = await repeated(
                lambda: self._database.collection(_DOCUMENTS).find_one_and_update(
                    _key(kind, key),
                    {"$setOnInsert": {"value": value}},
                    upsert=True,
                    return_document=ReturnDocument.AFTER,
                )
            )
        assert stored is not None  # it was there, or was inserted
        return str(stored["value"])

    async def get_document(self, kind: str, key: str) -> str | None:
        with self._database.work():
            found = await self._database.collection(_DOCUMENTS).find_one(_key(kind, key))
        return None if found is None else str(found["value"])

    async def list_documents(self, kind: str) -> Sequence[tuple[str, str]]:
        of_kind = {"_id": {"$gt": {"kind": kind, "key": MinKey()}, "$lt": {"kind": kind, "key": MaxKey()}}}
        with self._database.work():
            found = await self._database.collection(_DOCUMENTS).find(of_kind).sort("_id").to_list()
        return [(document["_id"]["key"], document["value"]) for document in found]

    async def replace_document(self, kind: str, key: str, *, expected: str, value: str) -> bool:
        # Done again after a broken connection, it no longer finds what it expects, but its own mark.
        mark = ObjectId()
        change = {"$set": {"value": value, "by": mark}}
        documents = self._database.collection(_DOCUMENTS)
        with self._database.work():
            done = await repeated(lambda: documents.update_one(_key(kind, key) | {"value": expected}, change))
            return bool(done.matched_count) or await documents.find_one(_key(kind, key) | {"by": mark}) is not None

    async def append_output(self, pieces: Sequence[LogPiece]) -> None:
        outputs: defaultdict[tuple[str, str], list[LogPiece]] = defaultdict(list)
        for piece in pieces:
            outputs[piece.run_id, piece.task_id].append(piece)
        with self._database.work():
            await asyncio.gather(*(self._output.append(output, some) for output, some in outputs.items()))

    async def read_output(
        self, run_id: str, task_id: str, *, shard_id: str = "", after_id: int = 0, limit: int = 256
    ) -> Sequence[tuple[int, LogPiece]]:
        with self._database.work():
            return await self._output.read((run_id, task_id), shard_id=shard_id, after_id=after_id, limit=limit)


def _key(kind: str, key: str) -> dict[str, Any]:
    return {"_id": {"kind": kind, "key": key}}
