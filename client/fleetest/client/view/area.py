"""The live area at the bottom of a terminal: what runs, and how far the run is. A function of view and size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fleetest.client.view.fold import RunView, TaskView
from fleetest.client.view.harmless import first_line, one_line
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
_STALE: Final = timedelta(seconds=10)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Activity:
    """What workers do for the tasks at a moment."""

    now: datetime
    slots: Counter[str]
    preparing_since: Mapping[str, datetime]
    served: Mapping[str, int]


def live_area(view: RunView, now: datetime, *, width: int, height: int, waiting: Sequence[str] = ()) -> RenderableType:
    """
    At most `height - 1` lines, whatever the number of tasks.

    Args:
        waiting: why nothing of the run runs, a line for each reason.
    """
    said = [Text(f"  {line}", "yellow", no_wrap=True, overflow="ellipsis") for line in waiting]
    said = said[: max(0, height - _FIXED_ROWS - 1)]
    room = max(1, height - _FIXED_ROWS - len(said))
    tasks = list(view.tasks.values())
    urgent = sorted(tasks, key=lambda task: _EYES.index(task.state))
    shown = {task.task_id for task in urgent[:room]}
    activity = _Activity(
        now=now,
        slots=view.attempts.slots_by_task(),
        preparing_since=view.attempts.preparing_since(),
        served={task.task_id: view.served_by(task.task_id) for task in tasks if task.serves},
    )
    parts: list[RenderableType] = [Text(), _table([task for task in tasks if task.task_id in shown], activity, width)]
    if hidden := urgent[room:]:
        parts.append(_left_out(hidden))
    parts += said
    parts.append(_totals(view, now, width))
    return Group(*parts)


def _table(tasks: list[TaskView], activity: _Activity, width: int) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(10, width // 3))
    if width >= _ROOM_FOR_BARS:
        table.add_column(width=_BAR_WIDTH)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for task in tasks:
        cells: list[RenderableType] = [_mark(task, activity), Text(one_line(task.task_id))]
        if width >= _ROOM_FOR_BARS:
            cells.append(_bar(task, activity))
        table.add_row(*cells, _status(task, activity))
    return table


def _mark(task: TaskView, activity: _Activity) -> Text:
    if not task.state.ended and activity.slots[task.task_id]:
        frame = int(activity.now.timestamp() * _FRAMES_PER_SECOND) % len(_FRAMES)
        return Text(_FRAMES[frame], "cyan")
    return Text(_MARKS.get(task.state, "·"), state_style(task.state) or "dim")


def _bar(task: TaskView, activity: _Activity) -> RenderableType:
    counts = task.counts
    if task.state is not TaskState.RUNNING or not _has_count(task, activity):
        return Text()
    return ProgressBar(
        total=counts.planned,
        completed=counts.done,
        width=_BAR_WIDTH,
        complete_style="red" if counts.bad else "cyan",
        finished_style="red" if counts.bad else "green",
    )


def _has_count(task: TaskView, activity: _Activity) -> bool:
    """Whether the count of cases says more than what is being done."""
    counts = task.counts
    if counts.done:
        return True
    return bool(counts.planned) and task.collects and task.task_id not in activity.preparing_since


def _status(task: TaskView, activity: _Activity) -> Text:
    if task.state is TaskState.BLOCKED:
        return Text(f"waits for {one_line(', '.join(task.needs))}" if task.needs else "waits", "dim")
    if task.state is TaskState.QUEUED:
        return Text("queued", "dim")
    if task.state.ended:
        return _ended(task, activity.now)
    counts = task.counts
    parts = []
    if _has_count(task, activity):
        parts.append(Text(f"{counts.done:,}/{counts.planned:,}"))
    if counts.bad:
        parts.append(Text(f"{counts.bad:,} failed", "red"))
    if counts.flaky:
        parts.append(Text(f"{counts.flaky:,} flaky", "yellow"))
    return Text("  ").join([*parts, Text(_doing(task, activity), "dim")])


def _doing(task: TaskView, activity: _Activity) -> str:
    slots = activity.slots[task.task_id]
    if not slots:
        return "waits for a slot"
    since = activity.preparing_since.get(task.task_id)
    if task.serves:
        served = plural(activity.served[task.task_id], "task")
        return f"ready, serving {served}" if since is None else f"starting {clock_text(activity.now - since)}"
    if since is not None:
        what = "preparing" if _has_count(task, activity) else "preparing its environment"
        return f"{what} {clock_text(activity.now - since)}"
    if task.load is not None:
        stale = activity.now - task.load.at > _STALE
        figures = "not all generators measure" if stale else load_text(task.load)
        return f"{figures}  {clock_text(task.duration(activity.now) or timedelta())}"
    if _has_count(task, activity):
        return plural(slots, "slot")
    word = "collecting" if task.collects else "running"
    return f"{word} {clock_text(task.duration(activity.now) or timedelta())}"


def _ended(task: TaskView, now: datetime) -> Text:
    counts = counts_text(task.counts)
    word = "" if task.state is TaskState.PASSED and counts else task.state.value.replace("_", " ")
    text = Text.assemble((word, state_style(task.state)), " " if word and counts else "", (counts, "dim"))
    if task.reason and task.state is not TaskState.PASSED and not task.failures:
        text.append(f"  {first_line(task.reason)}", "dim")
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
    if counts.planned:
        text.append(f"{counts.done:,}/{plural(counts.planned, 'case')}", "bold")
    if counts.bad:
        text.append(f" · {counts.bad:,} failed", "bold red")
    if counts.flaky:
        text.append(f" · {counts.flaky:,} flaky", "yellow")
    slots = plural(view.slots_in_use, "slot") if view.slots_in_use else "nothing runs"
    text.append(f"{' · ' if text.plain.strip() else ''}{slots} · {clock_text(view.elapsed(now))}", "dim")
    for covered in view.coverage.values():
        text.append(f" · {percent_text(covered.totals)} covered", "dim")
    if view.cancelling:
        text.append(" · stopping", "yellow")
    elif eta := eta_text(view.eta()):
        text.append(f" · {eta}", "dim")
    text.truncate(max(1, width), overflow="ellipsis")
    return text
