"""
Names environments, so that workers know which they may use again.

Both names are SHA-256 digests over everything that makes a difference; what is left out (time limits, retries,
priority) makes none.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from fleetest.common.tasks import RunnerType, Task
from fleetest.common.workspace import Workspace, WorkspaceFile
from fleetest.master.runs.events import RunSubmitted, Supplied

__all__ = ["SetupInputs", "environment_key", "requirements_of", "setup_digest", "supplied_task", "supply"]


class SetupInputs:
    """The files of a workspace that decide what `setup` makes; many tasks name the same ones."""

    def __init__(self, files: Sequence[WorkspaceFile]) -> None:
        self._files = files
        self._digests: dict[tuple[str, ...], str] = {}

    def digest(self, globs: tuple[str, ...]) -> str:
        """Of the paths and contents of the files that a glob matches (`*` matches `/`, too); without any, of all."""
        if globs not in self._digests:
            matches = [re.compile(fnmatch.translate(glob)).match for glob in globs]
            named = [file for file in self._files if not globs or any(match(file.path) for match in matches)]
            self._digests[globs] = _digest(sorted((file.path, file.digest or file.symlink_target) for file in named))
        return self._digests[globs]


def setup_digest(task: Task, inputs: SetupInputs) -> str:
    """The name of what `setup` makes; empty without setup."""
    if not task.setup:
        return ""
    inputs_digest = inputs.digest(task.setup_inputs)
    return _digest([task.setup, task.image, task.python, sorted(task.env.items()), inputs_digest])


def supply(task: Task, workspace: Workspace, taken: Sequence[WorkspaceFile]) -> Supplied:
    """
    What follows for a task from the artifacts of others that are put into its workspace.

    Any of its tests may read what was taken, so results that are cached depend on all of it.

    Args:
        workspace: with `taken` in it.
    """
    inputs, cache = SetupInputs(workspace.files), task.cache
    # What sessions have measured is nothing to set up anew for: it is reported where it was measured.
    combines = task.runner is RunnerType.COVERAGE
    declared = inputs.digest(cache.inputs) if cache is not None and cache.inputs else ""
    return Supplied(
        workspace_digest=workspace.digest,
        setup_digest=task.setup_digest if combines else setup_digest(task, inputs),
        inputs_digest="" if cache is None else _digest([declared, sorted((file.path, file.digest) for file in taken)]),
    )


def supplied_task(task: Task, supplied: Supplied) -> Task:
    """The task as it is run."""
    cache = None if task.cache is None else replace(task.cache, inputs_digest=supplied.inputs_digest)
    return replace(task, workspace_digest=supplied.workspace_digest, setup_digest=supplied.setup_digest, cache=cache)


def environment_key(run_id: str, request: RunSubmitted, task: Task) -> str:
    """
    The name of an environment in which attempts may follow one another, perhaps in one process.

    A task with secrets shares with no other run; nor does one in a container that is in its run's network.
    """
    is_of_its_run = task.secret_variables or (task.image and (task.service is not None or task.served_by))
    return _digest(
        [
            request.project,
            task.workspace_digest or request.workspace_digest,
            task.runner,
            task.args,
            task.command,
            task.shell,
            task.image,
            (task.network, task.resources) if task.image else None,  # a container has them for its whole life
            task.executor,
            task.python,
            task.setup_digest,
            sorted(task.env.items()),
            task.working_directory,
            sorted(task.secret_variables.items()),
            run_id if is_of_its_run else "",
            *([task.coverage] if task.coverage is not None else []),
        ]
    )


def requirements_of(task: Task) -> dict[str, str]:
    """
    The capabilities that a worker must have, those included that the task only implies.

    A worker offers each executor it has as `executor.NAME`, since it may have several.
    """
    implied = {f"executor.{task.executor or 'docker'}": "true"} if task.executor or task.image else {}
    return {**implied, **task.requirements}


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()
