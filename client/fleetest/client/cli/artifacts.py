"""`fleetest artifacts`: the files that tasks left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fleetest.client.cli.connecting import connected, master_option, project_option, running, say
from fleetest.client.cli.output import json_form, output_option, print_json, print_table
from fleetest.client.values import Run, TaskArtifact
from fleetest.client.view.harmless import one_line
from fleetest.client.view.words import ahead, plural, short_id, size_text
from fleetest.common.errors import WrongState

if TYPE_CHECKING:
    from fleetest.client.async_client import AsyncClient

__all__ = ["artifacts"]

_MOST_RUNS: Final = 10_000
_LONGEST_AGE: Final = timedelta(days=36_500)
_URL_TTL: Final = "1h"
_OWN_URL_TTL: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """
    Which artifacts are meant.

    Args:
        older_than: only of runs that were submitted longer ago; `None`: of any.
        several: of every run of the project, not of `run_id`.
    """

    run_id: str
    task_id: str
    match: str
    older_than: timedelta | None
    several: bool


@click.command()
@click.argument("run_id", metavar="[RUN]", default="")
@click.argument("task_argument", metavar="[TASK]", default="")
@click.argument("glob_argument", metavar="[GLOB]", default="")
@click.option("--task", "task_id", default="", metavar="NAME", help="Only this task's.")
@click.option("--match", default="", metavar="GLOB", help="Only paths like this.")
@click.option("--all-runs", is_flag=True, help="Of all the project's runs, not of one.")
@click.option("--older-than", metavar="AGE", help="Of all the project's runs that are older: 12h, 30d.")
@click.option(
    "--download",
    "--save",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="Save them there, as TASK/PATH; of several runs, as RUN/TASK/PATH.",
)
@click.option(
    "--url",
    "url_ttl",
    is_flag=False,
    flag_value=_URL_TTL,
    metavar="[DURATION]",
    help=f"Show URLs by which anybody can read them for so long, where the blob store has them. [default: {_URL_TTL}]",
)
@click.option("--delete", is_flag=True, help="Delete them.")
@click.option("-y", "--yes", is_flag=True, help="Delete those of several runs without being asked.")
@project_option
@master_option
@output_option
def artifacts(
    *,
    run_id: str,
    task_argument: str,
    glob_argument: str,
    task_id: str,
    match: str,
    all_runs: bool,
    older_than: str | None,
    directory: Path | None,
    url_ttl: str | None,
    delete: bool,
    yes: bool,
    project: str,
    master: str,
    output: str,
) -> None:
    """
    List the files that tasks left behind; save or delete them.

    RUN is an id or the beginning of one; without it, the latest run.
    """
    choice = _Choice(
        run_id=run_id or "latest",
        task_id=task_argument or task_id,
        match=glob_argument or match or "*",
        older_than=None if older_than is None else _duration(older_than),
        several=all_runs or older_than is not None,
    )
    if choice.several and run_id:
        raise click.UsageError("name a run, or say --all-runs or --older-than: not both")
    if delete and (directory is not None or url_ttl is not None):
        raise click.UsageError("what is deleted cannot be saved or shown by URL: leave out one of them")
    if delete:
        running(_delete(choice, project, master, sure=yes or not choice.several, output=output))
        return
    found = running(_artifacts(choice, directory, None if url_ttl is None else _duration(url_ttl), project, master))
    if output == "json":
        print_json([_form(each, saved) for each, saved in found])
    elif url_ttl is not None:
        _print_urls([each for each, _ in found])
    else:
        _print([each for each, _ in found], with_runs=choice.several)
        if directory is not None:
            say(f"{plural(len(found), 'file')} saved below {directory}")


async def _artifacts(
    choice: _Choice, directory: Path | None, url_ttl: timedelta | None, project: str, master: str
) -> list[tuple[TaskArtifact, Path | None]]:
    async with connected(master, project=project) as client:
        wanted_ttl = url_ttl or (None if directory is None else _OWN_URL_TTL)
        found = await _find(client, choice, wanted_ttl)
        if directory is None:
            return [(each, None) for each in found]
        return [
            (
                each if url_ttl else replace(each, url=""),
                await client.download(each, directory / each.run_id if choice.several else directory),
            )
            for each in found
        ]


async def _delete(choice: _Choice, project: str, master: str, *, sure: bool, output: str) -> None:
    async with connected(master, project=project) as client:
        found = await _find(client, choice)
        size = size_text(sum(each.artifact.size_bytes for each in found))
        runs = plural(len({each.run_id for each in found}), "run")
        if found and not sure:
            click.confirm(f"Delete {plural(len(found), 'file')} ({size}) of {runs}?", abort=True, err=True)
        deleted = await client.delete_artifacts(found)
    if output == "json":
        print_json({"deleted": deleted, "artifacts": [json_form(each) for each in found]})
    else:
        say(f"{plural(deleted, 'file')} of {runs} deleted" if found else "no artifacts")


async def _find(client: AsyncClient, choice: _Choice, url_ttl: timedelta | None = None) -> list[TaskArtifact]:
    runs: Sequence[Run] = (
        await client.list_runs(limit=_MOST_RUNS) if choice.several else [await client.get_run(choice.run_id)]
    )
    if choice.older_than is not None:
        newest = datetime.now(UTC) - choice.older_than
        runs = [run for run in runs if run.submitted_at < newest]
    return [
        each
        for run in runs
        for each in await client.artifacts(run.run_id, task_id=choice.task_id, url_ttl=url_ttl)
        if fnmatchcase(each.artifact.path, choice.match)
    ]


def _print(found: Sequence[TaskArtifact], *, with_runs: bool) -> None:
    now = datetime.now(UTC)
    print_table(
        (*(("run",) if with_runs else ()), "task", "path", "size", "type", "expires"),
        (
            (
                *((short_id(each.run_id),) if with_runs else ()),
                one_line(each.task_id),
                one_line(each.artifact.path),
                size_text(each.artifact.size_bytes),
                one_line(each.artifact.media_type),
                "" if each.artifact.expires_at is None else ahead(each.artifact.expires_at, now),
            )
            for each in found
        ),
        empty="no artifacts",
    )


def _print_urls(found: Sequence[TaskArtifact]) -> None:
    if any(not each.url for each in found):
        raise WrongState(
            "the master's blob store gives no URLs: it is a directory, or the master's credentials cannot sign",
            hint="Save the files instead: fleetest artifacts --download DIRECTORY",
        )
    print_table(("path", "url"), ((one_line(each.artifact.path), each.url) for each in found), empty="no artifacts")


def _duration(text: str) -> timedelta:
    from fleetest.common.suite.durations import parse_duration

    return parse_duration(text, longest=_LONGEST_AGE)


def _form(artifact: TaskArtifact, saved: Path | None) -> object:
    return {**json_form(artifact), "saved_as": None if saved is None else str(saved)}
