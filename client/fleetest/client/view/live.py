"""A run on a terminal: failures scroll by as they happen, and below them the live area shows what goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fleetest.client.view.area import live_area
from fleetest.client.view.fold import RunView
from fleetest.client.view.harmless import one_line
from fleetest.client.view.lines import failure_lines, news_lines
from fleetest.client.view.news import CaseFailed, News
from fleetest.client.view.summary import summary_lines

__all__ = ["LiveRenderer"]

_FRAME: Final = timedelta(seconds=0.2)


class LiveRenderer:
    """Draws at most five times a second, and takes its drawing away when the run has ended."""

    def __init__(self, console: Console, *, explain: Callable[[CaseFailed], list[Text]] = failure_lines) -> None:
        self._console = console
        self._explain = explain
        self._live: Live | None = None
        self._drawn_at: datetime | None = None
        self._waiting: tuple[str, ...] = ()

    def show(self, view: RunView, news: Sequence[News], now: datetime) -> None:
        for each in news:
            for line in news_lines(view, each, self._explain):
                self._print(line)
        self._draw(view, now)

    def tick(self, view: RunView, now: datetime) -> None:
        self._draw(view, now)

    def waiting(self, reasons: Sequence[str], now: datetime) -> None:  # noqa: ARG002 - as the port has it
        self._waiting = tuple(reasons)

    def note(self, line: str) -> None:
        self._print(Text(one_line(line), "yellow"))

    @contextmanager
    def suspended(self) -> Iterator[None]:
        self.abandon()
        yield

    def close(self, view: RunView, now: datetime) -> None:
        self.abandon()
        for line in summary_lines(view, now):
            self._print(line)

    def abandon(self) -> None:
        live, self._live, self._drawn_at = self._live, None, None
        if live is not None:
            live.stop()

    def _draw(self, view: RunView, now: datetime) -> None:
        if self._drawn_at is not None and now - self._drawn_at < _FRAME:
            return
        self._drawn_at = now
        width, height = self._console.size
        area = live_area(view, now, width=width, height=height, waiting=self._waiting)
        if self._live is None:
            self._live = Live(area, console=self._console, auto_refresh=False, transient=True)
            self._live.start(refresh=True)
        else:
            self._live.update(area, refresh=True)

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)
