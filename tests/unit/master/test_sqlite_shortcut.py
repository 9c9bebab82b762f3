"""What is written on the loop itself, and what is left to the writer's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fleetest.common.errors import DependencyUnavailable, WrongState
from fleetest.master.store.sqlite_shortcut import Shortcut, Taken


class Disk:
    """A clock that each commit moves on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.commit_seconds = 0.001

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "things.sqlite"
    with closing(_connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE things (name TEXT PRIMARY KEY)")
    return path


@pytest.fixture
def shortcut(path: Path, disk: Disk) -> Iterator[Shortcut]:
    shortcut = Shortcut(_connect(path), path, clock=disk)
    yield shortcut
    shortcut.close()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=0)


def _inserting(name: str, disk: Disk) -> Callable[[sqlite3.Connection], str]:
    def work(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO things VALUES (?)", (name,))
        disk.now += disk.commit_seconds
        return name

    return work


def _names(path: Path) -> list[str]:
    with closing(_connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM things ORDER BY rowid")]


def test_a_commit_is_there_when_it_is_answered(shortcut: Shortcut, disk: Disk, path: Path) -> None:
    taken = shortcut.take(_inserting("a", disk))

    assert taken == Taken(answer="a")
    assert _names(path) == ["a"]


def test_refused_work_leaves_nothing(shortcut: Shortcut, disk: Disk, path: Path) -> None:
    def refuse(connection: sqlite3.Connection) -> None:
        _inserting("half done", disk)(connection)
        raise WrongState("no")

    with pytest.raises(WrongState):
        shortcut.take(refuse)

    assert _names(path) == []
    assert shortcut.take(_inserting("a", disk)) is not None


def test_what_comes_close_behind_a_commit_is_left_to_those_that_share_one(shortcut: Shortcut, disk: Disk) -> None:
    disk.commit_seconds = 0.0029
    shortcut.take(_inserting("a", disk))

    at_once = shortcut.take(_inserting("b", disk))
    disk.now += 2.5 * disk.commit_seconds
    later = shortcut.take(_inserting("c", disk))

    assert (at_once, later) == (None, Taken(answer="c"))


def test_after_a_rest_a_few_quick_commits_may_follow_one_another(shortcut: Shortcut, disk: Disk) -> None:
    taken = [shortcut.take(_inserting(name, disk)) for name in "abcd"]

    assert taken == [Taken(answer="a"), Taken(answer="b"), Taken(answer="c"), None]


def test_what_is_derived_is_written_without_waiting_for_the_disk_and_the_next_is_not(
    shortcut: Shortcut, disk: Disk
) -> None:
    def synchronous(connection: sqlite3.Connection) -> int:
        disk.now += 0.01
        return int(connection.execute("PRAGMA synchronous").fetchone()[0])

    levels = []
    for derived in (True, False):
        disk.now += 1
        levels.append(shortcut.take(synchronous, derived=derived))

    normal, full = 1, 2
    assert levels == [Taken(answer=normal), Taken(answer=full)]


def test_a_slow_disk_is_waited_for_ever_less_often(shortcut: Shortcut, disk: Disk) -> None:
    disk.commit_seconds = 0.01
    for name in ("a", "b"):
        disk.now += 0.06
        assert shortcut.take(_inserting(name, disk)) is not None

    disk.now += 0.06
    soon = shortcut.take(_inserting("c", disk))
    disk.now += 0.06
    later = shortcut.take(_inserting("d", disk))

    assert (soon, later) == (None, Taken(answer="d"))


def test_nobody_is_waited_for_who_writes(shortcut: Shortcut, disk: Disk, path: Path) -> None:
    with closing(_connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")

        assert shortcut.take(_inserting("a", disk)) is None


def test_what_fails_is_left_undone_for_whoever_explains_it(shortcut: Shortcut, disk: Disk, path: Path) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        _inserting("half done", disk)(connection)
        connection.execute("INSERT INTO nothing VALUES (1)")

    assert shortcut.take(fail) is None
    assert _names(path) == []


def test_after_the_close_nothing_is_taken_and_reading_says_why(shortcut: Shortcut, disk: Disk) -> None:
    shortcut.close()

    assert shortcut.take(_inserting("a", disk)) is None
    with pytest.raises(DependencyUnavailable, match="closed"):
        shortcut.read(lambda connection: connection.execute("SELECT 1").fetchone())
