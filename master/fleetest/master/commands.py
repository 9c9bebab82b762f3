"""The commands that the master adds to `fleetest`: `up`, `down` and `master`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click

from fleetest.common.cluster_file import ClusterFile, data_directory, is_locked
from fleetest.common.errors import FleetestError

__all__ = ["down", "master", "up"]

INFRASTRUCTURE: Final = 3
"""Exit code: not the tests' fault."""

_DETACHED_LIMIT: Final = timedelta(seconds=40)
_LOOK: Final = timedelta(milliseconds=20)


@click.command()
@click.option("--workers", type=click.IntRange(1, 64), help="Worker processes. [default: 2, or 1 on a single core]")
@click.option("--slots", type=click.IntRange(1, 256), help="Shards that each runs at once. [default: cores/workers]")
@click.option("--port", type=click.IntRange(1, 65535), help="The master's. [default: 50051, or a free one]")
@click.option("--detach", is_flag=True, help="Return when it serves; stop it with `fleetest down`.")
@click.option(
    "--idle-minutes",
    type=click.FloatRange(min=0),
    default=0,
    help="Stop when nobody used it for so long. [default: never]",
)
def up(workers: int | None, slots: int | None, port: int | None, detach: bool, idle_minutes: float) -> None:  # noqa: FBT001
    """Run a whole cluster on this machine: Redis, master and workers."""
    cores = os.cpu_count() or 1
    workers = workers or min(2, cores)
    slots = slots or -(-cores // workers)
    directory = data_directory(os.environ)
    if detach:
        arguments = ["--workers", str(workers), "--slots", str(slots), "--idle-minutes", str(idle_minutes)]
        _report(lambda: _start_detached(directory, [*arguments, *(["--port", str(port)] if port else [])]))
        return
    idle_exit = timedelta(minutes=idle_minutes)
    _report(lambda: _run_until_stopped(_serve_cluster(directory, workers, slots, port or 0, idle_exit)))


@click.command()
def down() -> None:
    """Stop the cluster that `fleetest up` or `fleetest run` started."""
    _report(lambda: _stop(data_directory(os.environ)))


@click.command()
def master() -> None:
    """
    Run a master. It is configured by FLEETEST_* variables; docs/operations.md lists them.
    """
    from fleetest.common.tuning import loop_factory

    _report(lambda: _run_until_stopped(_serve_master(), loop_factory()))


def _report(action: Callable[[], None]) -> None:
    """No traceback reaches a user."""
    try:
        action()
    except FleetestError as error:
        click.echo(f"fleetest: {error}", err=True)
        sys.exit(INFRASTRUCTURE)


def _run_until_stopped(
    main: Coroutine[Any, Any, None], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> None:
    """Run until it ends by itself, or a SIGINT or SIGTERM ends it in order."""

    async def run() -> None:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        with suppress(asyncio.CancelledError):
            await task

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run())


async def _serve_master() -> None:
    from fleetest.common.logging import configure_logging
    from fleetest.common.settings import read_settings
    from fleetest.common.tether import tether_to_parent
    from fleetest.common.tuning import settle
    from fleetest.master.server import Master
    from fleetest.master.settings import MasterSettings

    tether_to_parent(os.environ)
    settings = read_settings(MasterSettings, os.environ)
    configure_logging("master", level=settings.log_level)
    async with Master(settings) as serving:
        settle()
        await serving.run()


async def _serve_cluster(directory: Path, workers: int, slots: int, port: int, idle_exit: timedelta) -> None:
    from fleetest.common.clock import SystemClock
    from fleetest.common.logging import configure_logging
    from fleetest.master.up import Cluster, ClusterShape

    configure_logging("up", level="warning")
    shape = ClusterShape(workers=workers, slots=slots, port=port, idle_exit=idle_exit)
    async with Cluster(directory, shape, os.environ, SystemClock()) as cluster:
        click.echo(f"Fleetest serves on {cluster.address}: {workers} workers with {slots} slots each.", err=True)
        click.echo("Submit with `fleetest run` from any directory; Ctrl-C stops the cluster.", err=True)
        await cluster.wait()


def _start_detached(directory: Path, arguments: list[str]) -> None:
    """
    Raises:
        FleetestError: it did not come up; the end of its log says why.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = directory / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "fleetest.master", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    limit = time.monotonic() + _DETACHED_LIMIT.total_seconds()
    while time.monotonic() < limit:
        cluster = ClusterFile.read(directory)
        if cluster is not None and is_locked(directory):
            click.echo(f"Fleetest serves on {cluster.address}.", err=True)
            return
        if process.poll() is not None and not is_locked(directory):
            raise FleetestError(f"the cluster did not start:\n{_end_of(log)}", hint=f"more may be in {directory}/logs")
        time.sleep(_LOOK.total_seconds())  # no event crosses from a process that is to outlive us
    process.terminate()
    raise FleetestError(f"the cluster did not start in time:\n{_end_of(log)}", hint=f"see {directory}/logs")


def _stop(directory: Path) -> None:
    """Idempotent."""
    cluster = ClusterFile.read(directory)
    if cluster is None or not is_locked(directory):
        click.echo("No cluster runs here.", err=True)
        return
    with suppress(ProcessLookupError):
        os.kill(cluster.pid, signal.SIGTERM)
    limit = time.monotonic() + _DETACHED_LIMIT.total_seconds()
    while is_locked(directory):
        if time.monotonic() > limit:
            raise FleetestError(f"process {cluster.pid} does not stop", hint=f"look at {directory}/logs")
        time.sleep(_LOOK.total_seconds())  # the lock of another process cannot be waited for with a limit
    click.echo("Stopped.", err=True)


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
