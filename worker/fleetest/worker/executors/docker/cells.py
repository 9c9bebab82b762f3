"""Containers with all that belongs to each: a workspace, and a channel directory."""

from __future__ import annotations

import contextlib
import re
import secrets as random
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from fleetest.common.disk import disk_errors
from fleetest.common.errors import FleetestError
from fleetest.common.tasks import Network
from fleetest.common.threads import in_thread
from fleetest.worker.directories import empty_directory
from fleetest.worker.executors.docker.container import KEEPER, Container, keeper_user
from fleetest.worker.executors.docker.container_workspaces import (
    COPY_NOTE,
    ContainerWorkspace,
    CopiedWorkspace,
    OverlayWorkspace,
)
from fleetest.worker.executors.docker.engine import ContainerSpec, Engine, Image, Mount, MountKind, PublishedPort
from fleetest.worker.executors.docker.engine_errors import MountFailed
from fleetest.worker.executors.docker.exec_watch import ExecWatch
from fleetest.worker.executors.docker.layers import Layers
from fleetest.worker.executors.docker.lifeline import LIFELINE, Lifeline
from fleetest.worker.executors.docker.run_networks import RunNetworks
from fleetest.worker.ownership import Owner
from fleetest.worker.ports import Workspaces

__all__ = [
    "CHANNEL",
    "DIRECTORY_LABEL",
    "PROJECT_LABEL",
    "WORKER_LABEL",
    "Cell",
    "CellPlan",
    "Cells",
    "ContainerRules",
    "Serving",
]

WORKER_LABEL: Final = "fleetest.worker"
"""Everything that a worker makes for itself carries its id under this name."""

DIRECTORY_LABEL: Final = "fleetest.directory"
"""
And what tells its data directory from all others under this one: ids are unique in a cluster, but an Engine may serve
workers of several. Only what carries it is the worker's own to remove.
"""

PROJECT_LABEL: Final = "fleetest.project"

