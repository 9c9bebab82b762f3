"""
Names environments, so that workers know which they may use again.

Both names are SHA-256 digests over everything that makes a difference; what is left out (time limits, retries,
priority) makes none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from fleetest.common.tasks import Task
from fleetest.master.runs.events import RunSubmitted

__all__ = ["environment_key", "requirements_of", "setup_digest"]


def setup_digest(task: Task, inputs: Sequence[tuple[str, str]]) -> str:
    """
    The name of what `setup` makes.

    Args:
        inputs: path and digest of every workspace file that `setup_inputs` names.
    """
    if not task.setup:
        return ""
    return _digest([task.setup, task.image, task.python, sorted(task.env.items()), sorted(inputs)])


def environment_key(run_id: str, request: RunSubmitted, task: Task) -> str:
    """
    The name of an environment in which attempts may follow one another, perhaps in one process.

    A task with secrets shares with no other run.
    """
    return _digest(
        [
            request.project,
            request.workspace_digest,
            task.type,
            task.args,
            task.command,
            task.shell,
            task.image,
            task.executor,
            task.python,
            task.setup_digest,
            sorted(task.env.items()),
            task.working_directory,
            sorted(task.secrets),
            run_id if task.secrets else "",
        ]
    )


def requirements_of(task: Task) -> dict[str, str]:
    """The capabilities that a worker must have, those included that the task only implies."""
    implied = {}
    if task.executor or task.image:
        implied["executor"] = task.executor or "docker"
    return {**implied, **task.requirements}


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()
