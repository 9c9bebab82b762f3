"""`fleetest cancel`: stop a run, or one task of it."""

from __future__ import annotations

from datetime import timedelta

import click

from fleetest.client.cli.connecting import connected, master_option, project_option, running, say
from fleetest.client.cli.following_options import present_user
from fleetest.client.cli.run_ids import run_argument
from fleetest.client.view.words import short_id

__all__ = ["cancel"]


@click.command()
@run_argument
@click.argument("task_id", metavar="[TASK]", default="")
@click.option("--reason", default="", metavar="TEXT", help="Kept with the run.")
@click.option(
    "--grace", type=click.FloatRange(0, 3600), metavar="SECONDS", help="How long tests get to stop. [default: 10]"
)
@project_option
@master_option
def cancel(*, run_id: str, task_id: str, reason: str, grace: float | None, project: str, master: str) -> None:
    """
    Stop a run, or one task of it. What runs is asked to stop, and stopped when the grace has passed.

    RUN is an id, the beginning of one, or `latest`.
    """
    running(_cancel(run_id, task_id, reason, None if grace is None else timedelta(seconds=grace), project, master))


async def _cancel(run_id: str, task_id: str, reason: str, grace: timedelta | None, project: str, master: str) -> None:
    async with connected(master, project=project) as client:
        run = await client.get_run(run_id)
        stopped = await client.cancel(run.run_id, task_id=task_id, reason=reason, grace=grace, user=present_user())
    what = f"task {task_id} of run {short_id(run.run_id)}" if task_id else f"run {short_id(run.run_id)}"
    say(f"{what} is being cancelled" if stopped else f"{what} had ended already")
