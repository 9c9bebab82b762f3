"""What was acknowledged stays; what was not leaves no half of itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, FleetestError
from fleetest.common.ids import new_run_id
from fleetest.common.states import Outcome
from fleetest.master.store.ports import CaseRow, Commit
from fleetest.master.store.sqlite import SqliteStore

_APPENDS_FOR_EVER = """
import asyncio, sys
from pathlib import Path
from datetime import UTC, datetime
from fleetest.common.ids import new_run_id
from fleetest.master.store.ports import Commit
from fleetest.master.store.sqlite import SqliteStore

async def append_for_ever(store):
    run_id, position = new_run_id(), 0
    while True:
        position += 1
        await store.append(Commit(run_id=run_id, position=position, at=datetime.now(UTC), events=b"e" * 200))
        sys.stdout.write(f"{run_id} {position}\\n")
        sys.stdout.flush()

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    await asyncio.gather(*(append_for_ever(store) for _ in range(8)))

asyncio.run(main())
"""


def _commit(run_id: str, position: int, events: bytes = b"events") -> Commit:
    return Commit(run_id=run_id, position=position, at=datetime.now(UTC), events=events)


async def test_whatever_was_acknowledged_outlives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _APPENDS_FOR_EVER, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout
    try:
        head = [await child.stdout.readline() for _ in range(400)]
    finally:
        child.kill()
        tail = await child.stdout.read()
        await child.wait()

    acknowledged: Counter[str] = Counter()
    for line in (b"".join(head) + tail[: tail.rfind(b"\n") + 1]).decode().splitlines():
        run_id, _, number = line.partition(" ")
        acknowledged[run_id] = int(number)
    assert len(acknowledged) == 8
    async with await SqliteStore.open(path) as store:
        for run_id, position in acknowledged.items():
            positions = [commit.position for commit in await store.read(run_id, limit=100_000)]
            assert positions == list(range(1, len(positions) + 1))
            assert len(positions) >= position
            await store.append(_commit(run_id, len(positions) + 1))


async def test_file_that_may_not_grow_refuses_what_is_too_much_and_takes_what_fits(tmp_path: Path) -> None:
    run_id = new_run_id()
    cases = [
        CaseRow(
            run_id=run_id, task_id="unit", case_id=f"t{index}", index=index, outcome=Outcome.PASSED, flaky=False,
            position=1, body={"message": "m" * 200},
        )
        for index in range(5000)
    ]  # fmt: skip

    def limit(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 20}")

    async with await SqliteStore.open(tmp_path / "store.sqlite") as store:
        await store._database.write(limit)
        small = [new_run_id() for _ in range(3)]

        answers = await asyncio.gather(
            store.append(_commit(small[0], 1)),
            store.save_cases(cases),
            store.append(_commit(small[1], 1)),
            store.append(_commit(run_id, 1, b"e" * 1_000_000)),
            store.append(_commit(small[2], 1)),
            return_exceptions=True,
        )

        assert [type(answer) for answer in answers] == [
            type(None),
            CapacityExceeded,
            type(None),
            CapacityExceeded,
            type(None),
        ]
        assert not await store.list_cases(run_id)
        assert not await store.read(run_id)
        assert [len(await store.read(each)) for each in small] == [1, 1, 1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("mounting a small disk takes root on Linux")
    try:
        _run("mount", "-t", "tmpfs", "-o", "size=2m", "none", str(directory))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine does not let a test mount a disk: {error.stderr.strip()}")
    try:
        yield directory
    finally:
        _run("umount", "--lazy", str(directory))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)


async def _append_until_refused(store: SqliteStore, run_id: str) -> tuple[int, FleetestError]:
    """The last position that was acknowledged, and why there are no more."""
    for position in range(1000):
        try:
            await store.append(_commit(run_id, position + 1, b"e" * 5000))
        except FleetestError as refusal:
            return position, refusal
    raise AssertionError("a small disk took 5 MB")


async def _check_often(store: SqliteStore) -> None:
    for _ in range(1000):
        await store.check()


async def test_full_disk_loses_nothing_and_says_what_to_do(small_disk: Path) -> None:
    run_id = new_run_id()
    async with await SqliteStore.open(small_disk / "store.sqlite") as store:
        position, refusal = await _append_until_refused(store, run_id)

        assert isinstance(refusal, CapacityExceeded)
        assert "no room left" in refusal.message
        assert "free some space" in refusal.hint
        assert position > 50
        assert len(await store.read(run_id)) == position
        with pytest.raises(DependencyUnavailable, match="no room left"):
            await _check_often(store)  # until the last free page is gone

    larger_disk = shutil.copytree(small_disk, small_disk.parent / "larger")
    async with await SqliteStore.open(larger_disk / "store.sqlite") as store:
        assert len(await store.read(run_id)) == position
        await store.append(_commit(run_id, position + 1))


async def test_store_goes_on_once_the_disk_has_room_again(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"b" * 1_000_000)
    run_id = new_run_id()
    async with await SqliteStore.open(small_disk / "store.sqlite") as store:
        position, refusal = await _append_until_refused(store, run_id)
        assert isinstance(refusal, CapacityExceeded)
        ballast.unlink()

        await store.append(_commit(run_id, position + 1))
        await store.check()

        assert len(await store.read(run_id)) == position + 1


async def test_disk_without_room_for_a_store_refuses_to_open_one(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "ballast").write_bytes(b"b" * (4 << 20))

    with pytest.raises(CapacityExceeded, match="no room left"):
        await SqliteStore.open(small_disk / "store.sqlite")


async def test_read_only_disk_is_called_so(small_disk: Path) -> None:
    path = small_disk / "store.sqlite"
    async with await SqliteStore.open(path):
        pass
    _run("mount", "-o", "remount,ro", str(small_disk))

    with pytest.raises(DependencyUnavailable, match="cannot be") as refused:
        await SqliteStore.open(path)

    assert "write" in refused.value.hint


async def test_dropped_partition_makes_room_for_new_commits_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    old = "01000000-0000-7000-8000-000000000000"
    async with await SqliteStore.open(path) as store:
        for position in range(1, 101):
            await store.append(_commit(old, position, b"e" * 10_000))
    size = path.stat().st_size

    async with await SqliteStore.open(path) as store:
        assert len(await store.drop_before(date(2100, 1, 1))) == 1
    async with await SqliteStore.open(path) as store:
        run_id = "05000000-0000-7000-8000-000000000000"
        for position in range(1, 91):
            await store.append(_commit(run_id, position, b"e" * 10_000))

    assert path.stat().st_size <= size
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
