"""`fleetest import`: reports that were made elsewhere, from their files to a run and its exit code."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetest.client.cli.connecting import (
    any_cluster,
    connected,
    invocation,
    master_option,
    project_option,
    running,
    say,
)
from fleetest.client.cli.following_options import FollowingOptions, following_options, present_user
from fleetest.client.cli.label import Label

if TYPE_CHECKING:
    from fleetest.client.imports import ReportSource
    from fleetest.common.reports import ReadOptions, ReportFormat

__all__ = ["import_reports"]

_FORMATS = ("junit", "ctrf", "robot", "k6", "k6-stream", "zap", "sarif")
_RISKS = ("info", "low", "medium", "high")


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", default="import", show_default=True, metavar="NAME", help="What the run is called.")
@click.option("--format", "form", type=click.Choice(_FORMATS), help="Of all files; else it is found out.")
@click.option(
    "--fail-level",
    type=click.Choice(_RISKS),
    default="medium",
    show_default=True,
    help="Findings of this risk on are failures.",
)
@click.option("--label", "labels", multiple=True, type=Label(), metavar="KEY=VALUE", help="A word to find it by.")
@click.option("--idempotency-key", default="", metavar="KEY", help="Importing again with it finds the same run.")
@click.option("-d", "--detach", is_flag=True, help="Print the run's id alone.")
@project_option
@master_option
@following_options
def import_reports(
    *,
    files: Sequence[Path],
    form: str | None,
    fail_level: str,
    project: str,
    master: str,
    following: FollowingOptions,
    **options: Any,
) -> int:
    """
    Make a run of reports that were made elsewhere.

    Each of FILES becomes a task: JUnit XML, CTRF, Robot Framework's output.xml, k6's summary or samples, ZAP's report
    or SARIF. What it holds decides the exit code, as the tests of a run do.
    """
    from fleetest.client.cli.finding import default_project
    from fleetest.common.reports import ReadOptions, ReportFormat, Risk

    following.check()
    root = Path.cwd()
    read = ReadOptions(fail_level=Risk(fail_level), root=str(root))
    sources = _sources(files, ReportFormat(form) if form else None, read)
    wanted = {
        **options,
        "labels": dict(options["labels"]),
        "project": project or invocation().settings.project or default_project(root),
    }
    return running(_import(sources, wanted, root, master, following))


async def _import(
    sources: Sequence[ReportSource], wanted: dict[str, Any], root: Path, master: str, following: FollowingOptions
) -> int:
    from fleetest.common.version_control import version_control

    detach = wanted.pop("detach")
    environment = invocation().environment
    async with connected(master, embedded=any_cluster) as client:
        tested = await asyncio.to_thread(version_control, root, environment)
        imported = await client.import_run(sources, version_control=tested, user=present_user(), **wanted)
        if imported.already_submitted:
            say("this was imported before; showing that run")
        if detach:
            click.echo(imported.run_id)
            return 0
        return await following.follow(client, imported.run_id, environment)


def _sources(files: Sequence[Path], form: ReportFormat | None, options: ReadOptions) -> list[ReportSource]:
    from fleetest.client.imports import ReportSource
    from fleetest.common.reports import read_report_file

    return [
        ReportSource(
            task_id=name,
            source=str(path),
            read=partial(read_report_file, path, name=str(path), form=form, options=options),
        )
        for name, path in zip(_names(files), files, strict=True)
    ]


def _names(files: Sequence[Path]) -> list[str]:
    """Of the tasks: the files' own names, with as much of their folders as tells equal ones apart, or else a number."""
    parts = [path.resolve().parts[1:] for path in files]
    names = [_fit("/".join(each[-_telling(each, parts) :])) for each in parts]
    taken: Counter[str] = Counter()
    for place, name in enumerate(names):
        taken[name] += 1
        if taken[name] > 1:
            names[place] = f"{name} {taken[name]}"
    return names


def _telling(one: Sequence[str], all_parts: Sequence[Sequence[str]]) -> int:
    """How many of the last parts of a path tell it from the other paths."""
    namesakes = [other for other in all_parts if other != one and other[-1] == one[-1]]
    lengths = range(1, len(one) + 1)
    return next((n for n in lengths if all(other[-n:] != one[-n:] for other in namesakes)), len(one))


def _fit(name: str) -> str:
    """As the name of a task may be."""
    return "".join(sign if sign.isprintable() and sign != "#" else "_" for sign in name)[-200:]
