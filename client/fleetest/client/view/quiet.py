"""A run of which only the failures and the last line are told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.text import Text

from fleetest.client.view.fold import RunView
from fleetest.client.view.harmless import one_line
from fleetest.client.view.lines import failure_lines
from fleetest.client.view.news import CaseFailed, News
from fleetest.client.view.summary import totals_text
from fleetest.client.view.words import short_id, state_style

__all__ = ["QuietRenderer"]


class QuietRenderer:
    """Failures as they happen, and one line at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, view: RunView, news: Sequence[News], now: datetime) -> None:  # noqa: ARG002 - as the port has it
        for each in news:
            if isinstance(each, CaseFailed):
                for line in failure_lines(each):
                    self._console.print(line, soft_wrap=True)

    def tick(self, view: RunView, now: datetime) -> None:
        """Nothing to say."""

    def waiting(self, reasons: Sequence[str], now: datetime) -> None:
        """Neither a failure nor the end."""

    def note(self, line: str) -> None:
        self._console.print(Text(one_line(line), "yellow"), soft_wrap=True)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        yield

    def close(self, view: RunView, now: datetime) -> None:
        line = Text.assemble(
            (f"{view.state.value.upper()}", f"bold {state_style(view.state)}"),
            f"  {totals_text(view, now)}  ",
            (short_id(view.run_id), "dim"),
        )
        self._console.print(line, soft_wrap=True)

    def abandon(self) -> None:
        """Nothing to put in order."""
