"""The port between following a run and showing it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from fleetest.client.view.fold import RunView
from fleetest.client.view.news import News

__all__ = ["Renderer"]


class Renderer(Protocol):
    """Shows a run as it goes on. Writes nothing before the first call."""

    def show(self, view: RunView, news: Sequence[News], now: datetime) -> None:
        """The view has changed; `news` is what is worth a word."""

    def tick(self, view: RunView, now: datetime) -> None:
        """Time has passed; called a few times a second."""

    def waiting(self, reasons: Sequence[str], now: datetime) -> None:
        """Nothing of the run runs, and why, a line for each reason; none when something runs again."""

    def note(self, line: str) -> None:
        """Say something that is no news of the run: a broken connection, a question's answer."""

    def suspended(self) -> AbstractContextManager[None]:
        """Keep the terminal free within the block, for a question."""

    def close(self, view: RunView, now: datetime) -> None:
        """The run has ended: the summary."""

    def abandon(self) -> None:
        """Nobody watches any more, though the run goes on: leave the terminal in order. Idempotent."""
