"""Group commit, and what becomes of work beside work that fails."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from fleetest.common.errors import DependencyUnavailable, InvalidRequest, WrongState
from fleetest.master.store.sqlite_database import Database
from fleetest.master.store.sqlite_writer import Writer

Work = Callable[[sqlite3.Connection], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "things.sqlite"


@pytest.fixture
def connection(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE things (name TEXT PRIMARY KEY)")
    return connection


@pytest.fixture
async def writer(connection: sqlite3.Connection, path: Path) -> AsyncIterator[Writer]:
    writer = Writer(connection, path)
    yield writer
    await writer.close()


def _insert(name: str) -> Work:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things VALUES (?)", (name,))

    return work


def _names(path: Path) -> list[str]:
    reading = sqlite3.connect(path)
    try:
        return [name for (name,) in reading.execute("SELECT name FROM things ORDER BY rowid")]
    finally:
        reading.close()


class HeldWriter:
    """Keeps the writer busy with a first piece of work, so that what comes next becomes one group."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._begun = threading.Event()
        self._go_on = threading.Event()

    async def __aenter__(self) -> None:
        self._first = asyncio.create_task(self._writer.run(self._hold))
        await asyncio.to_thread(self._begun.wait)

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(0)  # tasks that were made meanwhile hand in their work
        self._go_on.set()
        await self._first

    def _hold(self, connection: sqlite3.Connection) -> None:
        _insert("first")(connection)
        self._begun.set()
        self._go_on.wait()


async def test_all_that_waits_shares_one_transaction(
    writer: Writer, connection: sqlite3.Connection, path: Path
) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)

    async with HeldWriter(writer):
        group = [asyncio.create_task(writer.run(_insert(str(number)))) for number in range(200)]
    await asyncio.gather(*group)

    assert statements.count("COMMIT") == 2  # the first, and all the others
    assert _names(path) == ["first", *map(str, range(200))]


async def test_refused_work_leaves_its_group_in_one_transaction(
    writer: Writer, connection: sqlite3.Connection, path: Path
) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)

    def refuse(_: sqlite3.Connection) -> None:
        raise WrongState("no")

    async with HeldWriter(writer):
        group = [asyncio.create_task(writer.run(work)) for work in (_insert("a"), refuse, _insert("b"))]
    answers = await asyncio.gather(*group, return_exceptions=True)

    assert [str(answer) for answer in answers] == ["None", "no", "None"]
    assert statements.count("COMMIT") == 2
    assert _names(path) == ["first", "a", "b"]


async def test_only_the_work_that_fails_is_undone(writer: Writer, path: Path) -> None:
    def write_and_fail(connection: sqlite3.Connection) -> None:
        _insert("half done")(connection)
        raise ZeroDivisionError

    async with HeldWriter(writer):
        group = [asyncio.create_task(writer.run(work)) for work in (_insert("a"), write_and_fail, _insert("b"))]
    answers = await asyncio.gather(*group, return_exceptions=True)

    assert [type(answer) for answer in answers] == [type(None), ZeroDivisionError, type(None)]
    assert _names(path) == ["first", "a", "b"]


async def test_work_that_would_repeat_a_key_is_undone_alone(writer: Writer, path: Path) -> None:
    async with HeldWriter(writer):
        group = [asyncio.create_task(writer.run(_insert(name))) for name in ("a", "first", "b")]
    answers = await asyncio.gather(*group, return_exceptions=True)

    assert [type(answer) for answer in answers] == [type(None), sqlite3.IntegrityError, type(None)]
    assert _names(path) == ["first", "a", "b"]


async def test_a_single_statement_needs_no_transaction_around_it(
    writer: Writer, connection: sqlite3.Connection, path: Path
) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)

    await writer.run_statement(_insert("alone"))
    with pytest.raises(sqlite3.IntegrityError):
        await writer.run_statement(_insert("alone"))

    assert not {"BEGIN IMMEDIATE", "COMMIT"}.intersection(statements)
    assert _names(path) == ["alone"]


async def test_single_statements_that_wait_share_a_transaction(
    writer: Writer, connection: sqlite3.Connection, path: Path
) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)

    async with HeldWriter(writer):
        group = [asyncio.create_task(writer.run_statement(_insert(str(number)))) for number in range(20)]
    await asyncio.gather(*group)

    assert statements.count("COMMIT") == 2
    assert _names(path) == ["first", *map(str, range(20))]


@pytest.mark.parametrize("value", [1 << 63, "\ud800"])
async def test_value_that_no_column_can_hold_is_the_callers_mistake(writer: Writer, value: object) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things VALUES (?)", (value,))

    with pytest.raises(InvalidRequest, match="not a value"):
        await writer.run(work)


