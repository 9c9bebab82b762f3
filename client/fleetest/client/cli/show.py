"""`fleetest show`: a run as it is now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from fleetest.client.cli.connecting import connected, master_option, project_option, running
from fleetest.client.cli.output import json_form, output_option, print_json, print_lines, print_table
from fleetest.client.cli.run_ids import optional_run_argument
from fleetest.client.values import CaseRecord, Run, RunCoverage, TaskArtifact, TaskStatus
from fleetest.client.view.harmless import harmless, one_line
from fleetest.client.view.words import (
    ago,
    counts_text,
    coverage_text,
    duration_text,
    latency_text,
    percent_text,
    plural,
    rate_text,
    short_id,
    size_text,
    state_style,
)
from fleetest.common.load import LoadRow
from fleetest.common.results import Assertion
from fleetest.common.states import Outcome

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["show"]

_BAD = tuple(outcome for outcome in Outcome if outcome.bad)


@click.command()
@optional_run_argument
@click.option("--task", "task_id", default="", metavar="NAME", help="Only this task's cases.")
@click.option("--cases", "every_case", is_flag=True, help="All cases, not only those that failed.")
@click.option("-v", "--verbose", is_flag=True, help="With tracebacks and captured output.")
@project_option
@master_option
@output_option
def show(*, run_id: str, task_id: str, every_case: bool, verbose: bool, project: str, master: str, output: str) -> None:
    """
    Show a run: its tasks, and what failed.

    RUN is an id or the beginning of one; without it, the latest run.
    """
    outcomes = () if every_case else _BAD
    run, cases, artifacts = running(_fetch(run_id, task_id, outcomes, project, master))
    if output == "json":
        print_json({**json_form(run), "cases": cases, "artifacts": artifacts})
        return
    now = datetime.now(UTC)
    print_lines(_head(run, artifacts, now))
    print_table(
        ("task", "state", "cases", "took", "memory", "cores", "why"),
        (_task_row(task, now) for task in run.tasks),
        prose=("cases", "why"),
        empty="no tasks",
    )
    _print_load(run)
    print_lines(_not_kept(run))
    print_lines(line for coverage in run.coverage for line in _coverage_lines(coverage))
    if cases:
        click.echo()
    print_lines(line for record in cases for line in _case_lines(record, artifacts, now, verbose=verbose))


async def _fetch(
    run_id: str, task_id: str, outcomes: tuple[Outcome, ...], project: str, master: str
) -> tuple[Run, list[CaseRecord], Sequence[TaskArtifact]]:
    async with connected(master, project=project) as client:
        run = await client.get_run(run_id)
        found = client.cases(run.run_id, task_id=task_id, outcomes=outcomes)
        return run, [record async for record in found], await client.artifacts(run.run_id, task_id=task_id)


def _head(run: Run, artifacts: Sequence[TaskArtifact], now: datetime) -> Iterator[Text]:
    from rich.text import Text

    source = run.version_control
    changed = " with changes" if source.dirty else ""
    facts = {
        "run": run.run_id,
        "project": f"{run.project} / {run.suite_name}",
        "environment": run.environment,
        "state": run.state.value + (f": {run.reason}" if run.reason else ""),
        "submitted": f"{ago(run.submitted_at, now)}{f' by {run.user}' if run.user else ''}",
        "took": duration_text((run.ended_at or now) - run.submitted_at),
        "source": f"{source.branch} {source.commit[:12]}{changed}".strip(),
        "labels": ", ".join(f"{key}={value}" for key, value in run.labels.items()),
        "retry of": run.retry_of,
        "cases": counts_text(run.counts),
        "artifacts": _amount_of(artifacts),
        "cache": plural(wrong, "wrong hit") if (wrong := sum(task.wrong_hits for task in run.tasks)) else "",
    }
    for name, value in facts.items():
        if value:
            style = state_style(run.state) if name == "state" else ""
            yield Text.assemble((f"{name:<11} ", "dim"), (one_line(value), style))
    yield Text()


def _amount_of(artifacts: Sequence[TaskArtifact]) -> str:
    if not artifacts:
        return ""
    return f"{plural(len(artifacts), 'file')}, {size_text(sum(each.artifact.size_bytes for each in artifacts))}"


def _task_row(task: TaskStatus, now: datetime) -> tuple[str | Text, ...]:
    from rich.text import Text

    took = duration_text((task.ended_at or now) - task.started_at) if task.started_at else ""
    return (
        one_line(task.task_id),
        Text(task.state.value, state_style(task.state)),
        counts_text(task.counts),
        took,
        _memory(task),
        _cores(task),
        one_line(task.reason),
    )


def _not_kept(run: Run) -> Iterator[Text]:
    from fleetest.client.view.summary import not_kept_lines

    return not_kept_lines([(task.task_id, problem) for task in run.tasks for problem in task.not_kept])


def _print_load(run: Run) -> None:
    """What load tests measured, by the names of their requests."""
    loaded = [task for task in run.tasks if task.load]
    if loaded:
        click.echo()
        print_table(
            ("load", "requests", "errors", "rate", "mean", "p50", "p95", "p99", "max"),
            (_load_row(task, row) for task in loaded for row in (task.load[-1], *task.load[:-1])),
            prose=("load",),
            empty="",
        )


def _load_row(task: TaskStatus, row: LoadRow) -> tuple[str, ...]:
    latencies = (row.mean, row.p50, row.p95, row.p99, row.max)
    name = f"  {one_line(row.request)}" if row.request else one_line(task.task_id)
    return (name, f"{row.requests:,}", f"{row.errors:,}", rate_text(row.throughput), *map(latency_text, latencies))


def _coverage_lines(coverage: RunCoverage) -> Iterator[Text]:
    """The total, and where most is lacking."""
    from rich.text import Text

    yield Text()
    incomplete = "" if coverage.combined else "  as far as running tests have told"
    yield Text.assemble(
        (f"{one_line(coverage.task_id)}  ", "bold"),
        f"{coverage_text(coverage.totals)} in {plural(coverage.files, 'file')}",
        (incomplete, "dim"),
    )
    for path, totals in coverage.worst.items():
        lines = f"{totals.lines - totals.covered:,} of {plural(totals.lines, 'line')}"
        branches = f", {totals.branches - totals.covered_branches:,} of {totals.branches:,} branches"
        yield Text.assemble(
            f"{percent_text(totals):>9}  {one_line(path)}",
            (f"  lacks {lines}{branches if totals.branches else ''}", "dim"),
        )


def _memory(task: TaskStatus) -> str:
    """The highest peak of its attempts, of what one may use."""
    used, requested = task.usage.peak_memory_bytes, task.requested.memory_bytes
    if not used:
        return ""
    return f"{size_text(used)} of {size_text(requested)}" if requested else size_text(used)


def _cores(task: TaskStatus) -> str:
    """The mean of its attempts, of what one asks for."""
    used = task.usage.mean_cores
    return "" if used is None else f"{used:.1f} of {task.requested.cpu_millis / 1000:g}"


def _origin(record: CaseRecord, now: datetime) -> str:
    """Of a result that is an earlier one."""
    origin = record.result.cached_from
    return f"  cached: run {short_id(origin.run_id)}, {ago(origin.at, now)}" if origin is not None else ""


def _assertion_lines(assertions: Sequence[Assertion], *, verbose: bool) -> Iterator[Text]:
    """Each that failed; all of them, if asked for everything."""
    from rich.text import Text

    for each in assertions:
        if verbose or not each.passed:
            mark, style = ("passed", "green") if each.passed else ("failed", "red")
            message = f": {one_line(each.message)}" if each.message else ""
            yield Text.assemble("    ", (f"{mark} ", style), one_line(each.name), (message, "dim"))


def _artifact_lines(record: CaseRecord, artifacts: Sequence[TaskArtifact]) -> Iterator[Text]:
    """What the case left, each path once."""
    from rich.text import Text

    case_id = record.result.case_id
    left = {
        each.artifact.path: each.artifact
        for each in artifacts
        if each.artifact.case_id == case_id and each.task_id == record.task_id
    }
    for path, artifact in left.items():
        yield Text.assemble("    ", ("left ", "dim"), one_line(path), (f"  {size_text(artifact.size_bytes)}", "dim"))


def _case_lines(
    record: CaseRecord, artifacts: Sequence[TaskArtifact], now: datetime, *, verbose: bool
) -> Iterator[Text]:
    from rich.text import Text

    from fleetest.client.view.lines import command_output_lines, in_task, place_of

    result = record.result
    style = "bold red" if result.outcome.bad else "green" if result.outcome is Outcome.PASSED else "yellow"
    yield Text.assemble(
        (f"{result.outcome.value:<9} ", style),
        one_line(result.case_id),
        (f"{in_task(record.task_id, result.case_id)}  {duration_text(result.duration)}", "dim"),
        ("  flaky" if record.flaky else "", "yellow"),
        (_origin(record, now), "cyan"),
        (f"  not cached: {one_line(result.uncacheable)}" if result.uncacheable else "", "dim"),
    )
    if result.message:
        yield Text(f"    {one_line(result.message)}")
    if result.outcome.bad and (place := place_of(result)):
        yield Text(f"    {place}", "dim")
    yield from _assertion_lines(result.assertions, verbose=verbose)
    yield from _artifact_lines(record, artifacts)
    if not verbose:
        yield from command_output_lines(record.task_id, result)
    else:
        for title, text in (("", result.details), ("stdout", result.stdout), ("stderr", result.stderr)):
            if text.strip():
                if title:
                    yield Text(f"    --- {title}", "dim")
                yield from (Text(f"    {line}") for line in harmless(text).rstrip().splitlines())
