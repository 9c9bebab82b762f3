"""The live area at the bottom of a terminal: what runs, and how far the run is. A function of view and size."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fleetest.client.view.fold import RunView, TaskView
from fleetest.client.view.harmless import one_line
from fleetest.client.view.words import clock_text, counts_text, duration_text, eta_text, plural, state_style
from fleetest.common.states import TaskState

__all__ = ["live_area"]

_FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAMES_PER_SECOND: Final = 4
_MARKS: Final = {
    TaskState.BLOCKED: "·",
    TaskState.QUEUED: "·",
    TaskState.PASSED: "✓",
    TaskState.FAILED: "✗",
    TaskState.ERRORED: "✗",
    TaskState.TIMED_OUT: "✗",
    TaskState.CANCELLED: "■",
    TaskState.SKIPPED: "–",
}
_BAR_WIDTH: Final = 16
_FIXED_ROWS: Final = 4  # a blank line, the line of what is left out, the totals, and the cursor's
_ROOM_FOR_BARS: Final = 60

# What needs eyes comes first when the terminal has no room for all; the order on screen stays the suite's.
_EYES: Final = (
    TaskState.RUNNING,
    TaskState.LEASED,
    TaskState.FAILED,
    TaskState.ERRORED,
    TaskState.TIMED_OUT,
    TaskState.QUEUED,
    TaskState.CANCELLED,
    TaskState.BLOCKED,
    TaskState.SKIPPED,
    TaskState.PASSED,
)


def live_area(view: RunView, now: datetime, *, width: int, height: int) -> RenderableType:
    """At most `height - 1` lines, whatever the number of tasks."""
    room = max(1, height - _FIXED_ROWS)
    tasks = list(view.tasks.values())
    urgent = sorted(tasks, key=lambda task: _EYES.index(task.state))
    shown = {task.task_id for task in urgent[:room]}
    parts: list[RenderableType] = [Text(), _table([task for task in tasks if task.task_id in shown], now, width)]
    if hidden := urgent[room:]:
        parts.append(_left_out(hidden))
    parts.append(_totals(view, now, width))
    return Group(*parts)


def _table(tasks: list[TaskView], now: datetime, width: int) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(10, width // 3))
    if width >= _ROOM_FOR_BARS:
        table.add_column(width=_BAR_WIDTH)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for task in tasks:
        cells: list[RenderableType] = [_mark(task, now), Text(one_line(task.task_id))]
        if width >= _ROOM_FOR_BARS:
            cells.append(_bar(task))
        table.add_row(*cells, _status(task, now))
    return table


def _mark(task: TaskView, now: datetime) -> Text:
    if task.state is TaskState.RUNNING and task.running:
        frame = int(now.timestamp() * _FRAMES_PER_SECOND) % len(_FRAMES)
        return Text(_FRAMES[frame], "cyan")
    return Text(_MARKS.get(task.state, "·"), state_style(task.state) or "dim")


def _bar(task: TaskView) -> RenderableType:
    counts = task.counts
    if task.state is not TaskState.RUNNING or not counts.planned:
        return Text()
    return ProgressBar(
        total=counts.planned,
        completed=counts.done,
        width=_BAR_WIDTH,
        complete_style="red" if counts.bad else "cyan",
        finished_style="red" if counts.bad else "green",
    )


def _status(task: TaskView, now: datetime) -> Text:
    counts = task.counts
    if task.state is TaskState.BLOCKED:
        return Text(f"waits for {one_line(', '.join(task.needs))}" if task.needs else "waits", "dim")
    if task.state is TaskState.QUEUED:
        return Text("queued", "dim")
    if task.state.ended:
        return _ended(task, now)
    if not counts.planned:
        return Text("starting" if task.type == "command" else "collecting", "dim")
    text = Text(f"{counts.done:,}/{counts.planned:,}")
    if counts.bad:
        text.append(f"  {counts.bad:,} failed", "red")
    if counts.flaky:
        text.append(f"  {counts.flaky:,} flaky", "yellow")
    text.append(f"  {plural(len(task.running), 'slot')}" if task.running else "  waits for a slot", "dim")
    return text


def _ended(task: TaskView, now: datetime) -> Text:
    counts = counts_text(task.counts)
    word = "" if task.state is TaskState.PASSED and counts else task.state.value.replace("_", " ")
    text = Text.assemble((word, state_style(task.state)), " " if word and counts else "", (counts, "dim"))
    if task.reason and task.state is not TaskState.PASSED and not task.failures:
        text.append(f"  {one_line(task.reason)}", "dim")
    elif duration := task.duration(now):
        text.append(f"  {duration_text(duration)}", "dim")
    return text


def _left_out(tasks: list[TaskView]) -> Text:
    passed = sum(task.state is TaskState.PASSED for task in tasks)
    waiting = sum(not task.state.ended for task in tasks)
    rest = len(tasks) - passed - waiting
    parts = [f"{count} {word}" for count, word in ((passed, "passed"), (waiting, "waiting"), (rest, "ended")) if count]
    return Text(
        f"  and {plural(len(tasks), 'more task')}: {', '.join(parts)}", "dim", no_wrap=True, overflow="ellipsis"
    )


def _totals(view: RunView, now: datetime, width: int) -> Text:
    counts = view.counts
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append("  ")
    text.append(f"{counts.done:,}/{plural(counts.planned, 'case')}", "bold")
    if counts.bad:
        text.append(f" · {counts.bad:,} failed", "bold red")
    if counts.flaky:
        text.append(f" · {counts.flaky:,} flaky", "yellow")
    text.append(f" · {plural(view.slots_in_use, 'slot')} · {clock_text(view.elapsed(now))}", "dim")
    if view.cancelling:
        text.append(" · stopping", "yellow")
    elif eta := eta_text(view.eta()):
        text.append(f" · {eta}", "dim")
    text.truncate(max(1, width), overflow="ellipsis")
    return text
