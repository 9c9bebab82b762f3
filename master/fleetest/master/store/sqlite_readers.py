"""A few threads that read, each with a connection of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from fleetest.master.store.sqlite_errors import closed, explained

__all__ = ["Readers"]

_Result = TypeVar("_Result")


class Readers:
    """
    Runs reading work beside the writer; neither waits for the other (WAL mode).

    A statement sees one snapshot, which holds everything that was committed before it began.
    """

    def __init__(self, connections: Sequence[sqlite3.Connection], path: Path) -> None:
        self._connections = connections
        self._path = path
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        for connection in connections:
            self._idle.put(connection)
        self._threads = ThreadPoolExecutor(len(connections), thread_name_prefix="fleetest-store-reader")
        self._closing = False

    async def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """
        Answer what `work` answers.

        Raises:
            DependencyUnavailable: the store cannot be read.
        """
        if self._closing:
            raise closed(self._path)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, work)

    async def close(self) -> None:
        """Finish what was begun, then close the connections. Idempotent."""
        self._closing = True
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._connections:
            connection.close()

    def _call(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        connection = self._idle.get()  # there are as many as threads
        try:
            return work(connection)
        except Exception as error:
            raise explained(error, self._path) from error
        finally:
            self._idle.put(connection)
