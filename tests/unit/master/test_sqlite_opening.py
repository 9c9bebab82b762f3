"""Opening a file: new, known, newer, somebody else's, broken, by several at once."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, FleetestError, WrongState
from fleetest.common.ids import new_run_id
from fleetest.master.store.ports import Commit
from fleetest.master.store.sqlite import SqliteStore
from fleetest.master.store.sqlite_database import switch_to_wal
from fleetest.master.store.sqlite_errors import explained
from fleetest.master.store.sqlite_schema import migrate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


def _commit(run_id: str, position: int, events: bytes = b"events") -> Commit:
    return Commit(run_id=run_id, position=position, at=datetime.now(UTC), events=events)


def _content(path: Path) -> bytes:
    return path.read_bytes()


def _overwrite(path: Path, content: bytes, *, from_end: int) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(-from_end, os.SEEK_END)
        file.write(content)


async def test_commits_are_synchronous_and_beside_readers(path: Path) -> None:
    def settings(connection: sqlite3.Connection) -> tuple[object, ...]:
        return tuple(
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "secure_delete")
        )

    async with await SqliteStore.open(path) as store:
        assert await store._database.read(settings) == ("wal", 2, 0)
        assert await store._database.write(settings) == ("wal", 2, 0)


async def test_closing_leaves_one_file(path: Path) -> None:
    async with await SqliteStore.open(path) as store:
        await store.append(_commit(new_run_id(), 1))

    assert [each.name for each in path.parent.iterdir()] == [path.name]


async def test_names_that_mean_something_to_the_engine_are_files_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    for name in (":memory:", "file:x?mode=memory"):
        async with await SqliteStore.open(Path(name)) as store:
            await store.append(_commit(new_run_id(), 1))

        assert (tmp_path / name).stat().st_size > 0


async def test_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    async with await SqliteStore.open(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = _content(path)

    with pytest.raises(WrongState, match=r"newer Fleetest.*99") as refused:
        await SqliteStore.open(path)

    assert "upgrade" in refused.value.hint
    assert _content(path) == before


async def test_database_of_another_application_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE precious (data)")
    before = _content(path)

    with pytest.raises(WrongState, match="another application"):
        await SqliteStore.open(path)

    assert _content(path) == before


@pytest.mark.parametrize(
    "content", [b"not a database, but rather a long text" * 200, b"SQLite format 3\0" + b"\xff" * 8000]
)
async def test_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    _overwrite(path, content, from_end=0)

    with pytest.raises(DependencyUnavailable, match="damaged, or no SQLite database") as refused:
        await SqliteStore.open(path)

    assert "backup" in refused.value.hint
    assert _content(path) == content


async def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DependencyUnavailable, match="cannot be opened") as refused:
        await SqliteStore.open(tmp_path / "missing" / "store.sqlite")

    assert str(tmp_path / "missing") in refused.value.hint


async def test_directory_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DependencyUnavailable, match="cannot be opened"):
        await SqliteStore.open(tmp_path)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory of nobody's, in which the test may read as nobody else does: root may write anywhere."""
    with tempfile.TemporaryDirectory(prefix="fleetest-test-") as directory:
        Path(directory).chmod(0o755)
        try:
            yield Path(directory)
        finally:
            os.seteuid(os.getuid())
            Path(directory).chmod(0o755)


def _become_nobody() -> None:
    if os.getuid() == 0:
        os.seteuid(65534)


async def test_file_that_may_only_be_read_is_called_so(unprivileged: Path) -> None:
    path = unprivileged / "store.sqlite"
    async with await SqliteStore.open(path):
        pass
    path.chmod(0o444)
    unprivileged.chmod(0o555)
    _become_nobody()

    with pytest.raises(DependencyUnavailable, match=r"cannot be (written|opened)") as refused:
        await SqliteStore.open(path)

    assert str(unprivileged) in refused.value.hint
    assert "write" in refused.value.hint


async def test_directory_that_may_only_be_read_is_called_so(unprivileged: Path) -> None:
    unprivileged.chmod(0o555)
    _become_nobody()

    with pytest.raises(DependencyUnavailable, match="cannot be opened") as refused:
        await SqliteStore.open(unprivileged / "store.sqlite")

    assert str(unprivileged) in refused.value.hint


async def test_overwritten_page_is_reported_by_whoever_reads_it(path: Path) -> None:
    run_id = new_run_id()
    async with await SqliteStore.open(path) as store:
        await store.append(_commit(run_id, 1, b"e" * 100_000))
    _overwrite(path, b"\xaa" * 60_000, from_end=60_000)

    async with await SqliteStore.open(path) as store:
        with pytest.raises(DependencyUnavailable, match="damaged"):
            await store.read(run_id)


