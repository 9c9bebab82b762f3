"""`fleetest cache`: results of earlier runs that stand for new ones."""

from __future__ import annotations

import click

from fleetest.client.cli.connecting import connected, invocation, master_option, running, say

__all__ = ["cache", "clear"]


@click.group()
def cache() -> None:
    """Have cached results forgotten."""


@cache.command()
@click.option("--project", metavar="NAME", default="", help="Whose results. [env: FLEETEST_PROJECT]")
@click.option("--task", "task_id", metavar="NAME", default="", help="Only this task's.")
@click.option("--file", metavar="PATH", default="", help="Only this test file's; needs --task.")
@master_option
def clear(*, project: str, task_id: str, file: str, master: str) -> None:
    """
    Run again what was cached until now: all of a project, a task of it, or a test file of that.

    What was never to be cached again after a wrong hit may be cached anew.
    """
    if file and not task_id:
        raise click.UsageError("--file needs --task: a file's results belong to a task")
    project = project or invocation().settings.project
    if not project:
        raise click.UsageError("name the project with --project or FLEETEST_PROJECT")
    running(_clear(project, task_id, file, master))
    say(f"forgotten: what is cached of {' / '.join(each for each in (project, task_id, file) if each)}")


async def _clear(project: str, task_id: str, file: str, master: str) -> None:
    async with connected(master, project=project) as client:
        await client.invalidate_cache(project=project, task_id=task_id, file=file)
