"""`fleetest explain`: why a task is not running."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from fleetest.client.cli.connecting import connected, master_option, project_option, running
from fleetest.client.cli.output import output_option, print_json, print_lines
from fleetest.client.cli.run_ids import optional_run_argument
from fleetest.client.values import Reason, TaskExplanation
from fleetest.client.view.harmless import one_line
from fleetest.client.view.words import state_style

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["explain"]


@click.command()
@optional_run_argument
@click.argument("task_id", metavar="[TASK]", default="")
@project_option
@master_option
@output_option
def explain(*, run_id: str, task_id: str, project: str, master: str, output: str) -> None:
    """
    Say why a task is not running: what it needs, and how many workers lack it; its place in the queue.

    RUN is an id or the beginning of one; without it, the latest run. Without TASK, every task that has not ended.
    """
    explanations = running(_explain(run_id, task_id, project, master))
    if output == "json":
        print_json(explanations)
    elif explanations:
        print_lines(line for each in explanations for line in _lines(each))
    else:
        click.echo("every task has ended")


async def _explain(run_id: str, task_id: str, project: str, master: str) -> list[TaskExplanation]:
    async with connected(master, project=project) as client:
        run = await client.get_run(run_id)
        return await client.explain(run.run_id, task_id=task_id)


def _lines(explanation: TaskExplanation) -> Iterator[Text]:
    from rich.text import Text

    yield Text.assemble(
        (one_line(explanation.task_id), "bold"), "  ", (explanation.state.value, state_style(explanation.state))
    )
    yield from (Text(f"  - {_sentence(reason)}") for reason in explanation.reasons)


def _sentence(reason: Reason) -> str:
    if reason.message:
        return one_line(reason.message)
    workers = f" ({reason.workers} of {reason.workers_total} workers)" if reason.workers_total else ""
    return one_line(f"{reason.kind.value.replace('_', ' ')} {reason.constraint}".strip()) + workers