async def test_another_process_that_keeps_the_lock_is_waited_for_only_so_long(path: Path) -> None:
    async with await SqliteStore.open(path, busy_timeout=timedelta(milliseconds=50)) as store:
        run_id = new_run_id()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answers = await asyncio.gather(
                *(store.append(_commit(new_run_id(), 1)) for _ in range(3)), return_exceptions=True
            )
            with pytest.raises(DependencyUnavailable, match="locked") as busy:
                await SqliteStore.open(path, busy_timeout=timedelta(milliseconds=50))
            other.execute("ROLLBACK")
        await store.append(_commit(run_id, 1))

        assert [type(answer) for answer in answers] == [DependencyUnavailable] * 3
        assert "try again" in busy.value.hint
        assert len(await store.read(run_id)) == 1


def _in_rollback_mode(path: Path) -> sqlite3.Connection:
    """A connection that does not wait, to a file as it is before its first switch to WAL."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    migrate(connection, path)
    return connection


def test_switch_to_wal_is_tried_again_while_somebody_reads_the_new_file(path: Path) -> None:
    with closing(_in_rollback_mode(path)) as reading, closing(_in_rollback_mode(path)) as switching:
        reading.execute("BEGIN")
        reading.execute("SELECT * FROM runs").fetchall()
        tries: list[str] = []

        def end_reading_at_the_third_try(statement: str) -> None:
            tries.append(statement)
            if len(tries) == 3:
                reading.execute("ROLLBACK")

        switching.set_trace_callback(end_reading_at_the_third_try)

        switch_to_wal(switching, timedelta(seconds=30))

        assert len(tries) == 3
        assert switching.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_switch_to_wal_gives_up_when_its_time_is_over(path: Path) -> None:
    with closing(_in_rollback_mode(path)) as reading, closing(_in_rollback_mode(path)) as switching:
        reading.execute("BEGIN")
        reading.execute("SELECT * FROM runs").fetchall()

        with pytest.raises(sqlite3.OperationalError, match="locked"):
            switch_to_wal(switching, timedelta(milliseconds=30))


def test_migrating_twice_changes_nothing(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, path)
        before = list(connection.iterdump())

        migrate(connection, path)

        assert list(connection.iterdump()) == before


def test_migration_that_fails_half_way_leaves_nothing_behind(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA max_page_count = 5")

        with pytest.raises(sqlite3.OperationalError, match="full"):
            migrate(connection, path)

        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        assert connection.execute("PRAGMA user_version").fetchone() == (0,)


_OPENS_AT_A_WORD = """
import asyncio, sys
from pathlib import Path
from datetime import UTC, datetime
from fleetest.master.store.ports import Commit, PositionTaken
from fleetest.master.store.sqlite import SqliteStore

async def main():
    path, run_id = Path(sys.argv[1]), sys.argv[2]
    print("ready", flush=True)
    sys.stdin.readline()
    async with await SqliteStore.open(path) as store:
        for position in range(1, 31):
            try:
                await store.append(Commit(run_id=run_id, position=position, at=datetime.now(UTC), events=b"e"))
                print(position, flush=True)
            except PositionTaken:
                pass

asyncio.run(main())
"""


async def test_processes_that_open_a_new_file_at_once_share_it(path: Path) -> None:
    run_id = new_run_id()
    pipe = asyncio.subprocess.PIPE
    async with AsyncExitStack() as stack:
        children = []
        for _ in range(4):
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _OPENS_AT_A_WORD, str(path), run_id, stdin=pipe, stdout=pipe, stderr=pipe
            )
            stack.push_async_callback(_end, child)
            children.append(child)
        for child in children:
            assert child.stdout
            assert await child.stdout.readline() == b"ready\n"

        outputs = await asyncio.gather(*(child.communicate(b"\n") for child in children))

    won = sorted(int(line) for output, _ in outputs for line in output.split())
    assert [child.returncode for child in children] == [0] * 4, outputs
    assert won == list(range(1, 31))
    async with await SqliteStore.open(path) as store:
        assert [commit.position for commit in await store.read(run_id)] == won


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.kill()
        await child.wait()


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        (sqlite3.SQLITE_FULL, CapacityExceeded),
        (sqlite3.SQLITE_IOERR_SHMSIZE, CapacityExceeded),
        (sqlite3.SQLITE_TOOBIG, CapacityExceeded),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, DependencyUnavailable),
        (sqlite3.SQLITE_LOCKED_SHAREDCACHE, DependencyUnavailable),
        (sqlite3.SQLITE_READONLY_DBMOVED, DependencyUnavailable),
        (sqlite3.SQLITE_IOERR_FSYNC, DependencyUnavailable),
        (sqlite3.SQLITE_CORRUPT_INDEX, DependencyUnavailable),
    ],
)
def test_extended_codes_mean_what_their_primary_code_means(code: int, meant: type[FleetestError]) -> None:
    error = sqlite3.OperationalError("engine's words")
    error.sqlite_errorcode = code

    mapped = explained(error, Path("/data/store.sqlite"))

    assert type(mapped) is meant
    assert "/data/store.sqlite" in str(mapped)
    assert "engine's words" in str(mapped)
    assert mapped.__cause__ is error
