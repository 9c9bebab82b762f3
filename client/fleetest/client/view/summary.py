"""The end of a run, told in one screen."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain, islice, repeat
from typing import Final

from rich.text import Text

from fleetest.client.view.fold import RunView, TaskView
from fleetest.client.view.harmless import first_line, one_line
from fleetest.client.view.lines import in_task
from fleetest.client.view.words import counts_text, coverage_text, duration_text, plural, short_id, state_style
from fleetest.common.states import RunState, TaskState

__all__ = ["not_kept_lines", "summary_lines", "totals_text"]

_TASKS_SHOWN: Final = 30
_LISTED: Final = 10
_NAME_WIDTH: Final = 34
_EXPLAINED_ENDS: Final = frozenset({RunState.ERRORED, RunState.CANCELLED})
_WORTH_NAMING: Final = timedelta(seconds=0.1)
_BAD_ENDS: Final = frozenset({TaskState.FAILED, TaskState.ERRORED, TaskState.TIMED_OUT})

_MARKS: Final = {
    TaskState.PASSED: "✓",
    TaskState.FAILED: "✗",
    TaskState.ERRORED: "✗",
    TaskState.TIMED_OUT: "✗",
    TaskState.CANCELLED: "■",
    TaskState.SKIPPED: "–",
}


def summary_lines(view: RunView, now: datetime) -> Iterator[Text]:
    """Tasks, the slowest and the flaky cases, totals, and what to type to see more."""
    yield Text()
    yield from _tasks(view, now)
    yield from _slowest(view)
    yield from _flaky(view)
    yield from _wrong_hits(view)
    yield from not_kept_lines([(event.task_id, problem) for event in view.not_kept for problem in event.problems])
    yield from _coverage(view)
    yield Text()
    yield Text.assemble((view.state.value.upper(), f"bold {state_style(view.state)}"), f"  {totals_text(view, now)}")
    if view.reason and view.state in _EXPLAINED_ENDS:
        yield Text(f"  {one_line(view.reason)}")
    yield from _next_steps(view)


def totals_text(view: RunView, now: datetime) -> str:
    """`412 cases: 409 passed, 2 failed, 1 flaky, 1 retried in 42.0s`."""
    counts = view.counts
    parts = [part for part in (counts_text(counts), f"{view.retried:,} retried" if view.retried else "") if part]
    left = counts.planned - counts.done
    if left:
        parts.append(f"{left:,} not run")
    listed = f": {', '.join(parts)}" if parts else ""
    return f"{plural(counts.planned, 'case')}{listed} in {duration_text(view.elapsed(now))}"


def _tasks(view: RunView, now: datetime) -> Iterator[Text]:
    tasks = sorted(view.tasks.values(), key=lambda task: task.state is TaskState.PASSED)
    shown = {task.task_id for task in tasks[:_TASKS_SHOWN]}
    width = min(_NAME_WIDTH, max((len(one_line(name)) for name in shown), default=0))
    for task in view.tasks.values():
        if task.task_id in shown:
            yield _task_line(task, width, now)
    if len(tasks) > _TASKS_SHOWN:
        yield Text(f"  and {plural(len(tasks) - _TASKS_SHOWN, 'more task')}", "dim")


def _task_line(task: TaskView, width: int, now: datetime) -> Text:
    counts, style = counts_text(task.counts), state_style(task.state)
    parts = []
    if task.state is not TaskState.PASSED or not counts:
        parts.append(Text(task.state.value.replace("_", " "), style))
    if counts:
        parts.append(Text(counts))
    if task.reason and task.state is not TaskState.PASSED and not task.failures:
        parts.append(Text(first_line(task.reason), "dim"))
    if duration := task.duration(now):
        parts.append(Text(duration_text(duration), "dim"))
    head = Text.assemble(
        (f"{_MARKS.get(task.state, '·')} ", style),
        (f"{one_line(task.task_id, limit=width):<{width}}", "bold"),
    )
    return Text("  ").join([head, *parts])


def _slowest(view: RunView) -> Iterator[Text]:
    slowest = [case for case in view.slowest if case.duration >= _WORTH_NAMING]
    if slowest:
        yield Text()
        yield Text("slowest", "dim")
    for case in slowest:
        yield Text.assemble(
            f"{duration_text(case.duration):>8}  {one_line(case.case_id)}", (in_task(case.task_id, case.case_id), "dim")
        )


def _flaky(view: RunView) -> Iterator[Text]:
    flaky = list(islice(view.flaky_cases(), _LISTED))
    if flaky:
        yield Text()
        yield Text("flaky: failed, then passed when tried again", "dim")
    for task, case_id in flaky:
        first = view.earlier_failures(task.task_id, case_id)[0]
        message = f"  {one_line(first.message, limit=100)}" if first.message else ""
        yield Text.assemble("  ", (one_line(case_id), "yellow"), (f"{in_task(task.task_id, case_id)}{message}", "dim"))
    yield from _more(view.counts.flaky - len(flaky))


def _wrong_hits(view: RunView) -> Iterator[Text]:
    if view.wrong_hits:
        yield Text()
        yield Text("wrong in the cache: their results depend on more than it knows of, see `cache.inputs`", "dim")
    for hit in view.wrong_hits[:_LISTED]:
        yield Text.assemble("  ", (one_line(hit.case_id), "yellow"), (in_task(hit.task_id, hit.case_id), "dim"))
    yield from _more(len(view.wrong_hits) - _LISTED)


def not_kept_lines(told: Sequence[tuple[str, str]]) -> Iterator[Text]:
    """
    What should have been kept as artifacts and was not.

    Args:
        told: tasks, and what each tells of a file.
    """
    if told:
        yield Text()
        yield Text("not kept as artifacts", "dim")
    for task_id, problem in told[:_LISTED]:
        yield Text.assemble("  ", (one_line(problem), "yellow"), (f"  {one_line(task_id)}", "dim"))
    yield from _more(len(told) - _LISTED)


def _more(left: int) -> Iterator[Text]:
    if left > 0:
        yield Text(f"  and {left:,} more", "dim")


def _coverage(view: RunView) -> Iterator[Text]:
    if view.coverage:
        yield Text()
    for task_id, told in view.coverage.items():
        incomplete = "" if told.combined else "  as far as running tests have told"
        yield Text.assemble((f"{one_line(task_id)}  ", "dim"), coverage_text(told.totals), (incomplete, "dim"))


def _next_steps(view: RunView) -> Iterator[Text]:
    run = short_id(view.run_id)
    steps = [f"fleetest show {run}"]
    imported = any(task.imported for task in view.tasks.values())  # nothing was run, nor can be run again
    if view.state is not RunState.PASSED and not imported:
        bad = next((task.task_id for task in view.tasks.values() if task.state in _BAD_ENDS), "")
        if bad:
            steps.append(f"fleetest logs {run} {shlex.quote(one_line(bad))}")
        steps.append(f"fleetest retry {run}")
    for label, step in zip(chain(["see more: "], repeat(" " * 10)), steps, strict=False):
        yield Text(label + step, "dim")
