"""
The collections with their indexes, and how a database from an earlier Fleetest comes to have them.

Collections of the log, two for each day, are made by `mongo_log` when they are needed, and have no index but that of
their `_id`: the server makes it with the collection, so that no moment exists in which a position could be taken twice.

The document `schema` in `meta` counts the steps that a database has behind it. Masters that start at once do the same
steps at once, as nothing here locks: a step is safe to run twice, and beside itself. It is never changed once
released; a new one is added at the end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.database import AsyncDatabase

from fleetest.common.errors import WrongState

__all__ = ["INDEXES", "META", "OLDEST_SERVER", "Document", "migrate"]

Document = dict[str, Any]

META: Final = "meta"

OLDEST_SERVER: Final = (7, 0)
"""Of MongoDB."""

_MARK: Final = {"_id": "schema"}
_APPLICATION: Final = "fleetest"


def _index(name: str, *fields: str, unique: bool = False) -> IndexModel:
    return IndexModel([(field, ASCENDING) for field in fields], name=name, unique=unique)


# What each document's `_id` is made of is said here too: the server keeps a unique index of it in every collection.
INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    # by the run's id
    "runs": (_index("by_project", "project", "_id"), _index("by_state", "state", "_id")),
    # by run_id, task_id and case_id. The outcome comes last so that a filter by it need not look at the documents.
    "cases": (_index("by_place", "run_id", "task_id", "place", "outcome"),),
    # by project, task and case_id
    "case_history": (),
    # by project and task
    "task_usage": (),
    # by kind and key
    "documents": (),
    # by run_id, task_id and id
    "output": (_index("by_piece", "run_id", "shard_id", "token", "offset_bytes", unique=True),),
    # by digest, project, holder and name
    "blob_holds": (
        _index("by_digest", "_id.digest", "until_us"),
        _index("by_holder", "_id.holder"),
        _index("by_end", "until_us"),
    ),
}


async def _make_indexes(database: AsyncDatabase[Document]) -> None:
    for name, indexes in INDEXES.items():
        if indexes:
            await database[name].create_indexes(list(indexes))


_STEPS: Final[tuple[Callable[[AsyncDatabase[Document]], Awaitable[None]], ...]] = (
    _make_indexes,
    _make_indexes,  # of blob_holds; those that are there already stay as they are
)


async def migrate(database: AsyncDatabase[Document], where: str) -> None:
    """
    Bring the database to the newest schema.

    Safe to run again, and from several masters at once. A master of an earlier Fleetest that still runs goes on
    meanwhile: a step adds, and takes away only what the version before it no longer used.

    Raises:
        WrongState: the server is too old; the database is from a newer Fleetest, or another application's. It has
            not been touched.
    """
    await _check_server(database, where)
    version = await _version_of(database, where)
    for step in _STEPS[version:]:
        await step(database)
    if version < len(_STEPS):
        await database[META].update_one(_MARK, {"$max": {"version": len(_STEPS)}})


async def _check_server(database: AsyncDatabase[Document], where: str) -> None:
    server = await database.command("buildInfo")
    if tuple(server["versionArray"][:2]) < OLDEST_SERVER:
        oldest = ".".join(map(str, OLDEST_SERVER))
        raise WrongState(
            f"the store {where} is MongoDB {server['version']}, which is too old",
            hint=f"Fleetest needs MongoDB {oldest} or newer",
        )


async def _version_of(database: AsyncDatabase[Document], where: str) -> int:
    """The steps that are done; the database is marked as ours when it was empty."""
    mark = await database[META].find_one(_MARK)
    if mark is None:
        foreign = [name for name in await database.list_collection_names() if not name.startswith("system.")]
        # Whoever marked it as theirs in between was another master.
        if foreign and await database[META].find_one(_MARK) is None:
            raise WrongState(
                f"the database {where} is another application's (it holds {', '.join(sorted(foreign)[:3])})",
                hint="give Fleetest a database of its own: FLEETEST_MONGODB_URL names it after the last slash",
            )
        await database[META].update_one(
            _MARK, {"$setOnInsert": {"application": _APPLICATION, "version": 0}}, upsert=True
        )
        return 0
    if mark["version"] > len(_STEPS):
        raise WrongState(
            f"the store {where} was written by a newer Fleetest (its schema is {mark['version']}, "
            f"this version knows up to {len(_STEPS)})",
            hint="upgrade Fleetest here, or give this version a database of its own",
        )
    return int(mark["version"])
