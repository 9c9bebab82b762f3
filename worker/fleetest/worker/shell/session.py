"""One shell, from its request to its exit code."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import click

from fleetest.common.cluster_file import data_directory
from fleetest.common.errors import InvalidRequest
from fleetest.common.settings import read_settings, words
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.executors.process import REUSED_NOTE
from fleetest.worker.ports import Environment
from fleetest.worker.settings import WorkerSettings
from fleetest.worker.shell.opening import hold_directory, open_environment
from fleetest.worker.shell.origin import Door, TaskOrigin, fetch_task, find_door

__all__ = ["ShellRequest", "run_shell", "until_told_to_end"]

_SIGNAL_ENDED: Final = 128
_SHORT_ID: Final = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellRequest:
    """
    Args:
        run_id: the beginning of one will do, and so will `latest`.
        command: what to run there; a shell when there is none.
        master: addresses, parted by commas; empty means as the environment says.
    """

    task_id: str
    run_id: str
    command: tuple[str, ...]
    secrets: Mapping[str, str] = field(repr=False)
    project: str
    master: str


async def run_shell(request: ShellRequest, environment: Mapping[str, str]) -> int:
    """
    Make the task's environment, be in it until the shell or the command ends, and take it away; answers the exit code.

    Raises:
        NotFound: no such run or task, or its files are gone.
        InvalidRequest: a secret is missing, the command does not exist, `setup` failed.
        DependencyUnavailable: the master does not answer, or this machine lacks what the task needs.
    """
    data = data_directory(environment)
    settings = read_settings(WorkerSettings, environment, {"directory": data / "shell"})
    door = find_door(_named_door(request.master or environment.get("FLEETEST_MASTER", ""), settings), data)
    origin = await fetch_task(door, request.run_id, request.task_id, project=request.project)
    _check_secrets(origin.spec, request.secrets)
    with hold_directory(settings.directory) as directory:
        own = replace(settings, directory=directory, executors=(origin.spec.executor_name,))
        opened = open_environment(origin, door, own, secrets=request.secrets, output=_show)
        async with opened as place:
            click.echo(_announcement(origin, place), err=True)
            return await place.attach(
                request.command or place.shell,
                env=_variables(origin),
                cwd=place.source / origin.spec.working_directory,
            )


async def until_told_to_end(work: Coroutine[Any, Any, int]) -> int:
    """Run it, and end it in order when SIGTERM or SIGHUP says so; answers its exit code."""
    task = asyncio.ensure_future(work)
    told: list[int] = []

    def end(number: int) -> None:
        told.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not told:
            raise
        return _SIGNAL_ENDED + told[0]


def _named_door(masters: str, settings: WorkerSettings) -> Door | None:
    addresses = words(masters)
    return Door(addresses=addresses, token=settings.token, tls=settings.tls) if addresses else None


def _check_secrets(spec: TaskSpec, given: Mapping[str, str]) -> None:
    missing = [name for name in spec.secret_names if name not in given]
    if missing:
        options = " ".join(f"--secret {name}" for name in missing)
        raise InvalidRequest(
            f"the task {spec.task_id} needs secrets that were not given: {', '.join(missing)}", hint=f"Add {options}."
        )


def _variables(origin: TaskOrigin) -> dict[str, str]:
    """What runners add; a command is all of its shards here."""
    return {
        "FLEETEST_RUN_ID": origin.run_id,
        "FLEETEST_TASK": origin.spec.task_id,
        "FLEETEST_SHARD_INDEX": "0",
        "FLEETEST_SHARD_TOTAL": "1",
    }


def _announcement(origin: TaskOrigin, place: Environment) -> str:
    """One line: where this is, and in what it differs from the run."""
    task, run = origin.spec.task_id, origin.run_id[:_SHORT_ID]
    notes = "".join(f"; {note}" for note in place.notes if note == REUSED_NOTE)
    return f"{task} of run {run} ({origin.state}), {place.where}{notes}; no time limits; gone when this ends"


def _show(content: bytes) -> None:
    """What setup writes; standard output is the command's."""
    sys.stderr.buffer.write(content)
    sys.stderr.buffer.flush()
