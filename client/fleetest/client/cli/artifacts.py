"""`fleetest artifacts`: the files that tasks left behind."""

from __future__ import annotations

from pathlib import Path

import click

from fleetest.client.cli.connecting import connected, master_option, project_option, running, say
from fleetest.client.cli.output import json_form, output_option, print_json, print_table
from fleetest.client.cli.run_ids import optional_run_argument
from fleetest.client.values import TaskArtifact
from fleetest.client.view.harmless import one_line
from fleetest.client.view.words import plural, size_text

__all__ = ["artifacts"]


@click.command()
@optional_run_argument
@click.option("--task", "task_id", default="", metavar="NAME", help="Only this task's.")
@click.option("--match", default="*", metavar="GLOB", show_default=True, help="Only paths like this.")
@click.option(
    "--save",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="Save them there, as TASK/PATH.",
)
@project_option
@master_option
@output_option
def artifacts(
    *, run_id: str, task_id: str, match: str, directory: Path | None, project: str, master: str, output: str
) -> None:
    """
    List the files that a run's tasks left behind, or save them.

    RUN is an id or the beginning of one; without it, the latest run.
    """
    found = running(_artifacts(run_id, task_id, match, directory, project, master))
    if output == "json":
        print_json([_form(each, saved) for each, saved in found])
        return
    print_table(
        ("task", "path", "size"),
        (
            (one_line(each.task_id), one_line(each.artifact.path), size_text(each.artifact.size_bytes))
            for each, _ in found
        ),
        empty="no artifacts",
    )
    if directory is not None:
        say(f"{plural(len(found), 'file')} saved below {directory}")


async def _artifacts(
    run_id: str, task_id: str, match: str, directory: Path | None, project: str, master: str
) -> list[tuple[TaskArtifact, Path | None]]:
    from fnmatch import fnmatchcase

    async with connected(master, project=project) as client:
        run = await client.get_run(run_id)
        found = [
            each
            for each in await client.artifacts(run.run_id, task_id=task_id)
            if fnmatchcase(each.artifact.path, match)
        ]
        if directory is None:
            return [(each, None) for each in found]
        return [(each, await client.download(each, directory)) for each in found]


def _form(artifact: TaskArtifact, saved: Path | None) -> object:
    return {**json_form(artifact), "saved_as": None if saved is None else str(saved)}
