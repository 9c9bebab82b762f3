"""
What GitHub Actions shows of a run beside its log: annotations on the changed lines, and the job's summary page.

Source: https://docs.github.com/actions/reference/workflow-commands-for-github-actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Final

from fleetest.client.view.fold import RunView, TaskView
from fleetest.client.view.harmless import harmless, one_line
from fleetest.client.view.lines import failure_details
from fleetest.client.view.news import News
from fleetest.client.view.renderer import Renderer
from fleetest.client.view.summary import totals_text
from fleetest.client.view.words import counts_text, duration_text, short_id
from fleetest.common.results import CaseResult

__all__ = ["GitHubRenderer", "annotation_lines", "job_summary"]

_ANNOTATIONS: Final = 50
_SUMMARY_FAILURES: Final = 50
# GitHub refuses a step's summary of more than 1 MiB.
_SUMMARY_BYTES: Final = 900_000


class GitHubRenderer:
    """
    Adds annotations and the job's summary to what another renderer shows.

    Args:
        stream: the log, where annotations are commands.
        summary_file: GITHUB_STEP_SUMMARY; `None` writes no summary.
    """

    def __init__(self, renderer: Renderer, stream: IO[str], summary_file: Path | None) -> None:
        self._renderer = renderer
        self._stream = stream
        self._summary_file = summary_file

    def show(self, view: RunView, news: Sequence[News], now: datetime) -> None:
        self._renderer.show(view, news, now)

    def tick(self, view: RunView, now: datetime) -> None:
        self._renderer.tick(view, now)

    def waiting(self, reasons: Sequence[str], now: datetime) -> None:
        self._renderer.waiting(reasons, now)

    def note(self, line: str) -> None:
        self._renderer.note(line)

    def suspended(self) -> AbstractContextManager[None]:
        return self._renderer.suspended()

    def close(self, view: RunView, now: datetime) -> None:
        self._renderer.close(view, now)
        for annotation in annotation_lines(view):
            self._stream.write(f"{annotation}\n")
        if self._summary_file is None:
            return
        try:
            with self._summary_file.open("a", encoding="utf-8") as file:
                file.write(job_summary(view, now))
        except OSError as error:
            self._renderer.note(f"the job summary could not be written: {error}")

    def abandon(self) -> None:
        self._renderer.abandon()


def annotation_lines(view: RunView) -> Iterator[str]:
    """A command for each failure that has a place in the tree, the first fifty."""
    for task, result in islice(view.failures(), _ANNOTATIONS):
        place = f"file={_property(result.file)}," if result.file else ""
        line = f"line={result.line}," if result.file and result.line else ""
        title = _property(f"{result.case_id} ({task.task_id})")
        yield f"::error {place}{line}title={title}::{_data(result.message or result.outcome.value)}"


def job_summary(view: RunView, now: datetime) -> str:
    """The run as Markdown."""
    lines = [f"## Fleetest: {view.state.value}", "", f"{totals_text(view, now)}, run `{short_id(view.run_id)}`", ""]
    lines += ["| Task | State | Cases | Time |", "|---|---|---|---|"]
    lines += [_row(task, now) for task in view.tasks.values()]
    text = "\n".join(lines) + "\n"
    for task, result in islice(view.failures(), _SUMMARY_FAILURES):
        block = _failure_block(task, result)
        if len((text + block).encode()) > _SUMMARY_BYTES:
            break
        text += block
    return text + "\n"


def _row(task: TaskView, now: datetime) -> str:
    duration = task.duration(now)
    cells = (
        _markdown(task.task_id),
        task.state.value,
        counts_text(task.counts) or _markdown(task.reason),
        duration_text(duration) if duration is not None else "",
    )
    return f"| {' | '.join(cells)} |"


def _failure_block(task: TaskView, result: CaseResult) -> str:
    title = f"{_html(one_line(result.case_id))} ({_html(one_line(task.task_id))})"
    return f"\n<details><summary>{title}</summary>\n<pre>{_html(failure_details(result))}</pre>\n</details>\n"


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _markdown(text: str) -> str:
    plain = _html(one_line(text))
    for sign in "\\`*_[]|!":
        plain = plain.replace(sign, f"&#{ord(sign)};")
    return plain


def _data(text: str) -> str:
    return harmless(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(one_line(text)).replace(":", "%3A").replace(",", "%2C")
