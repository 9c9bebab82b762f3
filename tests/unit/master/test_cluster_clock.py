"""Masters on different clocks tell the same time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from fleetest.common.clock import ManualClock
from fleetest.common.errors import DependencyUnavailable
from fleetest.master.cluster_clock import TOLERANCE, ClusterClock
from fleetest.master.queue.connection import connect
from fleetest.master.queue.redis_time import RedisTime
from tests.support.shared_redis import SharedRedis

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
MINUTES = timedelta(minutes=5)


class Tower:
    """A clock that all can see, and that takes its time to answer."""

    def __init__(self, watcher: ManualClock, ahead: timedelta, *, takes: timedelta = timedelta()) -> None:
        self._watcher = watcher
        self._takes = takes
        self.ahead = ahead

    async def now(self) -> datetime:
        self._watcher.advance(self._takes / 2)
        answer = self._watcher.now() + self.ahead
        self._watcher.advance(self._takes / 2)
        return answer


@pytest.mark.parametrize("ahead", [MINUTES, -MINUTES])
async def test_a_clock_that_is_off_is_corrected_and_goes_on(ahead: timedelta) -> None:
    own = ManualClock(NOON)
    clock = ClusterClock(own, Tower(own, ahead, takes=TOLERANCE))

    await clock.measure()
    own.advance(timedelta(hours=1))

    assert clock.now() == own.now() + ahead
    assert clock.monotonic() == own.monotonic()


async def test_a_clock_that_is_nearly_right_is_left_alone() -> None:
    own = ManualClock(NOON)
    clock = ClusterClock(own, Tower(own, TOLERANCE))

    await clock.measure()

    assert clock.now() == NOON


async def test_an_answer_that_took_long_says_nothing() -> None:
    own = ManualClock(NOON)
    clock = ClusterClock(own, Tower(own, MINUTES, takes=timedelta(seconds=3)))

    await clock.measure()

    assert clock.now() == own.now()


async def test_a_clock_that_was_set_right_needs_its_correction_no_more() -> None:
    own = ManualClock(NOON)
    tower = Tower(own, MINUTES)
    clock = ClusterClock(own, tower)
    await clock.measure()

    own.advance(MINUTES)
    tower.ahead = timedelta()
    await clock.measure()

    assert clock.now() == own.now()


async def test_redis_tells_the_time_and_is_not_waited_for(embedded_redis: SharedRedis) -> None:
    own = ManualClock(NOON)
    redis: Redis = connect(embedded_redis.url)
    clock = ClusterClock(own, RedisTime(redis))

    await embedded_redis.stop()
    await clock.begin(timedelta(seconds=0.1))
    with pytest.raises(DependencyUnavailable):
        await clock.measure()
    assert clock.now() == NOON
    await embedded_redis.start()
    await clock.measure()
    await redis.aclose()

    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
