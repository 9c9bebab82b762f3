"""
What tasks write, on MongoDB: pieces with growing ids, though several masters append.

Ids are places in a row: each task of a run has its own, 1, 2, 3 and so on, and a piece takes the next one by the
unique insert of `{run_id, task_id, id}`. A master inserts at `n` only when it knows that `n - 1` is there. So a reader
that has seen `n` has seen all before it, which a counter could not promise: of two masters that drew 7 and 8, the
second may insert first. Masters that append to the same task at the same time contend; tasks and runs do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

from bson.max_key import MaxKey
from pymongo import DESCENDING
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError

from fleetest.common.errors import DependencyUnavailable
from fleetest.master.store.mongo_database import MongoDatabase, repeated
from fleetest.master.store.mongo_errors import DUPLICATE_KEY, failed_writes, unconfirmed
from fleetest.master.store.mongo_recent import Recent
from fleetest.master.store.mongo_schema import Document
from fleetest.master.store.ports import LogPiece

__all__ = ["OutputRows"]

_Output = tuple[str, str]
"""The run's id and the task's."""

_MOST_TRIES: Final = 50
"""Without placing a single piece: then a majority does not confirm what others placed."""

_FIRST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.2


class OutputRows:
    """Appends pieces to the output of tasks, and reads it."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database
        self._last: Recent[_Output] = Recent()
        self._turns: WeakValueDictionary[_Output, asyncio.Lock] = WeakValueDictionary()

    async def append(self, output: _Output, pieces: Sequence[LogPiece]) -> None:
        """
        Place those that are not known yet, in their order.

        Raises:
            PyMongoError: some may have been placed; the same pieces may be given again.
        """
        turn = self._turns.setdefault(output, asyncio.Lock())  # one after the other, rather than in one another's way
        async with turn:
            last = self._last.get(output)
            tries = 0
            while pieces:
                if last is None:
                    last = await self._newest(output)
                placed = await self._place(output, last, pieces)
                self._last.saw(output, last + placed)
                pieces = pieces[placed:]
                if pieces:
                    pieces, last = await self._without_known(output, pieces), None
                    tries = 0 if placed else tries + 1
                    await self._let_others_go(output, tries)

    async def read(self, output: _Output, *, shard_id: str, after_id: int, limit: int) -> list[tuple[int, LogPiece]]:
        conditions: dict[str, Any] = {"_id": {"$gt": _key(output, after_id), "$lt": _key(output, MaxKey())}}
        if shard_id:
            conditions["shard_id"] = shard_id
        found = await self._rows.find(conditions).sort("_id").limit(limit).to_list()
        return [(document["_id"]["id"], _to_piece(document)) for document in found]

    @property
    def _rows(self) -> AsyncCollection[Document]:
        return self._database.collection("output")

    async def _place(self, output: _Output, last: int, pieces: Sequence[LogPiece]) -> int:
        """Answer how many, from the first on, are there now; the next one is known, or its place is taken."""
        documents = [_to_document(output, last + 1 + index, piece) for index, piece in enumerate(pieces)]
        try:
            await repeated(lambda: self._rows.insert_many(documents))
        except BulkWriteError as error:
            ((index, failure),) = failed_writes(error).items()  # in order: the first failure ends it
            if unconfirmed(error) or failure["code"] != DUPLICATE_KEY:
                raise
            return index
        return len(documents)

    async def _newest(self, output: _Output) -> int:
        of_output = {"_id": {"$gt": _key(output, 0), "$lt": _key(output, MaxKey())}}
        newest = await self._rows.find_one(of_output, {"_id": 1}, sort=[("_id", DESCENDING)])
        return int(newest["_id"]["id"]) if newest else 0

    async def _without_known(self, output: _Output, pieces: Sequence[LogPiece]) -> list[LogPiece]:
        fields = ("shard_id", "token", "offset_bytes")
        any_of = [{name: getattr(piece, name) for name in fields} for piece in pieces]
        found = await self._rows.find({"run_id": output[0], "$or": any_of}, dict.fromkeys(fields, 1)).to_list()
        known = {tuple(document[name] for name in fields) for document in found}
        return [piece for piece in pieces if tuple(getattr(piece, name) for name in fields) not in known]

    async def _let_others_go(self, output: _Output, tries: int) -> None:
        if tries == _MOST_TRIES:
            raise DependencyUnavailable(
                f"the output of task {output[1]} of run {output[0]} could not be kept: what came before it is not "
                "confirmed",
                hint="see whether a majority of the replica set of FLEETEST_MONGODB_URL is up",
            )
        if tries > 1:
            await asyncio.sleep(min(_FIRST_PAUSE * 2**tries, _LONGEST_PAUSE))  # a majority rings no bell


def _key(output: _Output, place: object) -> dict[str, object]:
    run_id, task_id = output
    return {"run_id": run_id, "task_id": task_id, "id": place}


def _to_document(output: _Output, place: int, piece: LogPiece) -> Document:
    return {
        "_id": _key(output, place),
        "run_id": piece.run_id,
        "shard_id": piece.shard_id,
        "token": piece.token,
        "offset_bytes": piece.offset_bytes,
        "truncated": piece.truncated,
        "content": piece.content,
    }


def _to_piece(document: Document) -> LogPiece:
    return LogPiece(
        run_id=document["run_id"],
        task_id=document["_id"]["task_id"],
        shard_id=document["shard_id"],
        token=int(document["token"]),
        offset_bytes=int(document["offset_bytes"]),
        truncated=document["truncated"],
        content=document["content"],
    )
