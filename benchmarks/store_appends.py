"""
How much each store takes in: commits of runs' logs, and rows of cases.

    python benchmarks/store_appends.py [DIRECTORY]

The directory, for SQLite, should be on the disk that the store is to live on; without one a temporary directory is
used. MongoDB is measured on the engine that the tests have, when `make test` has installed it. That one acknowledges
before its journal is on the disk, and passes every message through Node: a server of yours will differ.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pymongo import AsyncMongoClient

from fleetest.common.ids import new_run_id
from fleetest.common.settings import Secret
from fleetest.common.states import Outcome
from fleetest.master.store.mongo import MongoStore
from fleetest.master.store.ports import CaseRow, Commit, Store
from fleetest.master.store.sqlite import SqliteStore

sys.path.append(str(Path(__file__).parents[1]))
from tests.support.mongodb_engine import MongodbEngine, engine_absent

_SECONDS: Final = 3.0
_EVENTS: Final = b"e" * 512
_EmptyStore = Callable[[], AbstractAsyncContextManager[Store]]

_BODY: Final = {"duration_us": 1234, "worker_id": "worker-1", "message": "", "file": "tests/test_it.py", "line": 7}


async def main(directory: Path) -> None:
    """Print one line for each way to write to each store."""
    print("SQLite")
    await _measure_all(lambda: _empty_sqlite(directory))
    if absent := engine_absent():
        print(f"MongoDB is not measured: it {absent}")
    else:
        with MongodbEngine() as engine:
            print("MongoDB, on the engine of the tests")
            await _measure_all(lambda: _empty_mongodb(engine.url()))


async def _measure_all(empty_store: _EmptyStore) -> None:
    await _append(empty_store, writers=1)
    await _append(empty_store, writers=100)
    await _append(empty_store, writers=1000)
    await _save_cases(empty_store, rows_per_batch=100, writers=1)
    await _save_cases(empty_store, rows_per_batch=100, writers=10)
    await _save_cases(empty_store, rows_per_batch=1000, writers=1)


async def _append(empty_store: _EmptyStore, *, writers: int) -> None:
    """Each writer appends to a run of its own, one commit after the other."""
    async with empty_store() as store:

        def writer() -> Callable[[], Awaitable[int]]:
            run_id = new_run_id()
            position = 0

            async def append() -> int:
                nonlocal position
                position += 1
                await store.append(Commit(run_id=run_id, position=position, at=datetime.now(UTC), events=_EVENTS))
                return 1

            return append

        per_second, milliseconds = await _measure([writer() for _ in range(writers)])
    print(f"append      {writers:5} at a time              {per_second:9,.0f} commits/s  {milliseconds:7.2f} ms each")


async def _save_cases(empty_store: _EmptyStore, *, rows_per_batch: int, writers: int) -> None:
    async with empty_store() as store:

        def writer() -> Callable[[], Awaitable[int]]:
            run_id = new_run_id()
            first = 0

            async def save() -> int:
                nonlocal first
                await store.save_cases([_case(run_id, index) for index in range(first, first + rows_per_batch)])
                first += rows_per_batch
                return rows_per_batch

            return save

        per_second, milliseconds = await _measure([writer() for _ in range(writers)])
    print(
        f"save_cases  {writers:5} at a time of {rows_per_batch:4} rows "
        f"{per_second:9,.0f} rows/s     {milliseconds:7.2f} ms each"
    )


def _case(run_id: str, index: int) -> CaseRow:
    return CaseRow(
        run_id=run_id,
        task_id="unit",
        case_id=f"tests/unit/test_module_{index // 50}.py::test_does_what_it_says[{index}]",
        index=index,
        outcome=Outcome.PASSED,
        flaky=False,
        position=index + 1,
        body=_BODY,
    )


async def _measure(writers: list[Callable[[], Awaitable[int]]]) -> tuple[float, float]:
    """Things per second of all writers together, and the mean time of one call."""
    begin = time.perf_counter()
    deadline = begin + _SECONDS

    async def repeat(write: Callable[[], Awaitable[int]]) -> tuple[int, int]:
        things = calls = 0
        while time.perf_counter() < deadline:
            things += await write()
            calls += 1
        return things, calls

    counts = await asyncio.gather(*(repeat(write) for write in writers))
    elapsed = time.perf_counter() - begin
    things, calls = (sum(column) for column in zip(*counts, strict=True))
    return things / elapsed, elapsed / calls * len(writers) * 1000


@asynccontextmanager
async def _empty_sqlite(directory: Path) -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory(dir=directory) as inner:
        async with await SqliteStore.open(Path(inner) / "store.sqlite") as store:
            yield store


@asynccontextmanager
async def _empty_mongodb(url: Secret) -> AsyncIterator[Store]:
    try:
        async with await MongoStore.open(url) as store:
            yield store
    finally:
        async with AsyncMongoClient[dict[str, object]](url.reveal()) as client:
            await client.drop_database(client.get_default_database().name)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else temporary)))
