"""The feed of commits: one capped Redis Stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis

from fleetest.common.backoff import Backoff
from fleetest.common.errors import DependencyUnavailable
from fleetest.master.queue.connection import redis_errors
from fleetest.master.queue.ports import CommitNotice
from fleetest.master.queue.wire import Wire

__all__ = ["MAX_EVENTS_BYTES", "RedisCommitFeed"]

MAX_EVENTS_BYTES: Final = 4 << 10
"""
Larger commits, of which there are few for what is in them, are announced without their content: to have it go to Redis
and back for every master costs more than to read it from the store for those who want it.
"""

_STREAM: Final = "fleetest:{commits}:stream"
_KEPT: Final = 4096
"""About so many notices stay readable for one who is behind: at most 16 MiB."""

_READ_AT_ONCE: Final = 500
_BLOCK: Final = timedelta(seconds=5)
_PAUSE: Final = timedelta(milliseconds=10)
"""Before more is read than the first of a while: what was published at once is told at once, and not one by one."""


class RedisCommitFeed:
    """Fulfils `CommitFeed`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._publishing = Wire(redis)
        self._reading = Wire(redis)  # of its own, since it blocks

    async def publish(self, notices: Sequence[CommitNotice]) -> None:
        """
        In one round trip.

        Raises:
            DependencyUnavailable: Redis does not answer; some may have been published.
        """
        if not notices:
            return
        with redis_errors():
            await self._publishing.call_all(
                [("XADD", _STREAM, "MAXLEN", "~", _KEPT, "*", *_words(notice)) for notice in notices]
            )

    async def notices(self) -> AsyncGenerator[Sequence[CommitNotice], None]:
        """
        From now on, in the order of publication.

        The first answer is an empty one: every notice published from then on is told. Redis may lose the last
        second's when it dies, so another empty one is told after it did not answer: look into the log then.
        """
        backoff = Backoff(first=timedelta(milliseconds=50), longest=timedelta(seconds=2))
        failures = 0
        told_of_start = False
        position = b""
        while True:
            try:
                position = position or await self._end()
                if not told_of_start:
                    told_of_start = True
                    yield ()
                position, notices = await self._read(position)
            except DependencyUnavailable:
                failures += 1
                told_of_start = False
                await asyncio.sleep(backoff.delay(failures).total_seconds())
                continue
            failures = 0
            if notices:
                yield notices
                await asyncio.sleep(_PAUSE.total_seconds())  # lets notices gather; not a wait for anything

    async def _end(self) -> bytes:
        """Where the stream ends now; reading after `$` anew each time would miss what comes between two reads."""
        with redis_errors():
            last: Any = await self._redis.xrevrange(_STREAM, count=1)
        end: bytes = last[0][0] if last else b"0-0"
        return end

    async def _read(self, position: bytes) -> tuple[bytes, list[CommitNotice]]:
        with redis_errors():
            answer = await self._reading.call(
                "XREAD",
                "COUNT",
                _READ_AT_ONCE,
                "BLOCK",
                _BLOCK // timedelta(milliseconds=1),
                "STREAMS",
                _STREAM,
                position,
            )
        if not answer:
            return position, []
        [(_, entries)] = answer.items() if isinstance(answer, dict) else answer  # RESP3, RESP2
        return entries[-1][0], [_notice(dict(zip(fields[::2], fields[1::2], strict=True))) for _, fields in entries]


def _words(notice: CommitNotice) -> list[str | bytes | int]:
    words: list[str | bytes | int] = ["run", notice.run_id, "at", notice.position]
    if notice.events is not None and len(notice.events) <= MAX_EVENTS_BYTES:
        words += ["events", notice.events]
    if notice.stops:
        words += ["stops", b"1"]
    return words


def _notice(fields: dict[bytes, bytes]) -> CommitNotice:
    return CommitNotice(
        run_id=fields[b"run"].decode(),
        position=int(fields[b"at"]),
        events=fields.get(b"events"),
        stops=b"stops" in fields,
    )
