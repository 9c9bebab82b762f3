"""A run as lines: for logs, pipes and terminals that can do no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from rich.console import Console
from rich.text import Text

from fleetest.client.view.fold import RunView
from fleetest.client.view.harmless import first_line, one_line
from fleetest.client.view.lines import failure_details, failure_lines, news_lines
from fleetest.client.view.news import CaseFailed, News, TaskChanged
from fleetest.client.view.sections import NoSections, Sections
from fleetest.client.view.summary import summary_lines
from fleetest.client.view.words import (
    clock_text,
    counts_text,
    duration_text,
    eta_text,
    load_text,
    percent_text,
    plural,
    state_style,
)
from fleetest.common.states import TaskState

__all__ = ["PlainRenderer"]

_HEARTBEAT: Final = timedelta(seconds=10)
_SIGN_OF_LIFE: Final = timedelta(seconds=60)
_REASONS_CHANGE: Final = timedelta(seconds=30)
_LONG_PREPARATION: Final = timedelta(seconds=1)
_DETAILED_FAILURES: Final = 50

# A task passes through these within moments; a log is quieter without them.
_PASSING_STATES: Final = frozenset({TaskState.QUEUED, TaskState.LEASED, TaskState.BLOCKED})


class PlainRenderer:
    """
    One line for each change of a task and each failure, a line with counts while nothing else is said (every ten
    seconds, and every minute when not even they change), and at the end the failures' tracebacks, each in a section.

    Args:
        sections: how the log folds.
        explain: how much is said of a failure when it happens.
    """

    def __init__(
        self,
        console: Console,
        *,
        sections: Sections | None = None,
        explain: Callable[[CaseFailed], list[Text]] = failure_lines,
    ) -> None:
        self._console = console
        self._explain = explain
        self._sections = sections or NoSections()
        self._said_at: datetime | None = None
        self._said_counts: str | None = None
        self._reasons: tuple[str, ...] = ()
        self._reasons_said_at: datetime | None = None
        self._prepared: set[str] = set()

    def show(self, view: RunView, news: Sequence[News], now: datetime) -> None:
        for each in news:
            lines = news_lines(view, each, self._explain) or _task_lines(view, each, now)
            for line in lines:
                self._say(line, now)

    def tick(self, view: RunView, now: datetime) -> None:
        self._tell_preparations(view, now)
        if self._said_at is None:
            self._said_at = now
        if now - self._said_at < _HEARTBEAT:
            return
        counts = _progress(view)
        if counts == self._said_counts and now - self._said_at < _SIGN_OF_LIFE:
            return
        self._said_counts = counts
        slots = plural(view.slots_in_use, "slot") if view.slots_in_use else "nothing runs"
        covered = [f"{percent_text(each.totals)} covered" for each in view.coverage.values()]
        parts = (counts, *covered, slots, clock_text(view.elapsed(now)), eta_text(view.eta()))
        self._say(Text(f"... {', '.join(part for part in parts if part)}", "dim"), now)

    def _tell_preparations(self, view: RunView, now: datetime) -> None:
        for task_id, since in view.attempts.preparing_since().items():
            if task_id not in self._prepared and now - since >= _LONG_PREPARATION:
                self._prepared.add(task_id)
                self._say(Text.assemble("preparing ", (one_line(task_id), "bold")), now)

    def waiting(self, reasons: Sequence[str], now: datetime) -> None:
        if not reasons:
            self._say(Text("waiting no longer"), now)
            self._reasons, self._reasons_said_at = (), None
            return
        if self._reasons_said_at is not None and now - self._reasons_said_at < _REASONS_CHANGE:
            return
        for line in reasons:
            if line not in self._reasons:
                self._say(Text(line, "yellow"), now)
        self._reasons, self._reasons_said_at = tuple(reasons), now

    def note(self, line: str) -> None:
        self._print(Text(one_line(line), "yellow"))

    @contextmanager
    def suspended(self) -> Iterator[None]:
        yield

    def close(self, view: RunView, now: datetime) -> None:
        for _, (task, result) in zip(range(_DETAILED_FAILURES), view.failures(), strict=False):
            details = failure_details(result)
            if "\n" in details:
                self._raw(self._sections.begin(_section_title(task.task_id, result.case_id)))
                self._print(Text(details))
                self._raw(self._sections.end())
        for line in summary_lines(view, now):
            self._print(line)

    def abandon(self) -> None:
        """Lines need no order to be left in."""

    def _say(self, line: Text, now: datetime) -> None:
        self._print(line)
        self._said_at = now

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)

    def _raw(self, text: str) -> None:
        self._console.file.write(text)


def _section_title(task_id: str, case_id: str) -> str:
    return case_id if case_id == task_id else f"{case_id} ({task_id})"


def _progress(view: RunView) -> str:
    counts = view.counts
    parts = [f"{counts.done:,} of {plural(counts.planned, 'case')}, {counts.bad:,} failed"] if counts.planned else []
    loads = [(task.task_id, task.load) for task in view.tasks.values() if task.load and not task.state.ended]
    parts += [f"{one_line(task_id)}: {load_text(load)}" for task_id, load in loads]
    return ", ".join(parts)


def _task_lines(view: RunView, news: News, now: datetime) -> list[Text]:
    if not isinstance(news, TaskChanged) or news.state in _PASSING_STATES:
        return []
    task = view.tasks[news.task_id]
    word = "ready" if task.serves and news.state is TaskState.RUNNING else news.state.value.replace("_", " ")
    line = Text.assemble((f"{word} ", state_style(news.state)), (one_line(news.task_id), "bold"))
    if counts := counts_text(task.counts):
        line.append(f"  {counts}")
    if news.reason and not task.failures:
        line.append(f"  {first_line(news.reason)}")
    duration = task.duration(now)
    if duration is not None and news.state.ended:
        line.append(f"  {duration_text(duration)}", "dim")
    return [line]
