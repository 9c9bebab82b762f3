"""The command that the worker adds to `fleetest`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fleetest.common.errors import FleetestError
from fleetest.common.tether import TETHER_VARIABLE, tether_to_parent

if TYPE_CHECKING:
    from fleetest.worker.settings import WorkerSettings

__all__ = ["worker"]

INFRASTRUCTURE: Final = 3
"""Exit code: not the tests' fault."""


@click.command()
@click.option("--master", "masters", metavar="HOST:PORT", multiple=True, help="Where a master serves; may be repeated.")
@click.option("--id", "worker_id", help="A name of its own among all workers. [default: the host's, and a suffix]")
@click.option("--slots", type=click.IntRange(1, 256), help="Shards at once. [default: by cpu and memory, at most 5]")
@click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, help="A capability to offer; may be repeated.")
@click.option("--directory", type=click.Path(path_type=Path), help="What the worker keeps; one worker each.")
def worker(
    masters: tuple[str, ...], worker_id: str | None, slots: int | None, labels: tuple[str, ...], directory: Path | None
) -> None:
    """
    Run a worker. It takes work from a master until SIGTERM lets it finish what runs, and a second one, or Ctrl-C, ends
    it at once.

    FLEETEST_* variables set what the options do not; docs/operations.md lists them. The token comes from
    FLEETEST_TOKEN.
    """
    from fleetest.common.logging import configure_logging
    from fleetest.common.settings import pairs, read_settings
    from fleetest.common.tuning import loop_factory
    from fleetest.worker.settings import WorkerSettings

    tether_to_parent(os.environ)
    try:
        given = {
            "masters": masters or None,
            "worker_id": worker_id,
            "slots": slots,
            "labels": pairs(",".join(labels)) if labels else None,
            "directory": directory.absolute() if directory else None,
        }
        settings = read_settings(WorkerSettings, os.environ, given)
        configure_logging("worker", level=settings.log_level)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_work(settings))
    except ValueError as error:
        raise click.UsageError(f"--label: {error}") from error
    except FleetestError as error:
        click.echo(f"fleetest: {error}", err=True)
        sys.exit(INFRASTRUCTURE)


def _orphaned(environment: Mapping[str, str]) -> bool:
    """Whether the supervisor that started this worker is gone: then nobody waits for what still runs."""
    supervisor = environment.get(TETHER_VARIABLE)
    return supervisor is not None and supervisor != str(os.getppid())


async def _work(settings: WorkerSettings) -> None:
    from fleetest.common.tuning import settle
    from fleetest.worker.assembly import open_worker

    async with open_worker(settings) as agent:
        settle()

        def on_terminate() -> None:
            if agent.leaving or _orphaned(os.environ):
                agent.stop("worker was told twice to end")
            else:
                agent.drain("worker was told to end")

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, on_terminate)
        loop.add_signal_handler(signal.SIGINT, agent.stop, "worker was interrupted")
        await agent.run()
