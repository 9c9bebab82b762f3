"""`fleetest run`: a suite from its file, or from a command line, to its exit code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fleetest.client.cli.connecting import (
    any_cluster,
    connected,
    find_cluster,
    invocation,
    master_option,
    project_option,
    running,
    say,
)
from fleetest.client.cli.following_options import FollowingOptions, following_options, present_user
from fleetest.client.cli.label import Label

if TYPE_CHECKING:
    from fleetest.client.async_client import AsyncClient
    from fleetest.client.cli.finding import SuiteText
    from fleetest.client.scan import Scan
    from fleetest.client.submission import Submission
    from fleetest.common.suite import Suite

__all__ = ["run"]

_COMMAND: Final = "fleetest.command"


class _WithCommand(click.Command):
    """Takes what follows `--` as a command line of its own, options and all."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        command: list[str] = []
        if "--" in args:
            at = args.index("--")
            args, command = args[:at], args[at + 1 :]
        ctx.meta[_COMMAND] = command
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


@click.command(cls=_WithCommand)
@click.argument("suite_file", metavar="[SUITE_FILE]", required=False, type=click.Path(path_type=Path))
@click.option("-f", "--file", "named_file", type=click.Path(path_type=Path), help="The suite file.", metavar="FILE")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task and what it needs; repeatable.")
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="Give tasks this environment variable.")
@click.option("--label", "labels", multiple=True, type=Label(), metavar="KEY=VALUE", help="A word to find it by.")
@click.option("--env", "environment", default="", metavar="NAME", help="Which of the suite's environments to run in.")
@click.option(
    "--set",
    "environment_settings",
    multiple=True,
    type=Label(),
    metavar="KEY=VALUE",
    help="What is other in that environment, as in services.shop.url=http://localhost:8000.",
)
@click.option("--executor", type=click.Choice(["process", "docker"]), help="How every task is run.")
@click.option("--fail-fast", is_flag=True, help="The first failure cancels the rest.")
@click.option("--supersede", is_flag=True, help="Cancel older runs of this suite and branch.")
@click.option("--idempotency-key", default="", metavar="KEY", help="Submitting again with it finds the same run.")
@click.option("-d", "--detach", is_flag=True, help="Print the run's id, and do not wait.")
@click.option("--dry-run", is_flag=True, help="Check the suite and print its tasks; submit nothing.")
@project_option
@master_option
@following_options
def run(
    *,
    suite_file: Path | None,
    named_file: Path | None,
    tasks: Sequence[str],
    secrets: Sequence[str],
    project: str,
    master: str,
    dry_run: bool,
    following: FollowingOptions,
    **options: Any,
) -> int:
    """
    Run a suite on the cluster and follow it.

    The suite is SUITE_FILE, or else fleetest.yaml of this directory, or else what COMMAND says; with neither, pytest.
    Ctrl-C asks whether to cancel the run or to leave it.
    """
    from fleetest.client.cli.finding import default_project, find_suite
    from fleetest.client.cli.known_suites import KnownSuites, installed_rules
    from fleetest.common.secrets import read_secrets

    environment = invocation().environment
    if suite_file is not None and named_file is not None:
        raise click.UsageError("The suite file is given twice, as an argument and with --file.")
    command = click.get_current_context().meta[_COMMAND]
    found = find_suite(suite_file or named_file, command, directory=Path.cwd(), environment=environment)
    if found.inferred:
        say(f"no suite file; running this:\n{_indented(found.text)}")
    values = read_secrets(secrets, environment)
    known = KnownSuites(invocation().settings.cache, rules=installed_rules())
    text, suite_project = found.text, known.project(found.text)
    if suite_project is None or tasks or dry_run:
        text, suite = _read(found, tasks, options["environment"], dict(options["environment_settings"]))
        if dry_run:
            _print_tasks(suite, following.output)
            return 0
        suite_project = suite.project
        known.add(found.text, project=suite_project)
    following.check()
    wanted = {
        "secrets": values,
        "project": project or invocation().settings.project or suite_project or default_project(found.root),
        **options,
    }
    return running(_run(found, text, wanted, master, following))


