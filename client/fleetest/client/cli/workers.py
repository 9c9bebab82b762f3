"""`fleetest workers` and `fleetest drain`: who works here, and how to let one go."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from fleetest.client.cli.connecting import connected, master_option, running, say
from fleetest.client.cli.output import output_option, print_json, print_table
from fleetest.client.values import Worker
from fleetest.client.view.harmless import one_line
from fleetest.client.view.words import ago, size_text, state_style

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["drain", "workers"]


@click.command()
@click.option("--offline", "include_offline", is_flag=True, help="Also those that are gone.")
@click.option("-c", "--capabilities", "with_capabilities", is_flag=True, help="With what each can do.")
@master_option
@output_option
def workers(*, include_offline: bool, with_capabilities: bool, master: str, output: str) -> None:
    """List the cluster's workers: what they do, what they have, and what they use."""
    found = running(_workers(master, include_offline=include_offline))
    if output == "json":
        print_json(found)
        return
    now = datetime.now(UTC)
    print_table(
        ("worker", "state", "slots", "speed", "cpu", "memory", "host", "seen"),
        (_row(each, now) for each in found),
        prose=("state",),
        cut=("host",),
        empty="no workers; start one with: fleetest worker",
    )
    if with_capabilities:
        for each in found:
            click.echo(f"\n{one_line(each.worker_id)}: {_capabilities(each)}")


@click.command()
@click.argument("worker_id", metavar="WORKER")
@click.option("--reason", default="", metavar="TEXT", help="Told to the worker.")
@master_option
def drain(*, worker_id: str, reason: str, master: str) -> None:
    """Let a worker finish what it runs, and give it nothing more."""
    running(_drain(worker_id, reason, master))
    say(f"{worker_id} finishes what it runs, and takes no more")


async def _workers(master: str, *, include_offline: bool) -> list[Worker]:
    async with connected(master) as client:
        return await client.workers(include_offline=include_offline)


async def _drain(worker_id: str, reason: str, master: str) -> None:
    async with connected(master) as client:
        await client.drain(worker_id, reason=reason)


def _row(worker: Worker, now: datetime) -> tuple[str | Text, ...]:
    from rich.text import Text

    used = worker.host
    state = worker.state.value if worker.ready else f"{worker.state.value}, not ready: {worker.not_ready_reason}"
    style = state_style(worker.state) if worker.ready else "yellow"
    cores = f"{worker.capacity.cpu_millis / 1000:g}"
    memory = size_text(worker.capacity.memory_bytes)
    return (
        one_line(worker.worker_id),
        Text(one_line(state), style),
        f"{worker.slots_used}/{worker.slots}",
        f"{worker.speed:.2g}" if worker.speed is not None else "",
        f"{used.cpu_cores:.1f}/{cores}" if used else cores,
        f"{size_text(used.memory_bytes)}/{memory}" if used else memory,
        one_line(worker.hostname),
        ago(worker.last_seen_at, now),
    )


def _capabilities(worker: Worker) -> str:
    return one_line(" ".join(f"{key}={value}" for key, value in sorted(worker.capabilities.items())), limit=1000)
