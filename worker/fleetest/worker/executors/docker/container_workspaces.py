"""
How a container gets its workspace: on top of a layer where that can be, else as a copy.

On top of a layer (overlayfs) starting costs nothing, however large the workspace is, and what a test writes stays in a
directory of its own. The Engine mounts and unmounts it together with the container.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from fleetest.common.disk import disk_errors
from fleetest.common.threads import in_thread
from fleetest.worker.directories import empty_directory
from fleetest.worker.executors.docker.engine import Engine, Mount, MountKind, VolumeSpec
from fleetest.worker.executors.docker.engine_errors import MountFailed
from fleetest.worker.executors.docker.layers import Layers
from fleetest.worker.executors.docker.overlay import is_untouched, undo
from fleetest.worker.ownership import Owner
from fleetest.worker.ports import Workspaces

__all__ = ["COPY_NOTE", "WORKSPACE", "ContainerWorkspace", "CopiedWorkspace", "OverlayWorkspace"]

WORKSPACE: Final = Path("/workspace")
"""Where every container sees its workspace."""

COPY_NOTE: Final = "the workspace is a copy: overlays need a worker that is root on the Engine's machine"
_UNSPEAKABLE: Final = frozenset(",:\\\"'")


class ContainerWorkspace(Protocol):
    """The workspace of one container."""

    mount: Mount
    """How the container gets it."""

    host_path: Path
    """The directory as this agent sees it, while the container runs."""

    async def check(self) -> None:
        """
        See whether it is there, now that the container runs.

        Raises:
            MountFailed: the agent cannot see it.
        """

    async def restore(self, workspace_digest: str) -> None:
        """
        Bring it back to the workspace's pristine files. Nothing may run in the container.

        Raises:
            NotFound, CapacityExceeded, DependencyUnavailable
        """

    async def renew(self, workspace_digest: str) -> None:
        """
        Make it the same as a new one of that workspace: nothing stays of what was done to it. Nothing may run in the
        container. Raises what `restore` does.
        """

    async def close(self) -> None:
        """Remove it, after its container."""


class OverlayWorkspace:
    """
    Fulfils `ContainerWorkspace` with a volume of the Engine that it mounts as an overlay.

    Args:
        directory: of this container alone.
    """

    def __init__(
        self,
        engine: Engine,
        layers: Layers,
        workspaces: Workspaces,
        *,
        name: str,
        layer: Path,
        layer_digest: str,
        directory: Path,
        owner: Owner,
    ) -> None:
        self.mount = Mount(kind=MountKind.VOLUME, source=name, target=str(WORKSPACE))
        self.host_path = Path()
        self._engine = engine
        self._layers = layers
        self._workspaces = workspaces
        self._name = name
        self._layer = layer
        self._layer_digest = layer_digest
        self._directory = directory
        self._owner = owner

    @staticmethod
    def is_possible(root: Path, engine_url: str) -> bool:
        """Whether it is worth a try: the Engine mounts it, and only root on its machine sees what it mounts."""
        return os.geteuid() == 0 and engine_url.startswith("unix:") and not _UNSPEAKABLE & set(str(root))

    @classmethod
    async def create(
        cls,
        engine: Engine,
        layers: Layers,
        workspaces: Workspaces,
        *,
        name: str,
        workspace_digest: str,
        directory: Path,
        owner: Owner,
        labels: Mapping[str, str],
    ) -> OverlayWorkspace:
        layer = await layers.acquire(workspace_digest)
        made = cls(
            engine,
            layers,
            workspaces,
            name=name,
            layer=layer,
            layer_digest=workspace_digest,
            directory=directory,
            owner=owner,
        )
        try:
            with disk_errors(f"the workspace directory {directory}"):
                await in_thread(made._make_directories)
            options = f"lowerdir={layer},upperdir={directory / 'upper'},workdir={directory / 'work'}"
            made.host_path = await engine.create_volume(
                VolumeSpec(
                    name=name,
                    options={"type": "overlay", "device": "overlay", "o": options},
                    labels=labels,
                )
            )
        except BaseException:
            await made.close()
            raise
        return made

    async def check(self) -> None:
        if not await in_thread(os.path.ismount, self.host_path):
            raise MountFailed(f"the Engine's mount {self.host_path} cannot be seen from here")

    async def restore(self, workspace_digest: str) -> None:
        await self._workspaces.synchronise(workspace_digest, self.host_path, owner=self._owner, shown_by=self._layer)

    async def renew(self, workspace_digest: str) -> None:
        await self.check()
        with disk_errors(f"the workspace {self.host_path}"):
            await in_thread(self._undo)
        if workspace_digest != self._layer_digest:
            await self.restore(workspace_digest)

    def _undo(self) -> None:
        upper = self._directory / "upper"
        if not is_untouched(upper):
            undo(upper, self._layer, self.host_path)

    async def close(self) -> None:
        try:
            await self._engine.remove_volume(self._name)
        finally:
            self._layers.release(self._layer)
            await self._workspaces.forget(self.host_path)
            await in_thread(shutil.rmtree, self._directory, ignore_errors=True)

    def _make_directories(self) -> None:
        for name in ("upper", "work"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        upper = os.open(self._directory / "upper", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._owner.own(upper)
            os.fchmod(upper, 0o755)
        finally:
            os.close(upper)


class CopiedWorkspace:
    """Fulfils `ContainerWorkspace` with a directory of its own."""

    def __init__(self, workspaces: Workspaces, *, directory: Path, owner: Owner, engine_path: Path) -> None:
        self.host_path = directory / "workspace"
        self.mount = Mount(kind=MountKind.BIND, source=str(engine_path / "workspace"), target=str(WORKSPACE))
        self._workspaces = workspaces
        self._directory = directory
        self._owner = owner

    @classmethod
    async def create(
        cls, workspaces: Workspaces, *, workspace_digest: str, directory: Path, owner: Owner, engine_path: Path
    ) -> CopiedWorkspace:
        made = cls(workspaces, directory=directory, owner=owner, engine_path=engine_path)
        try:
            await made.restore(workspace_digest)
        except BaseException:
            await made.close()
            raise
        return made

    async def check(self) -> None:
        """It is a directory of this machine."""

    async def restore(self, workspace_digest: str) -> None:
        with disk_errors(f"the workspace directory {self.host_path}"):
            await in_thread(self.host_path.mkdir, parents=True, exist_ok=True)
        await self._workspaces.synchronise(workspace_digest, self.host_path, owner=self._owner)

    async def renew(self, workspace_digest: str) -> None:
        with disk_errors(f"the workspace directory {self.host_path}"):
            await in_thread(empty_directory, self.host_path)
        await self.restore(workspace_digest)

    async def close(self) -> None:
        await self._workspaces.forget(self.host_path)
        await in_thread(shutil.rmtree, self._directory, ignore_errors=True)
