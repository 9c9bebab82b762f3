"""What every layer of the result cache keeps, forgets, and never does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from fleetest.common.clock import ManualClock
from fleetest.common.errors import DependencyUnavailable
from fleetest.master.cache.chain import LayerChain
from fleetest.master.cache.file_layer import FileLayer
from fleetest.master.cache.layers import CacheLayer, CacheStrategy, Eviction
from fleetest.master.cache.memory_layer import MemoryLayer
from fleetest.master.cache.redis_layer import RedisLayer
from fleetest.master.queue.connection import connect

HOUR = timedelta(hours=1)
KIB = bytes(1024)

Open = Callable[..., CacheLayer]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 3, 12, 0, tzinfo=UTC))


@pytest.fixture(params=["memory", "redis", "file", "chain"])
def opened(request, clock, redis, tmp_path) -> Open:
    """Opens a layer with a strategy; the ones that outlive a process answer what the one before had."""

    def layer(ttl: timedelta = HOUR, max_bytes: int = 1 << 20, eviction: Eviction = Eviction.LRU) -> CacheLayer:
        strategy = CacheStrategy(ttl=ttl, max_bytes=max_bytes, eviction=eviction)
        kinds: dict[str, Callable[[], CacheLayer]] = {
            "memory": lambda: MemoryLayer(strategy, clock),
            "redis": lambda: RedisLayer(redis, strategy, clock),
            "file": lambda: FileLayer(tmp_path / "cache", strategy, clock),
        }
        if request.param == "chain":
            return LayerChain([kinds[name]() for name in ("memory", "redis", "file")])
        return kinds[request.param]()

    return layer


async def test_values_are_answered_until_they_are_dropped(opened: Open) -> None:
    layer = opened()
    await layer.put({"a1/b1/c1": b"one", "a1/b1/c2": b"\x00\xff", "a1/b2/c1": b"", "a1/b11/c1": b"four"})
    await layer.put({"a1/b1/c1": b"another"})

    everything = await layer.get(["a1/b1/c1", "a1/b1/c2", "a1/b2/c1", "a1/b11/c1", "a1/b1", "ff"])
    await layer.drop("a1/b1")
    left = await layer.get(["a1/b1/c1", "a1/b1/c2", "a1/b2/c1", "a1/b11/c1"])
    await layer.drop("a1/b2/c1")
    await layer.drop("a1/b2/c1")

    assert everything == {"a1/b1/c1": b"another", "a1/b1/c2": b"\x00\xff", "a1/b2/c1": b"", "a1/b11/c1": b"four"}
    assert left == {"a1/b2/c1": b"", "a1/b11/c1": b"four"}
    assert await layer.get(["a1/b2/c1"]) == {}
    assert await layer.get([]) == {}


async def test_value_is_gone_when_its_time_is_over(opened: Open, clock: ManualClock) -> None:
    layer = opened(ttl=HOUR)
    await layer.put({"a1": b"x"})
    clock.advance(HOUR / 2)
    await layer.put({"a2": b"y"})
    clock.advance(HOUR / 2 - timedelta(seconds=1))

    young = await layer.get(["a1", "a2"])
    clock.advance(timedelta(seconds=1))

    assert young == {"a1": b"x", "a2": b"y"}
    assert await layer.get(["a1", "a2"]) == {"a2": b"y"}


@pytest.mark.parametrize("opened", ["memory", "redis", "file"], indirect=True)
@pytest.mark.parametrize(
    ("eviction", "evicted"), [(Eviction.LRU, "a2"), (Eviction.FIFO, "a1"), (Eviction.RANDOM, None)], ids=str
)
async def test_full_layer_makes_room_as_its_strategy_says(
    opened: Open, clock: ManualClock, eviction: Eviction, evicted: str | None
) -> None:
    layer = opened(max_bytes=4 * 1200, eviction=eviction)
    for key in ("a1", "a2", "a3", "a4"):
        await layer.put({key: KIB})
        clock.advance(timedelta(seconds=1))
    await layer.get(["a1"])

    await layer.put({"a5": KIB})

    left = await layer.get(["a1", "a2", "a3", "a4", "a5"])
    if evicted is not None:
        assert left.keys() == {"a1", "a2", "a3", "a4", "a5"} - {evicted}
    assert len(left) == 4


async def test_value_larger_than_the_layer_is_not_kept(opened: Open) -> None:
    layer = opened(max_bytes=1500)
    await layer.put({"a1": b"x"})

    await layer.put({"a2": 2 * KIB})

    assert await layer.get(["a1", "a2"]) == {"a1": b"x"}


@pytest.mark.parametrize("opened", ["redis", "file"], indirect=True)
async def test_what_outlives_a_process_is_bounded_by_what_was_there_before(opened: Open, clock: ManualClock) -> None:
    for key in ("a1", "a2", "a3", "a4"):
        await opened(max_bytes=4 * 1200).put({key: KIB})
        clock.advance(timedelta(seconds=1))
    await opened(max_bytes=4 * 1200).get(["a1"])

    another = opened(max_bytes=4 * 1200)
    await another.put({"a5": KIB})

    assert (await another.get(["a1", "a2", "a3", "a4", "a5"])).keys() == {"a1", "a3", "a4", "a5"}


async def test_chain_fills_a_fast_layer_from_a_slow_one(clock: ManualClock, tmp_path) -> None:
    strategy = CacheStrategy(ttl=HOUR, max_bytes=1 << 20)
    memory, file = MemoryLayer(strategy, clock), FileLayer(tmp_path, strategy, clock)
    await file.put({"a1": b"x"})

    found = await LayerChain([memory, file]).get(["a1", "a2"])

    assert found == {"a1": b"x"}
    assert await memory.get(["a1"]) == {"a1": b"x"}


async def test_layers_that_do_not_serve_are_passed_over(clock: ManualClock, tmp_path) -> None:
    strategy = CacheStrategy(ttl=HOUR, max_bytes=1 << 20)
    redis = RedisLayer(connect(f"unix://{tmp_path}/nobody"), strategy, clock)
    (tmp_path / "taken").write_text("a file where a directory should be")
    file = FileLayer(tmp_path / "taken" / "cache", strategy, clock)
    chain = LayerChain([MemoryLayer(strategy, clock), redis, file])

    await chain.put({"a1": b"x"})

    assert await chain.get(["a1", "a2"]) == {"a1": b"x"}
    await chain.drop("a1")
    assert await chain.get(["a1"]) == {}
    await _fails(redis.get(["a1"]))
    await _fails(file.put({"a1": b"x"}))


async def _fails(work: Awaitable[object]) -> None:
    with pytest.raises(DependencyUnavailable):
        await work


async def test_partial_files_of_a_dead_process_are_removed(clock: ManualClock, tmp_path) -> None:
    (tmp_path / "a1").mkdir()
    (tmp_path / "a1" / "b1.0123.partial").write_bytes(b"half")

    await FileLayer(tmp_path, CacheStrategy(ttl=HOUR, max_bytes=1 << 20), clock).get(["a1/b1"])

    assert list((tmp_path / "a1").iterdir()) == []
