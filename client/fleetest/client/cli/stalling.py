"""Asks why nothing of a followed run runs, once that has lasted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from fleetest.client.values import TaskExplanation
from fleetest.client.view.fold import RunView
from fleetest.client.view.impasse import impasse_lines
from fleetest.client.view.renderer import Renderer
from fleetest.common.errors import FleetestError

__all__ = ["StallWatch"]

_PATIENCE: Final = timedelta(seconds=3)
_ASK_AGAIN: Final = timedelta(seconds=5)


class StallWatch:
    """
    Tells the renderer why a run makes no progress: nothing of it is leased or running.

    The question is asked in the background and its answer told only from within `look`; one that fails is asked
    again later, so whoever follows the run is never held up.

    Args:
        ask: explains the run of an id.
    """

    def __init__(self, ask: Callable[[str], Awaitable[Sequence[TaskExplanation]]], renderer: Renderer) -> None:
        self._ask = ask
        self._renderer = renderer
        self._idle_since: datetime | None = None
        self._asked_at: datetime | None = None
        self._question: asyncio.Future[Sequence[TaskExplanation]] | None = None
        self._told = False

    def look(self, view: RunView, now: datetime) -> None:
        """Called after every commit and every tick."""
        if view.submitted_at is None or view.state.ended or view.cancelling:
            return
        if view.attempts:
            self._idle_since = None
            self._drop_question()
            self._tell((), now)
            return
        self._idle_since = self._idle_since or now
        if self._question is not None:
            self._hear(now)
        elif now - self._idle_since >= _PATIENCE and (self._asked_at is None or now - self._asked_at >= _ASK_AGAIN):
            self._asked_at = now
            self._question = asyncio.ensure_future(self._ask(view.run_id))

    async def close(self) -> None:
        """Let an open question go. Idempotent."""
        question, self._question = self._question, None
        if question is not None:
            question.cancel()
            await asyncio.gather(question, return_exceptions=True)

    def _drop_question(self) -> None:
        question, self._question = self._question, None
        if question is not None:
            question.cancel()

    def _hear(self, now: datetime) -> None:
        if self._question is None or not self._question.done():
            return
        question, self._question = self._question, None
        if question.cancelled():
            return  # its channel was closed in favour of another
        try:
            lines = impasse_lines(question.result())
        except FleetestError:
            return  # a lost connection is told by the stream of commits
        self._tell(lines, now)

    def _tell(self, lines: Sequence[str], now: datetime) -> None:
        if lines or self._told:
            self._renderer.waiting(lines, now)
        self._told = bool(lines)
