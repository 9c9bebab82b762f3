"""What every feed of commits promises. An adapter joins by adding how it is opened to `ADAPTERS`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from fleetest.master.queue.ports import CommitFeed, CommitNotice
from fleetest.master.queue.redis_feed import MAX_EVENTS_BYTES, RedisCommitFeed

ADAPTERS: dict[str, Callable[[Redis], CommitFeed]] = {"redis": RedisCommitFeed}


@pytest.fixture(params=sorted(ADAPTERS))
def feed(request: pytest.FixtureRequest, redis: Redis) -> CommitFeed:
    return ADAPTERS[request.param](redis)


def notice(position: int, events: bytes | None = b"\x00\xff") -> CommitNotice:
    return CommitNotice(run_id="run-ä", position=position, events=events)


async def take(notices: AsyncIterator[object], count: int) -> list[CommitNotice]:
    taken: list[CommitNotice] = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            taken += await anext(notices)  # type: ignore[arg-type]  # an iterator of sequences
    return taken


async def test_notices_are_told_in_order_from_the_subscription_on(feed: CommitFeed) -> None:
    await feed.publish([notice(1)])
    notices = feed.notices()
    begin = await anext(notices)

    stops = CommitNotice(run_id="r", position=3, events=None, stops=True)
    await feed.publish([notice(2), stops])
    await feed.publish([])
    await feed.publish([notice(4, events=b"")])

    assert list(begin) == []
    assert await take(notices, 3) == [notice(2), stops, notice(4, events=b"")]


async def test_every_subscriber_is_told(feed: CommitFeed) -> None:
    subscribers = [feed.notices() for _ in range(3)]
    for each in subscribers:
        await anext(each)

    await feed.publish([notice(1)])

    assert [await take(each, 1) for each in subscribers] == [[notice(1)]] * 3


async def test_waiting_subscriber_is_told_at_once(feed: CommitFeed) -> None:
    notices = feed.notices()
    await anext(notices)
    waiting = asyncio.create_task(take(notices, 1))

    await feed.publish([notice(1)])

    assert await waiting == [notice(1)]


async def test_nothing_published_between_two_reads_is_missed(feed: CommitFeed) -> None:
    notices = feed.notices()
    await anext(notices)

    for position in range(0, 3000, 100):
        await feed.publish([notice(each) for each in range(position, position + 100)])

    assert await take(notices, 3000) == [notice(position) for position in range(3000)]


async def test_large_commit_is_announced_without_its_events(feed: CommitFeed) -> None:
    notices = feed.notices()
    await anext(notices)

    await feed.publish([notice(1, b"x" * MAX_EVENTS_BYTES), notice(2, b"x" * (MAX_EVENTS_BYTES + 1))])

    assert await take(notices, 2) == [notice(1, b"x" * MAX_EVENTS_BYTES), notice(2, None)]
