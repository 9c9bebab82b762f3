"""Makes the workspaces of tasks that take artifacts of others: the run's files, and what was taken."""

from __future__ import annotations

from collections.abc import Sequence

from fleetest.common.blobs import BlobStore
from fleetest.common.convert_workspace import workspace_of
from fleetest.common.errors import InvalidRequest
from fleetest.common.tasks import Input, Task
from fleetest.common.threads import in_thread
from fleetest.common.workspace import Workspace, WorkspaceFile
from fleetest.master.blobs.custody import Custody
from fleetest.master.runs.environment import supply
from fleetest.master.runs.events import Supplied
from fleetest.master.runs.inputs import InputsMissing, taken_files
from fleetest.master.runs.state import RunStatus
from fleetest.master.workspaces import WorkspaceSource

__all__ = ["InputWorkspaces"]


class InputWorkspaces:
    """A manifest follows from the log alone: every master makes the same one."""

    def __init__(self, workspaces: WorkspaceSource, blobs: BlobStore, custody: Custody) -> None:
        self._workspaces = workspaces
        self._blobs = blobs
        self._custody = custody

    async def make(self, status: RunStatus, task: Task, inputs: Sequence[Input]) -> Supplied:
        """
        Store the manifest of a workspace in which these inputs of the task are. Idempotent.

        Its files are held for as long as the run can be retried, whatever becomes of the artifacts.

        Args:
            status: of a run in which the tasks that `inputs` name have ended.
            task: as it was submitted.

        Raises:
            InputsMissing: some cannot be had.
            WrongState: the other files of the task are not stored any more.
            DependencyUnavailable, CapacityExceeded: the blobs, or the store, cannot be reached, or are full.
        """
        request = status.request
        kept = await self._custody.artifacts_of(status.run_id)
        taken = taken_files(status, inputs, kept)
        digest = task.workspace_digest or request.workspace_digest
        files = (await self._workspaces.load(digest)).files if digest else ()
        workspace, supplied = await in_thread(_with, task, files, taken)
        # Before a last look at what expires just now: see ADR 15.
        await self._custody.keep_workspace(request.project, workspace.digest, workspace)
        gone = await self._blobs.missing([file.digest for file in taken])
        if gone:
            first = next(file.path for file in taken if file.digest == gone[0])
            raise InputsMissing(f"what was left as {first} is stored no longer: it expired, or was deleted")
        await self._blobs.put({workspace.digest: workspace.manifest})
        return supplied


def _with(task: Task, files: Sequence[WorkspaceFile], taken: Sequence[WorkspaceFile]) -> tuple[Workspace, Supplied]:
    """What is taken replaces a file of the same path."""
    by_path = {file.path: file for file in files} | {file.path: file for file in taken}
    try:
        workspace = workspace_of(by_path.values())
    except InvalidRequest as error:
        raise InputsMissing(f"what it takes of others does not fit its workspace: {_problems(error)}") from error
    return workspace, supply(task, workspace, taken)


def _problems(error: InvalidRequest) -> str:
    first, *rest = (line.strip() for line in error.message.splitlines())
    return "; ".join(rest) or first