CHANNEL: Final = Path("/fleetest/channel")
"""Where every container sees its channel directory."""

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRules:
    """
    What holds for every container of a worker.

    Args:
        owner: the user of tests, and of their files.
        pids: processes and threads at most.
        tmp_bytes: size of /tmp; it counts as memory.
    """

    owner: Owner
    pids: int = 1024
    tmp_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """
    What a container is to others that is a service.

    Args:
        name: under which its neighbours find it.
    """

    name: str
    published: tuple[PublishedPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPlan:
    """
    All that makes a difference between two cells of a worker, but for the files of their workspaces.

    Args:
        mounts: more than the workspace and the channel directory.
        writable_root: whether the image's files can be changed, as a setup must.
        run_network: of which run it finds services, and they it; empty means of none.
        serving: of a service.
    """

    project: str
    image: str
    network: Network
    cpu_millis: int = 0
    memory_bytes: int = 0
    mounts: tuple[Mount, ...] = ()
    writable_root: bool = False
    run_network: str = ""
    serving: Serving | None = None


@dataclass(slots=True, kw_only=True)
class Cell:
    """
    A container with its workspace and its channel directory, in which one environment lives at a time.

    Args:
        image: that it was made of.
        channel: the channel directory as this agent sees it.
        notes: for people.
        workspace_digest: of what the workspace holds, but for what was done to it.
        enter: called before it is opened.
        leave: called once it is closed.
    """

    plan: CellPlan
    image: Image
    container: Container
    workspace: ContainerWorkspace
    workspace_digest: str
    channel: Path
    notes: tuple[str, ...] = ()
    enter: Callable[[], Awaitable[None]] = field(repr=False)
    leave: Callable[[], Awaitable[None]] = field(repr=False)

    async def open(self) -> None:
        """Start the container. Raises what `Container.open` and `ContainerWorkspace.check` do."""
        await self.enter()
        await self.container.open()
        await self.workspace.check()

    async def refresh(self, workspace_digest: str) -> None:
        """
        End all that runs, and bring everything back to how it was at first.

        Raises:
            NotFound, CapacityExceeded, DependencyUnavailable
        """
        await self.container.wipe()
        await self.workspace.restore(workspace_digest)
        self.workspace_digest = workspace_digest

    async def clean(self) -> bool:
        """
        End all that runs, and remove what it left outside of the workspace; false when something stays.

        Raises:
            CapacityExceeded, DependencyUnavailable
        """
        if self.image.has_volumes or not await self.container.clean():
            return False
        with disk_errors(f"the channel directory {self.channel}"):
            await in_thread(empty_directory, self.channel)
        return True

    async def renew(self, workspace_digest: str) -> None:
        """
        Make the workspace of a clean cell the same as that of a new one.

        Raises:
            NotFound, CapacityExceeded, DependencyUnavailable
        """
        await self.workspace.renew(workspace_digest)
        self.workspace_digest = workspace_digest

    async def close(self) -> None:
        """Remove it, with all that runs in it."""
        try:
            try:
                await self.container.close()
            finally:
                await self.workspace.close()
        finally:
            with contextlib.suppress(OSError):
                await in_thread(shutil.rmtree, self.channel.parent.parent, ignore_errors=True)
            await self.leave()


class Cells:
    """
    Makes cells, and knows those that live.

    Args:
        root: a directory of this worker alone.
        labels: of all that is made; that of the directory says whose it is.
        engine_url: where the Engine answers.
        as_engine_sees: a path below `root` as the Engine's machine knows it.

    Attributes:
        networks: that containers of one run share.
    """

    def __init__(
        self,
        engine: Engine,
        watch: ExecWatch,
        workspaces: Workspaces,
        *,
        root: Path,
        labels: Mapping[str, str],
        engine_url: str,
        as_engine_sees: Callable[[Path], Path],
        rules: ContainerRules,
    ) -> None:
        self._engine = engine
        self._watch = watch
        self._workspaces = workspaces
        self._labels = labels
        self._name_prefix = "fleetest-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", labels[WORKER_LABEL])
        self._directory = root / "containers"
        self._as_engine_sees = as_engine_sees
        self._rules = rules
        self.networks = RunNetworks(engine, prefix=self._name_prefix, labels=labels)
        self._layers = Layers(root / "layers", workspaces, owner=rules.owner)
        self._overlays = as_engine_sees(root) == root and OverlayWorkspace.is_possible(root, engine_url)
        self._live: set[str] = set()

    @property
    def directory(self) -> Path:
        """What all of them have on disk lies below it."""
        return self._directory

    async def open(self, plan: CellPlan, image: Image, workspace_digest: str) -> Cell:
        """
        A cell that runs, and holds the workspace.

        Raises:
            InvalidRequest: the image has nothing to start it with.
            NotFound, CapacityExceeded, DependencyUnavailable
        """
        name = f"{self._name_prefix}-{random.token_hex(6)}"
        self._live.add(name)
        try:
            return await self._make(name, plan, image, workspace_digest)
        except BaseException:
            self._live.discard(name)
            raise

    async def remove_orphans(self) -> None:
        """Remove every container, network, volume and directory of this worker that nobody here uses."""
        with disk_errors(f"the worker's directory {self._directory}"):
            await in_thread(self._directory.mkdir, mode=0o700, parents=True, exist_ok=True)
        label = f"{DIRECTORY_LABEL}={self._labels[DIRECTORY_LABEL]}"
        for name in await self._engine.containers(label):
            if name not in self._live:
                await self._engine.remove(name)
        await self.networks.remove_orphans(label)
        for name in await self._engine.volumes(label):
            if name not in self._live:
                await self._engine.remove_volume(name)
        await in_thread(self._remove_directories)

    async def _make(self, name: str, plan: CellPlan, image: Image, workspace_digest: str) -> Cell:
        if self._overlays:
            await self._make_channel(name)
            try:
                return await self._open(
                    name, plan, image, await self._overlay(name, workspace_digest), workspace_digest
                )
            except MountFailed as error:
                self._overlays = False
                self._live.add(name)
                _log.warning("overlays_not_possible", reason=error.message)
        await self._make_channel(name)
        return await self._open(
            name, plan, image, await self._copy(name, workspace_digest), workspace_digest, notes=(COPY_NOTE,)
        )

    async def _open(
        self,
        name: str,
        plan: CellPlan,
        image: Image,
        workspace: ContainerWorkspace,
        workspace_digest: str,
        *,
        notes: tuple[str, ...] = (),
    ) -> Cell:
        cell = Cell(
            plan=plan,
            image=image,
            container=self._container(name, plan, workspace.mount),
            workspace=workspace,
            workspace_digest=workspace_digest,
            channel=self._channel(name),
            notes=notes,
            enter=partial(self._enter, name, plan),
            leave=partial(self._leave, name, plan),
        )
        try:
            await cell.open()
        except BaseException:
            with contextlib.suppress(FleetestError):
                await cell.close()
            raise
        return cell

    async def _enter(self, name: str, plan: CellPlan) -> None:
        if plan.run_network:
            service = plan.serving.name if plan.serving is not None else ""
            await self.networks.enter(plan.run_network, name, service=service)

    async def _leave(self, name: str, plan: CellPlan) -> None:
        self._live.discard(name)
        if plan.run_network:
            await self.networks.leave(plan.run_network, name)

    def _container(self, name: str, plan: CellPlan, workspace: Mount) -> Container:
        user = self._rules.owner.text
        lifeline = Lifeline(self._channel(name).with_name("lifeline"))
        channel = Mount(kind=MountKind.BIND, source=str(self._as_engine_sees(self._channel(name))), target=str(CHANNEL))
        alive = Mount(
            kind=MountKind.BIND,
            source=str(self._as_engine_sees(lifeline.path)),
            target=str(LIFELINE),
            read_only=True,
        )
        return Container(
            self._engine,
            self._watch,
            name=name,
            spec=ContainerSpec(
                image=plan.image,
                argv=KEEPER,
                user=keeper_user(user),
                network=plan.network,
                cpu_millis=plan.cpu_millis,
                memory_bytes=plan.memory_bytes,
                pids=self._rules.pids,
                tmp_bytes=0 if "/tmp" in {mount.target for mount in plan.mounts} else self._rules.tmp_bytes,  # noqa: S108 - the container's
                mounts=(workspace, channel, alive, *plan.mounts),
                labels={**self._labels, PROJECT_LABEL: plan.project},
                writable_root=plan.writable_root,
                inner_network=self.networks.name(plan.run_network) if plan.run_network else "",
                inner_name=plan.serving.name if plan.serving is not None else "",
                published=plan.serving.published if plan.serving is not None else (),
            ),
            user=user,
            lifeline=lifeline,
        )

    async def _make_channel(self, name: str) -> None:
        with disk_errors(f"the worker's directory {self._directory}"):
            await in_thread(self._channel(name).mkdir, parents=True)

    def _channel(self, name: str) -> Path:
        # What lies above it keeps other users of this machine out.
        return self._directory / name / "channel" / "c"

    async def _overlay(self, name: str, workspace_digest: str) -> OverlayWorkspace:
        return await OverlayWorkspace.create(
            self._engine,
            self._layers,
            self._workspaces,
            name=name,
            workspace_digest=workspace_digest,
            directory=self._directory / name / "overlay",
            owner=self._rules.owner,
            labels=self._labels,
        )

    async def _copy(self, name: str, workspace_digest: str) -> CopiedWorkspace:
        directory = self._directory / name / "copy"
        return await CopiedWorkspace.create(
            self._workspaces,
            workspace_digest=workspace_digest,
            directory=directory,
            owner=self._rules.owner,
            engine_path=self._as_engine_sees(directory),
        )

    def _remove_directories(self) -> None:
        for path in self._directory.iterdir():
            if path.name not in self._live:
                shutil.rmtree(path, ignore_errors=True)
