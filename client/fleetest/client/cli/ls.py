"""`fleetest ls`: runs, newest first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from fleetest.client.cli.connecting import connected, master_option, project_option, running
from fleetest.client.cli.output import output_option, print_json, print_table
from fleetest.client.values import Run
from fleetest.client.view.harmless import one_line
from fleetest.client.view.words import ago, duration_text, short_id, state_style, verdict_text
from fleetest.common.states import RunState

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["ls"]


@click.command()
@click.option("--branch", default="", metavar="NAME", help="Only this branch.")
@click.option("--state", type=click.Choice([state.value for state in RunState]), help="Only runs in this state.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many.")
@project_option
@master_option
@output_option
def ls(*, branch: str, state: str | None, limit: int, project: str, master: str, output: str) -> None:
    """List runs, newest first."""
    runs = running(_list(branch, RunState(state) if state else None, limit, project, master))
    if output == "json":
        print_json(runs)
        return
    now = datetime.now(UTC)
    print_table(
        ("run", "state", "suite", "branch", "cases", "took", "submitted"),
        (_row(each, now) for each in runs),
        cut=("suite", "branch"),
        empty="no runs; begin one with: fleetest run",
    )


async def _list(branch: str, state: RunState | None, limit: int, project: str, master: str) -> list[Run]:
    async with connected(master, project=project) as client:
        return await client.list_runs(branch=branch, state=state, limit=limit)


def _row(run: Run, now: datetime) -> tuple[str | Text, ...]:
    from rich.text import Text

    return (
        short_id(run.run_id),
        Text(run.state.value, state_style(run.state)),
        one_line(f"{run.project}/{run.suite_name}"),
        one_line(run.version_control.branch),
        verdict_text(run.counts),
        duration_text((run.ended_at or now) - run.submitted_at),
        ago(run.submitted_at, now),
    )
