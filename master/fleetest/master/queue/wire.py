"""
One connection to Redis that everybody shares: commands follow each other without waiting for answers.

redis-py takes a connection out of its pool for each command, puts it back, counts both, and makes a task and two timers
on the way: more than all else that a claim costs us. It still opens the connection, with all that its URL asks for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import hiredis
from redis._parsers import BaseParser
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fleetest.common.backoff import Backoff

__all__ = ["Wire", "WireScript"]

Word = str | bytes | int

_PATIENCE: Final = timedelta(seconds=10)
"""A Redis that answers nothing for so long, once or twice, has frozen."""

_TRIES: Final = 6
_NOT_YET: Final = object()
_BACKOFF: Final = Backoff(first=timedelta(milliseconds=20), longest=timedelta(milliseconds=400), fraction=lambda: 1.0)


class Wire:
    """
    Commands are executed in the order in which they are given, whoever gives them; none may block Redis's answers to
    the others (`XREAD BLOCK`) unless the wire is for it alone.

    A command that meets a broken connection is sent again a few times within a second. It may thus be executed twice:
    what we send is safe to repeat.

    Args:
        redis: whose connections are used; closing it closes the wire.
    """

    def __init__(self, redis: Redis) -> None:
        self._pool = redis.connection_pool
        self._line: _Line | None = None
        self._opening = asyncio.Lock()

    async def call(self, *words: Word) -> Any:
        """
        The answer to a command.

        Raises:
            RedisError: Redis does not answer, or refuses.
        """
        [answer] = await self.call_all([words])
        return answer

    async def call_all(self, commands: Sequence[tuple[Word, ...]]) -> list[Any]:
        """The answers to several commands, sent at once. Raises what the first of them that failed did."""
        packed = b"".join([hiredis.pack_command(words) for words in commands])  # type: ignore[arg-type]  # it takes tuples of any length
        failures = 0
        while True:
            line = self._line
            if line is None or line.lost:
                line = await self._open()
            answers = line.send(packed, len(commands))
            try:
                return [await answer for answer in answers]
            except (RedisConnectionError, RedisTimeoutError):  # the first of them says that Redis is loading, too
                failures += 1
                if failures == _TRIES:
                    raise
            finally:
                for answer in answers:
                    if not answer.cancel() and not answer.cancelled():
                        answer.exception()  # looked at, so that nobody warns of it
            await asyncio.sleep(_BACKOFF.delay(failures).total_seconds())

    async def _open(self) -> _Line:
        """Tries for about a second, as redis-py does."""
        async with self._opening:
            if self._line is not None:
                if not self._line.lost:
                    return self._line  # somebody else has opened it
                lost, self._line = self._line.connection, None
                await lost.disconnect(nowait=True)
                await self._pool.release(lost)
            connection: AbstractConnection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            self._line = _Line(connection)
            return self._line


class WireScript:
    """A script, which Redis is told when it does not know it (any more)."""

    def __init__(self, wire: Wire, source: str) -> None:
        self._wire = wire
        self._source = source
        # As Redis names scripts.
        self._digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], args: Sequence[Word]) -> Any:
        """Run it. Raises as `Wire.call` does."""
        words = (len(keys), *keys, *args)
        try:
            return await self._wire.call("EVALSHA", self._digest, *words)
        except NoScriptError:
            return await self._wire.call("EVAL", self._source, *words)


class _Line(asyncio.Protocol):
    """
    A connection of redis-py's that has said hello, taken over: the answers to come go to those who wait, in order.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self.connection = connection
        self.lost = False
        # redis-py shows neither; it knows of the connection's end through what was the protocol before.
        writer: asyncio.StreamWriter = connection._writer  # type: ignore[assignment]  # noqa: SLF001
        self._transport = writer.transport
        self._before = self._transport.get_protocol()
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=BaseParser.parse_error, notEnoughData=_NOT_YET
        )
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.TimerHandle | None = None
        self._heard = False
        self._transport.set_protocol(self)

    def send(self, packed: bytes, count: int) -> list[asyncio.Future[Any]]:
        """Write so many commands; answers what will be their answers."""
        answers: list[asyncio.Future[Any]] = [self._loop.create_future() for _ in range(count)]
        self._waiting += answers
        if self._transport.is_closing():
            self._fail(RedisConnectionError("the connection to Redis was closed"))
        else:
            self._transport.write(packed)
            if self._watch is None:
                self._look_again()
        return answers

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not _NOT_YET:
                if not isinstance(answer, hiredis.PushNotification):
                    self._deliver(answer)
        except InvalidResponse as error:
            self._fail(RedisConnectionError(f"Redis speaks another language: {error}"))

    def _deliver(self, answer: Any) -> None:
        future = self._waiting.popleft()
        if future.done():  # nobody waits any longer
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(RedisConnectionError(f"the connection to Redis broke: {exc or 'it was closed'}"))
        self._before.connection_lost(exc)

    def _fail(self, error: Exception) -> None:
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
        self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(error)

    def _look_again(self) -> None:
        self._heard = False
        self._watch = self._loop.call_later(_PATIENCE.total_seconds(), self._look)

    def _look(self) -> None:
        """One timer for all that waits, and none when nothing does."""
        self._watch = None
        if not self._waiting:
            return
        if self._heard:
            self._look_again()
        else:
            self._fail(RedisTimeoutError("Redis does not answer"))
