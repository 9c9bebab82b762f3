"""One database of a MongoDB: connected, brought up to date, and what every piece of work on it has in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import AutoReconnect, BulkWriteError, NetworkTimeout, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern

from fleetest.common.ending import no_lost_cancellation
from fleetest.common.settings import Secret
from fleetest.master.store.mongo_errors import DUPLICATE_KEY, closed, explained, failed_writes, unconfirmed
from fleetest.master.store.mongo_schema import Document, migrate
from fleetest.master.store.mongo_url import DATABASE, connect, shown, write_concern

__all__ = ["MongoDatabase", "insert_new", "repeated"]

_Result = TypeVar("_Result")

_REPEATS: Final = 2


class MongoDatabase:
    """
    Where the parts of the store do their work.

    Reads come from the primary and see only what a majority has (unless the URL says otherwise), so that nothing
    that was read or acknowledged can be undone by the loss of a primary.

    Attributes:
        where: the store as messages name it, without credentials.
    """

    def __init__(self, client: AsyncMongoClient[Document], database: AsyncDatabase[Document], where: str) -> None:
        self.where = where
        self._client = client
        self._database = database
        self._at_work = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    @classmethod
    async def open(cls, url: Secret) -> MongoDatabase:
        """
        Connect, and bring the database to the newest schema.

        Raises:
            InvalidRequest: this is no URL of a MongoDB.
            WrongState: the database is a newer Fleetest's, or another application's, or the server is too old.
            CapacityExceeded, DependencyUnavailable: with what to do about it.
        """
        client = connect(url)
        named = client.get_default_database(default=DATABASE)
        database = client.get_database(
            named.name,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern(client.read_concern.level or "majority"),
            write_concern=write_concern(client),
        )
        opened = cls(client, database, f"{shown(url)}/{named.name}")
        try:
            with opened.work():
                await migrate(database, opened.where)
        except BaseException:
            await client.close()
            raise
        return opened

    def collection(self, name: str) -> AsyncCollection[Document]:
        return self._database[name]

    async def collection_names(self) -> list[str]:
        return await self._database.list_collection_names()

    @contextmanager
    def work(self) -> Iterator[None]:
        """
        Around everything that is asked of the store: `close` waits for its end.

        Raises:
            CapacityExceeded, DependencyUnavailable, InvalidRequest: for what PyMongo raised within.
            DependencyUnavailable: the store is closed.
        """
        if self._closing:
            raise closed(self.where)
        self._at_work += 1
        self._idle.clear()
        try:
            with no_lost_cancellation():
                yield
        except Exception as error:
            mapped = explained(error, self.where)
            if mapped is error:
                raise
            raise mapped from error
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._idle.set()

    async def finish(self) -> None:
        """Take nothing more, and wait for the end of what was begun."""
        self._closing = True
        await self._idle.wait()

    async def close(self) -> None:
        """Idempotent."""
        await self._client.close()


async def repeated(write: Callable[[], Awaitable[_Result]]) -> _Result:
    """
    Do a write, and do it again when the connection breaks before the answer, or its server is primary no more.

    So the restart of a server goes by unnoticed, also where the driver cannot retry by itself (it needs sessions). The
    write may thus be done twice: what we write is safe to repeat.
    """
    for _ in range(_REPEATS):
        try:
            return await write()
        except (NetworkTimeout, ServerSelectionTimeoutError):
            raise  # it took long enough
        except AutoReconnect:
            continue
    return await write()


async def insert_new(collection: AsyncCollection[Document], documents: Sequence[Document]) -> list[int]:
    """
    Insert those whose key is new, in any order; answer which have one that is known, by their place.

    Inserting first, and updating what is known, is many times faster than to update with `upsert`.
    """
    if not documents:
        return []
    try:
        await repeated(lambda: collection.insert_many(documents, ordered=False))
    except BulkWriteError as error:
        failed = failed_writes(error)
        if unconfirmed(error) or any(each["code"] != DUPLICATE_KEY for each in failed.values()):
            raise
        return list(failed)
    return []
