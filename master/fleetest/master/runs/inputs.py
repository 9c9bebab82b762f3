"""
What a task takes of the artifacts of others: which files these are, and where they go in its workspace.

They are what `fleetest artifacts` lists of the tasks that left them: of each shard the last file at each path,
whichever attempt left it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from fleetest.common.errors import WrongState
from fleetest.common.globs import glob_means
from fleetest.common.limits import MAX_INPUTS_BYTES
from fleetest.common.results import Artifact
from fleetest.common.states import TaskState
from fleetest.common.tasks import Input, RunnerType
from fleetest.common.workspace import WorkspaceFile
from fleetest.master.blobs.custody import artifact_name
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import TaskStatus

__all__ = ["InputsMissing", "taken_files"]

_NAMED: Final = 3
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class InputsMissing(WrongState):
    """What a task takes of others is not there, or cannot be where it is to go. Says why in one line."""


def taken_files(
    status: RunStatus, inputs: Sequence[Input], kept: Container[tuple[str, str]]
) -> tuple[WorkspaceFile, ...]:
    """
    The files that these inputs put into a workspace, each path once.

    Args:
        status: of the run in which the tasks that left them have ended.
        kept: the name in its run, and the digest, of each artifact that has neither expired nor been deleted.

    Raises:
        InputsMissing: some cannot be had.
    """
    taken: dict[str, _Left] = {}
    for wanted in inputs:
        task = status.tasks[wanted.task]
        for left in _chosen(task, wanted):
            artifact = left.artifact
            if (
                artifact.created_at is not None
                and (artifact_name(left.shard_id, artifact.path), artifact.digest) not in kept
            ):
                raise InputsMissing(
                    f"{wanted.task} left {artifact.path}, which is kept no longer: it expired, or was deleted"
                )
            path = f"{wanted.into}/{artifact.path}" if wanted.into else artifact.path
            taken[path] = _one_of(task, taken[path], left) if path in taken else left
    total_bytes = sum(left.artifact.size_bytes for left in taken.values())
    if total_bytes > MAX_INPUTS_BYTES:
        raise InputsMissing(f"it takes {total_bytes >> 20} MiB of others; the limit is {MAX_INPUTS_BYTES >> 20} MiB")
    return tuple(_file(path, left.artifact) for path, left in taken.items())


class _Left(NamedTuple):
    shard_id: str
    artifact: Artifact


def _one_of(task: TaskStatus, before: _Left, after: _Left) -> _Left:
    """
    Of two files at one path. Shards of a pytest task that follow one another write as one session would: the newest
    stands. Two others that write the same file hide what one of them had to say.
    """
    if before.artifact.digest == after.artifact.digest:
        return before
    follows = before.shard_id in task.shards and after.shard_id in task.shards
    if follows and task.task.runner is RunnerType.PYTEST:
        return max(before, after, key=lambda left: left.artifact.created_at or _LONG_AGO)
    raise InputsMissing(
        f"{before.shard_id} and {after.shard_id} both left {after.artifact.path}, and not the same: "
        "each file needs a path of its own"
    )


def _chosen(task: TaskStatus, wanted: Input) -> Iterator[_Left]:
    left = task.artifacts
    unmatched = next(
        (glob for glob in wanted.files if not any(glob_means(glob, path) for _, path in left)),
        None if left or wanted.files else "",
    )
    if unmatched is not None and not wanted.optional:
        raise InputsMissing(_nothing_matches(task, unmatched))
    for (shard_id, path), artifact in left.items():
        if not wanted.files or any(glob_means(glob, path) for glob in wanted.files):
            yield _Left(shard_id, artifact)


def _nothing_matches(task: TaskStatus, glob: str) -> str:
    name = task.task.name
    who = name if task.state is TaskState.PASSED else f"{name}, which ended as {task.state.value},"
    what = f"nothing that matches {glob!r}" if glob else "no artifacts"
    return f"{who} left {what}: {_listed(task.artifacts)}" if task.artifacts else f"{who} left {what}"


def _listed(artifacts: Mapping[tuple[str, str], Artifact]) -> str:
    paths = sorted({path for _, path in artifacts})
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return f"it left {', '.join(paths[:_NAMED])}{more}"


def _file(path: str, artifact: Artifact) -> WorkspaceFile:
    return WorkspaceFile(
        path=path, digest=artifact.digest, size_bytes=artifact.size_bytes, executable=artifact.executable
    )
