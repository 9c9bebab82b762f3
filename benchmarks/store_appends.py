"""
How much the SQLite store takes in: commits of runs' logs, and rows of cases.

    python benchmarks/store_appends.py [DIRECTORY]

The directory should be on the disk that the store is to live on; without one a temporary directory is used.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fleetest.common.ids import new_run_id
from fleetest.common.states import Outcome
from fleetest.master.store.ports import CaseRow, Commit
from fleetest.master.store.sqlite import SqliteStore

_SECONDS: Final = 3.0
_EVENTS: Final = b"e" * 512
_BODY: Final = {"duration_us": 1234, "worker_id": "worker-1", "message": "", "file": "tests/test_it.py", "line": 7}


async def main(directory: Path) -> None:
    """Print one line for each way to write."""
    await _append(directory, writers=1)
    await _append(directory, writers=100)
    await _append(directory, writers=1000)
    await _save_cases(directory, rows_per_batch=100, writers=1)
    await _save_cases(directory, rows_per_batch=100, writers=10)
    await _save_cases(directory, rows_per_batch=1000, writers=1)


async def _append(directory: Path, *, writers: int) -> None:
    """Each writer appends to a run of its own, one commit after the other."""
    async with _empty_store(directory) as store:

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


async def _save_cases(directory: Path, *, rows_per_batch: int, writers: int) -> None:
    async with _empty_store(directory) as store:

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
async def _empty_store(directory: Path) -> AsyncIterator[SqliteStore]:
    with tempfile.TemporaryDirectory(dir=directory) as inner:
        async with await SqliteStore.open(Path(inner) / "store.sqlite") as store:
            yield store


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else temporary)))
