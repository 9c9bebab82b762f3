"""What may be used of earlier results, and what may not: on a real SQLite and layers of real bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleetest.common.clock import ManualClock
from fleetest.common.tasks import CachePolicy, Task
from fleetest.master.cache.entries import CachedCase, Cases, decode_entry, encode_entry, entry_key, scope_of
from fleetest.master.cache.file_layer import FileLayer
from fleetest.master.cache.invalidations import Invalidation, InvalidationBook
from fleetest.master.cache.layers import CacheStrategy
from fleetest.master.cache.memory_layer import MemoryLayer
from fleetest.master.cache.result_cache import ResultCache
from fleetest.master.store.sqlite import SqliteStore
from tests.tools.core import unwritable
from tests.tools.story import pytest_task

DAY = timedelta(days=1)
STRATEGY = CacheStrategy(ttl=10 * DAY, max_bytes=1 << 20)
TASK = pytest_task(cache=CachePolicy())
KEY = entry_key("p", TASK, "test_a.py", "f" * 64)
OTHER = entry_key("p", TASK, "test_b.py", "f" * 64)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 3, 12, 0, tzinfo=UTC))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with await SqliteStore.open(tmp_path / "store.sqlite", busy_timeout=timedelta(milliseconds=50)) as opened:
        yield opened


@pytest.fixture
def layer(clock: ManualClock) -> MemoryLayer:
    return MemoryLayer(STRATEGY, clock)


@pytest.fixture
def cache(layer: MemoryLayer, store: SqliteStore, clock: ManualClock) -> ResultCache:
    return ResultCache(layer, store, clock, usable_for=5 * DAY)


def passed(clock: ManualClock, *case_ids: str, run_id: str = "r1") -> Cases:
    return {each: CachedCase(run_id=run_id, at=clock.now(), whole=b"\x00\xff") for each in case_ids}


async def test_cases_of_a_file_gather_under_its_key(cache: ResultCache, clock: ManualClock) -> None:
    first, second = passed(clock, "one", "two"), passed(clock, "two", "three", run_id="r2")
    await cache.keep("p", {KEY: first}, {})
    await cache.keep("p", {KEY: second, OTHER: first}, {})

    found = await cache.look_up("p", [KEY, OTHER, KEY + "0"])

    assert found == {KEY: {"one": first["one"], "two": second["two"], "three": second["three"]}, OTHER: first}


@pytest.mark.parametrize("damage", [b"", b"garbage", b"longer garbage than any head could ever be, by far"])
async def test_broken_entry_is_no_hit_and_goes_away(
    cache: ResultCache, layer: MemoryLayer, clock: ManualClock, damage: bytes
) -> None:
    await layer.put({KEY: damage})

    found = await cache.look_up("p", [KEY])

    assert found == {}
    assert await layer.get([KEY]) == {}


@pytest.mark.parametrize("position", [0, 20, -1])
def test_entry_with_a_flipped_bit_is_found_out(clock: ManualClock, position: int) -> None:
    value = bytearray(encode_entry(KEY, passed(clock, "one")))
    value[position] ^= 1

    with pytest.raises(ValueError, match="broken"):
        decode_entry(KEY, bytes(value))


def test_entry_under_another_key_is_found_out(clock: ManualClock) -> None:
    with pytest.raises(ValueError, match="the entry of"):
        decode_entry(OTHER, encode_entry(KEY, passed(clock, "one")))


async def test_truncated_file_is_no_hit(store: SqliteStore, clock: ManualClock, tmp_path: Path) -> None:
    cache = ResultCache(FileLayer(tmp_path, STRATEGY, clock), store, clock, usable_for=DAY)
    await cache.keep("p", {KEY: passed(clock, "one")}, {})
    path = tmp_path / KEY
    path.write_bytes(path.read_bytes()[:-3])

    assert await cache.look_up("p", [KEY]) == {}
    assert not path.exists()


async def test_result_is_used_for_its_time_only_however_often_its_entry_was_put(
    cache: ResultCache, clock: ManualClock
) -> None:
    await cache.keep("p", {KEY: passed(clock, "old")}, {})
    clock.advance(4 * DAY)
    await cache.keep("p", {KEY: passed(clock, "new")}, {})
    clock.advance(DAY)

    assert (await cache.look_up("p", [KEY]))[KEY].keys() == {"new"}


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        ({}, set()),
        ({"task": "unit"}, set()),
        ({"task": "unit", "file": "test_a.py"}, {OTHER}),
        ({"task": "other"}, {KEY, OTHER}),
    ],
)
async def test_invalidated_results_do_not_count_even_where_they_are_still_kept(
    cache: ResultCache, layer: MemoryLayer, clock: ManualClock, scope: Mapping[str, str], left: set[str]
) -> None:
    both = {KEY: passed(clock, "one"), OTHER: passed(clock, "one")}
    await cache.keep("p", both, {})
    told: list[str] = []
    cache.on_invalidated(told.append)

    await cache.invalidate("p", **scope)
    dropped = await layer.get([KEY, OTHER])
    await layer.put({key: encode_entry(key, cases) for key, cases in both.items()})  # as a master that did not hear

    assert dropped.keys() == left
    assert (await cache.look_up("p", [KEY, OTHER])).keys() == left
    assert told == [scope_of("p", scope.get("task", ""), scope.get("file", ""))]


async def test_results_after_an_invalidation_count_again(cache: ResultCache, clock: ManualClock) -> None:
    await cache.invalidate("p")
    clock.advance(timedelta(seconds=1))

    await cache.keep("p", {KEY: passed(clock, "one")}, {})

    assert KEY in await cache.look_up("p", [KEY])


async def test_key_that_stood_for_different_results_is_not_used_again(cache: ResultCache, clock: ManualClock) -> None:
    await cache.keep("p", {KEY: passed(clock, "one"), OTHER: passed(clock, "one")}, {})
    await cache.keep("p", {}, {KEY: ["one"], OTHER: ["two"]})
    clock.advance(timedelta(seconds=1))

    await cache.keep("p", {KEY: passed(clock, "one", "two")}, {})
    banned = await cache.look_up("p", [KEY, OTHER])
    await cache.invalidate("p", task="unit")
    clock.advance(timedelta(seconds=1))
    await cache.keep("p", {KEY: passed(clock, "one")}, {})

    assert banned.keys() == {OTHER}
    assert (await cache.look_up("p", [KEY])).keys() == {KEY}


async def test_without_the_store_nothing_is_a_hit_and_nothing_is_invalidated(
    cache: ResultCache, store: SqliteStore, clock: ManualClock, tmp_path: Path
) -> None:
    await cache.keep("p", {KEY: passed(clock, "one")}, {})

    with unwritable(tmp_path / "store.sqlite"), pytest.raises(Exception, match="store"):
        await cache.invalidate("p")

    assert KEY in await cache.look_up("p", [KEY])


async def test_invalidations_are_forgotten_when_they_cannot_matter_any_more(
    store: SqliteStore, clock: ManualClock
) -> None:
    book = InvalidationBook(store, matter_for=DAY)
    await book.add("p", Invalidation(scope="a1", at=clock.now(), for_good=True))
    clock.advance(DAY)
    await book.add("p", Invalidation(scope="a1/b2", at=clock.now()))

    text = await store.get_document("cache_invalidations", "p")

    assert text is not None
    assert "for_good" not in text
    assert not (await book.of("p")).ban("a1/b1")


async def test_very_many_bans_become_one_invalidation_of_the_project(store: SqliteStore, clock: ManualClock) -> None:
    book = InvalidationBook(store, matter_for=DAY)
    for number in range(501):
        await book.add("p", Invalidation(scope=f"a1/{number:x}", at=clock.now(), for_good=True))

    invalid = await book.of("p")

    assert not invalid.allow("a1/ffff", clock.now())
    assert invalid.allow("a1/0", clock.now() + timedelta(seconds=1))


def keys(*tasks: Task) -> Sequence[str]:
    return [entry_key("p", task, "test_a.py", "f") for task in tasks]


@pytest.mark.parametrize(
    "change",
    [
        {"args": ("-W", "error")},
        {"env": {"A": "1"}},
        {"image": "python:3.12"},
        {"setup_digest": "0"},
        {"python": "python3.12"},
        {"executor": "docker"},
        {"working_directory": "sub"},
        {"requirements": {"os": "linux"}},
        {"cache": CachePolicy(inputs=("data/*",), inputs_digest="0")},
        {"cache": CachePolicy(inputs=("data/*",), inputs_digest="1")},
        {"name": "other"},
    ],
    ids=str,
)
def test_key_changes_with_whatever_results_may_depend_on(change: dict[str, object]) -> None:
    [before, after] = keys(TASK, replace(TASK, **change))  # type: ignore[arg-type]

    assert before != after


def test_key_stays_with_what_results_do_not_depend_on() -> None:
    task = replace(TASK, priority=7, shards=4, retries=2, cache=CachePolicy(sample=1.0))

    assert len(set(keys(TASK, task))) == 1
