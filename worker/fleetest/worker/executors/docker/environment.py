"""A container with a workspace, in which a task runs."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fleetest.common.threads import in_thread
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.executors.docker.container import Container
from fleetest.worker.executors.docker.container_process import ContainerProcess
from fleetest.worker.executors.docker.container_workspaces import WORKSPACE, ContainerWorkspace

__all__ = ["CHANNEL", "DockerEnvironment"]

CHANNEL = Path("/fleetest/channel")
"""Where every container sees its channel directory."""


class DockerEnvironment:
    """
    Fulfils `Environment`; see there.

    Args:
        channel: the channel directory as this agent sees it.
        on_close: called once it is closed.
    """

    def __init__(
        self,
        container: Container,
        workspace: ContainerWorkspace,
        *,
        channel: Path,
        python: str,
        notes: tuple[str, ...],
        on_close: Callable[[], None],
    ) -> None:
        self.source = WORKSPACE
        self.host_source = workspace.host_path
        self.python = python
        self.notes = notes
        self.channel_directory = CHANNEL
        self.host_channel_directory = channel
        self._container = container
        self._workspace = workspace
        self._on_close = on_close

    async def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: Callable[[bytes], None]
    ) -> ContainerProcess:
        return await self._container.run(argv, env=env, cwd=cwd, output=output)

    async def refresh(self, spec: TaskSpec) -> None:
        await self._container.wipe()
        await self._workspace.restore(spec.workspace_digest)

    async def close(self) -> None:
        try:
            try:
                await self._container.close()
            finally:
                await self._workspace.close()
        finally:
            with contextlib.suppress(OSError):
                await in_thread(shutil.rmtree, self.host_channel_directory.parent.parent, ignore_errors=True)
            self._on_close()
