"""The command `fleetest shell`, which the worker adds to `fleetest`: it needs a worker's executors."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import click

__all__ = ["shell"]


@click.command()
@click.argument("task_id", metavar="TASK")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.option("--run", "run_id", default="latest", metavar="RUN", help="An id, or its beginning. [default: the latest]")
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="Give it this environment variable.")
@click.option("--project", default="", metavar="NAME", help="Whose latest run is meant. [env: FLEETEST_PROJECT]")
@click.option(
    "--master", default="", metavar="ADDRESS", help="host:port; several parted by commas. [env: FLEETEST_MASTER]"
)
def shell(
    *, task_id: str, command: Sequence[str], run_id: str, secrets: Sequence[str], project: str, master: str
) -> int:
    """
    Open a shell where a task ran: the same files, setup, image and variables, made again on this machine. Nothing of it
    is left when it ends, and nothing of it reaches the run.

    With COMMAND, run that there instead, and exit as it does: fleetest shell unit -- pytest -x tests/test_a.py
    """
    # Read when gRPC is loaded: its own complaints, for its developers, would stand before our one line.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from fleetest.common.errors import InvalidRequest
    from fleetest.common.logging import configure_logging
    from fleetest.common.secrets import read_secrets
    from fleetest.worker.shell.session import ShellRequest, run_shell, until_told_to_end

    configure_logging("shell", level="error")
    if not command and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidRequest(
            "a shell needs a terminal", hint=f"Give a command instead: fleetest shell {task_id} -- COMMAND"
        )
    request = ShellRequest(
        task_id=task_id,
        run_id=run_id,
        command=tuple(command),
        secrets=read_secrets(secrets, os.environ),
        project=project or os.environ.get("FLEETEST_PROJECT", ""),
        master=master,
    )
    return asyncio.run(until_told_to_end(run_shell(request, os.environ)))
