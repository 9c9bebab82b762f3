"""The `fleetest` command itself, and where its commands are."""

from __future__ import annotations

from typing import Final

import click

from fleetest.client.cli.group import Elsewhere, LazyGroup

__all__ = ["COMMANDS", "cli"]


def _own(name: str, summary: str, *, module: str = "") -> Elsewhere:
    return Elsewhere(f"fleetest.client.cli.{module or name}", name, summary)


COMMANDS: Final = {
    "run": _own("run", "Run a suite on the cluster and follow it."),
    "import": Elsewhere(
        "fleetest.client.cli.importing", "import_reports", "Make a run of reports that were made elsewhere."
    ),
    "watch": _own("watch", "Follow a run."),
    "ls": _own("ls", "List runs, newest first."),
    "show": _own("show", "Show a run: its tasks, and what failed."),
    "logs": _own("logs", "Print what a task's processes wrote."),
    "cancel": _own("cancel", "Stop a run, or one task of it."),
    "retry": _own("retry", "Run again what did not pass."),
    "explain": _own("explain", "Say why a task is not running."),
    "artifacts": _own("artifacts", "List or save the files that tasks left behind."),
    "cache": _own("cache", "Have cached results forgotten."),
    "workers": _own("workers", "List the cluster's workers."),
    "drain": _own("drain", "Let a worker finish, and give it nothing more.", module="workers"),
    "token": _own("token", "Create, list and revoke tokens.", module="tokens"),
    "health": _own("health", "Ask whether a master serves."),
    "init": _own("init", "Write a suite to start with, from an OpenAPI document."),
    "schema": _own("schema", "Print the JSON Schema of suite files."),
    "version": _own("version", "Print versions, of this client and of the master."),
    "completion": _own("completion", "Print a shell's completion script."),
}

_EXTENSIONS: Final = {
    "up": "Start a cluster on this machine.",
    "down": "Stop the cluster on this machine.",
    "master": "Serve as a master.",
    "worker": "Serve as a worker.",
    "shell": "Open a shell where a task ran.",
}


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    extension_group="fleetest.commands",
    extension_summaries=_EXTENSIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 passed, 1 tests failed, 2 usage, 3 infrastructure.",
)
def cli() -> None:
    """
    Run test suites on a cluster.

    `fleetest run` in a project does the whole: it finds or infers the suite, starts a cluster on this machine unless
    FLEETEST_MASTER names one, and shows the run.
    """
