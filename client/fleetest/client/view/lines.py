"""News as lines for people, for every renderer that prints them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rich.text import Text

from fleetest.client.view.fold import RunView
from fleetest.client.view.harmless import first_line, harmless, one_line
from fleetest.client.view.news import (
    AttemptFailed,
    CancelAsked,
    CaseFailed,
    CaseRecovered,
    News,
    RunStarted,
    WronglyCached,
)
from fleetest.client.view.words import short_id
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome, Verdict

__all__ = [
    "command_output_lines",
    "detailed_failure_lines",
    "failure_details",
    "failure_lines",
    "in_task",
    "news_lines",
    "place_of",
]

_MESSAGE_LINES: Final = 6
_MESSAGE_WIDTH: Final = 400
_OUTPUT_LINES: Final = 10
_INDENT: Final = "    "
_FAILED: Final = "failed"
"""Who stopped a task, when its own failure did."""

_ABORTED: Final = "load"
"""Who stopped a load test, when a threshold of it did."""

_OUTCOME_WORDS: Final = {Outcome.FAILED: "FAILED", Outcome.ERROR: "ERROR", Outcome.TIMED_OUT: "TIMED OUT"}


def _started_line(run_id: str, project: str, suite_name: str) -> Text:
    return Text.assemble(
        ("run ", "dim"), (short_id(run_id), "bold"), ("  " + one_line(f"{project} / {suite_name}"), "dim")
    )


def in_task(task_id: str, case_id: str) -> str:
    """The task's name behind a case's, with two spaces between; empty when both are the same, as of a command."""
    return "" if task_id == case_id else f"  {one_line(task_id)}"


def place_of(result: CaseResult) -> str:
    """`tests/test_cart.py:42`; empty when not known."""
    if not result.file:
        return ""
    file = one_line(result.file)
    return f"{file}:{result.line}" if result.line else file


def failure_lines(news: CaseFailed) -> list[Text]:
    """
    What failed, its assertion, and where; of a command the end of its output. A case that fails again is not
    explained again.
    """
    lines = _failure_head(news)
    return lines if news.number > 1 else lines + command_output_lines(news.task_id, news.result)


def _failure_head(news: CaseFailed) -> list[Text]:
    result = news.result
    head = Text.assemble(
        (f"{_OUTCOME_WORDS[result.outcome]} ", "bold red"),
        one_line(result.case_id),
        (in_task(news.task_id, result.case_id), "dim"),
    )
    if news.number > 1:
        head.append(f"  again, in try {news.number}", "dim")
        return [head]
    message = harmless(result.message).strip().splitlines()
    lines = [head, *(Text(_INDENT + line[:_MESSAGE_WIDTH]) for line in message[:_MESSAGE_LINES])]
    if place := place_of(result):
        lines.append(Text(_INDENT + place, "dim"))
    return lines


def command_output_lines(task_id: str, result: CaseResult) -> list[Text]:
    """The last lines that a failed command wrote, which say more than its exit code; none for other cases."""
    if result.case_id != task_id or not result.outcome.bad:
        return []
    written = [line for line in harmless(result.details).rstrip().splitlines() if line.strip()]
    left_out = len(written) - _OUTPUT_LINES
    lines = [Text(f"{_INDENT}… {left_out:,} more above", "dim")] if left_out > 0 else []
    return lines + [Text(_INDENT + line[:_MESSAGE_WIDTH], "dim") for line in written[-_OUTPUT_LINES:]]


def detailed_failure_lines(news: CaseFailed) -> list[Text]:
    """The failure with its traceback and what the test wrote."""
    result = news.result
    lines = _failure_head(news)
    for title, text in (
        ("", result.details),
        ("captured stdout", result.stdout),
        ("captured stderr", result.stderr),
        ("captured log", result.log),
    ):
        if text.strip():
            lines += [Text(f"{_INDENT}--- {title}", "dim")] if title else []
            lines += [Text(_INDENT + line) for line in harmless(text).rstrip().splitlines()]
    return lines


def failure_details(result: CaseResult) -> str:
    """The traceback, or else the message."""
    return harmless(result.details or result.message).rstrip()


def _recovered_line(news: CaseRecovered) -> Text:
    return Text.assemble(
        ("FLAKY ", "bold yellow"),
        one_line(news.case_id),
        (f"{in_task(news.task_id, news.case_id)}  passed in try {news.number}", "dim"),
    )


def _wrongly_cached_line(news: WronglyCached) -> Text:
    ended = news.outcome.value.replace("_", " ")
    return Text.assemble(
        ("CACHE ", "bold yellow"),
        one_line(news.case_id),
        (in_task(news.task_id, news.case_id), "dim"),
        f"  {ended}, though it was cached as passed in run {short_id(news.cached_from.run_id)}: "
        f"what is cached of {one_line(news.file)} is not used again",
    )


def _attempt_failed_line(news: AttemptFailed) -> Text:
    what = {
        Verdict.LOST: "its worker was lost",
        Verdict.TIMED_OUT: "a time limit passed",
    }.get(news.verdict, "the infrastructure failed")
    reason = f": {one_line(news.reason)}" if news.reason else ""
    then = "; what is left runs again" if news.will_retry else ""
    return Text.assemble(("NOTE ", "bold yellow"), f"{one_line(news.shard_id)}: {what}{reason}{then}")


def _cancel_lines(news: CancelAsked) -> list[Text]:
    """
    Who or what stops it. That a task failed before its cases could run is said as such: nobody cancelled anything; the
    lines after the first of its reason are what its setup wrote.
    """
    if news.by == _FAILED:
        title = Text.assemble(("NOTE ", "bold yellow"), f"{one_line(news.task_id)}: {first_line(news.reason)}")
        return [title, *_written_lines(news.reason)]
    if news.by == _ABORTED:
        why = f"{one_line(news.task_id)}: all generators are stopped: {first_line(news.reason)}"
        return [Text.assemble(("STOP ", "bold yellow"), why)]
    what = f"task {one_line(news.task_id)}" if news.task_id else "the run"
    why = f": {first_line(news.reason)}" if news.reason else f" by {one_line(news.by)}" if news.by else ""
    return [Text.assemble(("STOP ", "bold yellow"), f"{what} is being cancelled{why}"), *_written_lines(news.reason)]


def _written_lines(reason: str) -> list[Text]:
    """The end of what follows a reason's first line."""
    written = harmless(reason).strip().splitlines()[1:]
    return [Text(_INDENT + line[:_MESSAGE_WIDTH], "dim") for line in written[-_OUTPUT_LINES:]]


def news_lines(  # noqa: PLR0911 - a flat table
    view: RunView, news: News, explain: Callable[[CaseFailed], list[Text]] = failure_lines
) -> list[Text]:
    """
    What every renderer says of a piece of news; nothing of a task's change, which each shows in its own way.

    Args:
        explain: how much is said of a failure.
    """
    match news:
        case RunStarted():
            return [_started_line(news.run_id, view.project, view.suite_name)]
        case CaseFailed():
            return explain(news)
        case CaseRecovered():
            return [_recovered_line(news)]
        case WronglyCached():
            return [_wrongly_cached_line(news)]
        case AttemptFailed():
            return [_attempt_failed_line(news)]
        case CancelAsked():
            return _cancel_lines(news)
        case _:
            return []