async def test_caller_that_gives_up_neither_undoes_its_work_nor_harms_the_next(writer: Writer, path: Path) -> None:
    async with HeldWriter(writer):
        impatient = asyncio.create_task(writer.run(_insert("given up")))
        await asyncio.sleep(0)
        impatient.cancel()
    await writer.run(_insert("next"))

    assert impatient.cancelled()
    assert _names(path) == ["first", "given up", "next"]


async def test_group_has_a_largest_size(writer: Writer, connection: sqlite3.Connection, path: Path) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)

    async with HeldWriter(writer):
        group = [asyncio.create_task(writer.run(_insert(str(number)))) for number in range(1500)]
    await asyncio.gather(*group)

    assert statements.count("COMMIT") == 3
    assert len(_names(path)) == 1501


async def test_closing_writes_what_waits_and_refuses_what_comes_later(writer: Writer, path: Path) -> None:
    async with HeldWriter(writer):
        waiting = asyncio.create_task(writer.run(_insert("waiting")))
        await asyncio.sleep(0)
        closing = asyncio.create_task(writer.close())
    await asyncio.gather(waiting, closing)

    with pytest.raises(DependencyUnavailable, match="closed"):
        await writer.run(_insert("late"))

    assert _names(path) == ["first", "waiting"]


def test_writer_outlives_a_loop_that_was_closed_too_early(connection: sqlite3.Connection, path: Path) -> None:
    release = threading.Event()
    began = threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        began.set()
        release.wait()
        _insert("slow")(connection)

    async def leave_early() -> Writer:
        writer = Writer(connection, path)
        asyncio.get_running_loop().create_task(writer.run(slow))
        await asyncio.to_thread(began.wait)
        return writer

    writer = asyncio.run(leave_early())
    release.set()
    asyncio.run(writer.close())

    assert _names(path) == ["slow"]


async def test_reading_does_not_wait_for_a_write_that_is_under_way(path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def write(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO documents VALUES ('kind', 'key', 'value')")
        begun.set()
        go_on.wait()

    def count(connection: sqlite3.Connection) -> int:
        (number,) = connection.execute("SELECT count(*) FROM documents").fetchone()
        return int(number)

    database = await Database.open(path, busy_timeout=timedelta(seconds=1))
    try:
        writing = asyncio.create_task(database.write(write))
        await asyncio.to_thread(begun.wait)
        async with asyncio.timeout(5):
            while_writing = await database.read(count)
        go_on.set()
        await writing
        afterwards = await database.read(count)
    finally:
        go_on.set()
        await database.close()

    assert (while_writing, afterwards) == (0, 1)


def _synchronous(connection: sqlite3.Connection) -> int:
    [(level,)] = connection.execute("PRAGMA synchronous")
    return int(level)


async def test_only_what_is_derived_alone_does_not_wait_for_the_disk(writer: Writer) -> None:
    normal, full = 1, 2  # as SQLite numbers them

    before = await writer.run(_synchronous)
    alone = await writer.run_derived(_synchronous)
    async with HeldWriter(writer):
        group = [asyncio.create_task(run(_synchronous)) for run in (writer.run_derived, writer.run)]
    together = await asyncio.gather(*group)
    afterwards = [await writer.run_derived(_synchronous), await writer.run_statement(_synchronous)]

    assert (before, alone, together, afterwards) == (full, normal, [full, full], [normal, full])


async def test_the_log_is_folded_by_derived_work_unless_it_is_very_long(writer: Writer) -> None:
    def pages(connection: sqlite3.Connection) -> int:
        [(limit,)] = connection.execute("PRAGMA wal_autocheckpoint")
        return int(limit)

    assert [await writer.run(pages), await writer.run_derived(pages)] == [8000, 1000]


async def test_derived_work_lets_everything_else_pass(writer: Writer) -> None:
    derived = asyncio.create_task(writer.run_derived(_insert("derived")))
    await asyncio.sleep(0)
    assert writer.idle

    async with HeldWriter(writer):
        assert not writer.idle
    await derived
    assert writer.idle


async def test_the_log_is_folded_while_others_write(writer: Writer, path: Path) -> None:
    await writer.run(_insert("whoever looks for it"))
    before = path.read_bytes()
    other = sqlite3.connect(path, isolation_level=None)

    other.execute("BEGIN IMMEDIATE")
    await writer.fold()
    other.close()

    assert b"whoever looks for it" not in before
    assert b"whoever looks for it" in path.read_bytes()


async def test_what_is_derived_at_once_is_folded_in_time(path: Path) -> None:
    def derive(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO checks (one, count) VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET count = count + 1"
        )

    database = await Database.open(path, busy_timeout=timedelta(seconds=1))
    try:
        before = path.read_bytes()
        for _ in range(1000):
            await database.write_derived(derive, small=True)
        assert path.read_bytes() != before
    finally:
        await database.close()
