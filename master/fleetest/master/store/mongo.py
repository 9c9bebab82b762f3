"""The store on a database of a MongoDB: what several masters share."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable
from fleetest.common.settings import Secret
from fleetest.master.store.mongo_appends import Appender
from fleetest.master.store.mongo_database import MongoDatabase, repeated
from fleetest.master.store.mongo_documents import MongoDocuments
from fleetest.master.store.mongo_history import MongoHistory
from fleetest.master.store.mongo_holds import MongoHolds
from fleetest.master.store.mongo_log import MongoLog
from fleetest.master.store.mongo_output import OutputRows
from fleetest.master.store.mongo_partitions import Partitions
from fleetest.master.store.mongo_parts import Parts
from fleetest.master.store.mongo_projections import MongoProjections
from fleetest.master.store.mongo_schema import META
from fleetest.master.store.ports import SUBMITTED_WITH, Commit, RunRow

__all__ = ["MongoStore"]

_CHECK: Final = {"_id": "check"}


class MongoStore(MongoLog, MongoProjections, MongoHistory, MongoDocuments, MongoHolds):
    """
    `Store` on MongoDB: its ports on one database.

    An acknowledged write is in the journals of a majority of the replica set. Every method may raise CapacityExceeded
    (its disk is full) or DependencyUnavailable (it cannot be reached or written, or the store is closed); what was
    being written then may come to be all the same, and may be written again.

    No transaction, session or change stream is used.

    ::

        async with await MongoStore.open(url) as store: ...
    """

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database
        self._partitions = Partitions(database)
        self._parts = Parts(self._partitions)
        self._appender = Appender(self._partitions)
        self._output = OutputRows(database)

    @classmethod
    async def open(cls, url: Secret) -> Self:
        """See `MongoDatabase.open`."""
        return cls(await MongoDatabase.open(url))

    async def begin_run(self, commit: Commit, row: RunRow, *, key: str = "") -> str:
        """In three writes."""
        holder = await self.put_if_absent(SUBMITTED_WITH, key, commit.run_id) if key else commit.run_id
        if holder == commit.run_id:
            await self.append(commit)
            await self.save_runs([row])
        return holder

    async def check(self) -> None:
        try:
            with self._database.work():
                meta = self._database.collection(META)
                await repeated(lambda: meta.update_one(_CHECK, {"$inc": {"count": 1}}, upsert=True))
        except CapacityExceeded as full:
            raise DependencyUnavailable(full.message, hint=full.hint) from full

    async def close(self) -> None:
        """Finish what was begun, and disconnect. Idempotent."""
        await self._database.finish()
        await self._appender.finish()  # what nobody waits for any longer
        await self._database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