def _read(found: SuiteText, tasks: Sequence[str], environment: str, settings: Mapping[str, str]) -> tuple[str, Suite]:
    """The suite, or the chosen part of it."""
    from fleetest.client.cli.selecting import select_tasks
    from fleetest.common.suite import load_suite

    load = partial(load_suite, source=found.source, environment=environment, settings=settings)
    suite = load(found.text)
    if not tasks:
        return found.text, suite
    text = select_tasks(found.text, suite, tasks)
    return text, load(text)


async def _run(found: SuiteText, text: str, wanted: dict[str, Any], master: str, following: FollowingOptions) -> int:
    detach = wanted.pop("detach")
    wanted["followed"] = not detach
    wanted["labels"] = dict(wanted["labels"])
    wanted["environment_settings"] = dict(wanted["environment_settings"])
    wanted["executor"] = wanted["executor"] or ""
    environment = invocation().environment
    from fleetest.common.version_control import version_control

    place = await find_cluster(master, embedded=any_cluster)
    # Git looks at the same files, and has a processor of its own to do it on; meanwhile the client is loaded.
    looking = asyncio.create_task(asyncio.to_thread(version_control, found.root, environment))
    scanning = asyncio.create_task(_scanned(found.root))
    try:
        await asyncio.sleep(0)  # they begin
        async with connected(place) as client:
            scan = await scanning
            wanted |= {"source": found.source, "version_control": await looking, "user": present_user()}
            submission = await _submitted(client, text, scan, found.root, wanted)
            if submission.already_submitted:
                say("this was submitted before; following that run")
            for run_id in submission.superseded_run_ids:
                say(f"run {run_id} is being cancelled in favour of this one")
            if detach:
                click.echo(submission.run_id)
                return 0
            return await following.follow(client, submission.run_id, environment)
    finally:
        for task in (looking, scanning):
            task.cancel()
        await asyncio.gather(looking, scanning, return_exceptions=True)


async def _scanned(root: Path) -> Scan:
    from fleetest.client.cli.upload_progress import UploadProgress
    from fleetest.client.scan import scan_tree

    cache = invocation().settings.cache
    with UploadProgress(sys.stderr) as progress:
        progress.announce("looking for changed files")
        return await asyncio.to_thread(lambda: scan_tree(root, cache_directory=cache))


async def _submitted(client: AsyncClient, text: str, scan: Scan, root: Path, wanted: Mapping[str, Any]) -> Submission:
    """Hand the suite in, after its files: where nothing has changed, the master has been given them before."""
    from fleetest.common.errors import WrongState

    if scan.as_remembered:
        with suppress(WrongState):  # it is another master, or has given them up
            submission = await client.submit(text, workspace_digest=scan.digest, **wanted)
            _say_sent(scan, 0, 0)
            return submission
    await _upload(client, scan, root)
    return await client.submit(text, workspace_digest=scan.digest, **wanted)


async def _upload(client: AsyncClient, scan: Scan, root: Path) -> None:
    from fleetest.client.cli.upload_progress import UploadProgress

    workspace = await asyncio.to_thread(scan.workspace)
    with UploadProgress(sys.stderr) as progress:
        report = await client.upload(workspace, root, progress=progress.show)
    _say_sent(scan, report.sent_files, report.sent_bytes)


def _say_sent(scan: Scan, files: int, size_bytes: int) -> None:
    from fleetest.client.cli.upload_progress import sent_text
    from fleetest.client.view.words import plural

    say(f"{plural(scan.count, 'file')}, {sent_text(files, size_bytes)}")


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines()).rstrip()


def _print_tasks(suite: Suite, output: str) -> None:
    from fleetest.client.cli.output import print_json, print_table
    from fleetest.client.view.harmless import one_line

    if output == "json":
        print_json({"name": suite.name, "project": suite.project, "tasks": suite.tasks})
        return
    print_table(
        ("task", "type", "needs", "runs"),
        (
            (
                one_line(task.name),
                task.type,
                one_line(", ".join(need.task for need in task.needs)),
                one_line(task.shell or " ".join(task.command or ("pytest", *task.args)), limit=60),
            )
            for task in suite.tasks
        ),
        prose=("needs",),
        cut=("runs",),
        empty="no tasks",
    )
