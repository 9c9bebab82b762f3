"""`fleetest logs`: what a task's processes wrote."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable

import click

from fleetest.client.cli.connecting import connected, master_option, project_option, running, say
from fleetest.client.cli.run_ids import run_argument
from fleetest.client.values import Run
from fleetest.client.view.harmless import harmless
from fleetest.common.errors import InvalidRequest

__all__ = ["logs"]


@click.command()
@run_argument
@click.argument("task_id", metavar="[TASK]", default="")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.option("--shard", "shard_id", default="", metavar="ID", help="Only this shard, as in unit#3.")
@project_option
@master_option
def logs(*, run_id: str, task_id: str, follow: bool, shard_id: str, project: str, master: str) -> None:
    """
    Print what a task's processes wrote, as they wrote it; control characters are made visible on a terminal.

    RUN is an id, the beginning of one, or `latest`. TASK may be left out when the run has only one.
    """
    running(_print(run_id, task_id, follow=follow, shard_id=shard_id, project=project, master=master))


async def _print(run_id: str, task_id: str, *, follow: bool, shard_id: str, project: str, master: str) -> None:
    async with connected(master, project=project) as client:
        run = await client.get_run(run_id)
        task = task_id or _only_task(run)
        writers: dict[str, Callable[[bytes], None]] = {}
        async for chunk in client.logs(run.run_id, task, shard_id=shard_id, follow=follow):
            writers.setdefault(chunk.shard_id, _writer())(chunk.content)
            if chunk.truncated:
                say(f"\n[the rest of what {chunk.shard_id} wrote was dropped]")


def _only_task(run: Run) -> str:
    if len(run.tasks) == 1:
        return run.tasks[0].task_id
    names = ", ".join(task.task_id for task in run.tasks)
    raise InvalidRequest(f"the run has {len(run.tasks)} tasks", hint=f"Name one of them: {names}")


def _writer() -> Callable[[bytes], None]:
    """Writes one shard's output. For a terminal a character that two chunks share is put together first."""
    if not sys.stdout.isatty():

        def write(content: bytes) -> None:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()

        return write
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def show(content: bytes) -> None:
        click.echo(harmless(decoder.decode(content)), nl=False)

    return show
