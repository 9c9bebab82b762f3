"""Calls that last: a stream that was admitted once must end when its token does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog

from fleetest.common.errors import DependencyUnavailable, Unauthenticated
from fleetest.master.access.principals import Principal
from fleetest.master.access.token_book import TokenBook

__all__ = ["OpenStreams"]

_log = structlog.get_logger()


class _Stream:
    def __init__(self, principal: Principal) -> None:
        self.token_id = principal.token_id
        self.limit = asyncio.timeout(None)
        self.refusal: Unauthenticated | None = None

    def end(self, refusal: Unauthenticated) -> None:
        self.refusal = refusal
        self.limit.reschedule(asyncio.get_running_loop().time())


class OpenStreams:
    """
    Looks every so often whether the tokens of the streams that are open still admit anybody.

    While the store does not answer, streams go on: it is not known that they should not.

    Args:
        interval: at least so often; with it ends the time that a revoked token's streams live on.
    """

    def __init__(self, tokens: TokenBook, interval: timedelta) -> None:
        self._tokens = tokens
        self._interval = interval
        self._streams: set[_Stream] = set()
        self._due = asyncio.Event()

    def look_now(self) -> None:
        """A token has just been revoked."""
        self._due.set()

    @asynccontextmanager
    async def hold(self, principal: Principal) -> AsyncIterator[None]:
        """
        A stream of this principal, for as long as it lasts.

        Raises:
            Unauthenticated: its token has ended meanwhile; what ran inside was cancelled.
        """
        if not principal.token_id:
            yield
            return
        stream = _Stream(principal)
        self._streams.add(stream)
        try:
            async with stream.limit:
                yield
        except TimeoutError:
            if stream.refusal is None:
                raise
            raise stream.refusal from None
        finally:
            self._streams.discard(stream)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval.total_seconds()):
                    await self._due.wait()
            self._due.clear()
            for token_id in {stream.token_id for stream in self._streams}:
                await self._look(token_id)

    async def _look(self, token_id: str) -> None:
        try:
            await self._tokens.check_ended(token_id)
        except DependencyUnavailable as error:
            _log.warning("token_not_checked", token_id=token_id, error=error.message)
        except Unauthenticated as refusal:
            ended = [stream for stream in self._streams if stream.token_id == token_id and not stream.refusal]
            for stream in ended:
                stream.end(refusal)
            _log.info("streams_ended", token_id=token_id, count=len(ended), reason=refusal.message)
