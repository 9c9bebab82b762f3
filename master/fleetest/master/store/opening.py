"""Which store a master has: a database that several share, or a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fleetest.common.settings import Secret
from fleetest.master.store.ports import Store
from fleetest.master.store.sqlite import SqliteStore

__all__ = ["open_store"]

_FILE: Final = "fleetest.sqlite"


async def open_store(mongodb_url: Secret, directory: Path | None) -> Store:
    """
    Open the store, its schema brought up to date; the caller closes it.

    Args:
        mongodb_url: where several masters keep what they share; empty means a SQLite file.
        directory: where that file is; must exist then.

    Raises:
        FleetestError: with what to do about it.
    """
    if mongodb_url:
        from fleetest.master.store.mongo import MongoStore  # takes memory that a master on a file need not have

        return await MongoStore.open(mongodb_url)
    assert directory is not None  # the settings were checked
    return await SqliteStore.open(directory / _FILE)
