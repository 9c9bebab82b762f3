"""
The docker executor: each environment is a hardened container of its own.

Its root is read-only, it has no capabilities and can gain none, its processes are those of an ordinary user, and cpu,
memory and processes are bounded. It may write to its workspace and to its /tmp.
"""

from __future__ import annotations

import contextlib
import re
import secrets as random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from fleetest.common.disk import disk_errors
from fleetest.common.errors import CapacityExceeded, FleetestError, InvalidRequest
from fleetest.common.threads import in_thread
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.executors.docker.container import KEEPER, Container, keeper_user
from fleetest.worker.executors.docker.container_workspaces import (
    COPY_NOTE,
    ContainerWorkspace,
    CopiedWorkspace,
    OverlayWorkspace,
)
from fleetest.worker.executors.docker.engine import ContainerSpec, Engine, Mount, MountKind
from fleetest.worker.executors.docker.engine_errors import MountFailed
from fleetest.worker.executors.docker.environment import CHANNEL, DockerEnvironment
from fleetest.worker.executors.docker.exec_watch import ExecWatch
from fleetest.worker.executors.docker.images import Images
from fleetest.worker.executors.docker.layers import Layers
from fleetest.worker.executors.docker.ownership import Owner
from fleetest.worker.ports import Environment, Workspaces

__all__ = ["DIRECTORY_LABEL", "WORKER_LABEL", "ContainerRules", "DockerExecutor"]

WORKER_LABEL: Final = "fleetest.worker"
"""Everything that a worker makes carries its id under this name."""

DIRECTORY_LABEL: Final = "fleetest.directory"
"""
And what tells its data directory from all others under this one: ids are unique in a cluster, but an Engine may serve
workers of several. Only what carries it is the worker's own to remove.
"""

_LEAST_FREE_BYTES: Final = 64 << 20
_BASE_ENVIRONMENT: Final = {"HOME": "/tmp/home", "USER": "fleetest", "LOGNAME": "fleetest"}  # noqa: S108 - the container's

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


class DockerExecutor:
    """
    Fulfils `Executor`.

    Args:
        root: a directory of this worker alone.
        directory_id: of the worker's data directory, unlike any other's; absent means that its own id is.
        engine_url: where the Engine answers.
        as_engine_sees: a path below `root` as the Engine's machine knows it, which it must be for a bind mount.
        python: the interpreter for tasks that name none.
    """

    name = "docker"

    def __init__(
        self,
        engine: Engine,
        root: Path,
        workspaces: Workspaces,
        *,
        worker_id: str,
        directory_id: str = "",
        engine_url: str,
        rules: ContainerRules,
        as_engine_sees: Callable[[Path], Path] = lambda path: path,
        python: str = "python3",
    ) -> None:
        self._engine = engine
        self._containers = root / "containers"
        self._workspaces = workspaces
        self._labels = {WORKER_LABEL: worker_id, DIRECTORY_LABEL: directory_id or worker_id}
        self._name_prefix = "fleetest-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", worker_id)
        self._rules = rules
        self._as_engine_sees = as_engine_sees
        self._python = python
        self._layers = Layers(root / "layers", workspaces, owner=rules.owner)
        self._images = Images(engine)
        self._watch = ExecWatch(engine, self._label, on_return=self.remove_orphans)
        self._overlays = as_engine_sees(root) == root and OverlayWorkspace.is_possible(root, engine_url)
        self._live: set[str] = set()

    async def open(self) -> None:
        """
        Remove what an earlier life of this worker left behind, and listen to the Engine.

        Raises:
            DependencyUnavailable: the Engine does not answer.
        """
        with disk_errors(f"the worker's directory {self._containers.parent}"):
            await in_thread(self._containers.mkdir, mode=0o700, parents=True, exist_ok=True)
        await self.remove_orphans()
        await self._watch.open()

    async def prepare(
        self, spec: TaskSpec, *, slot: int, secrets: Mapping[str, str], output: Callable[[bytes], None]
    ) -> Environment:
        if not spec.image:
            raise InvalidRequest(
                f"the task {spec.task_id} has no image to run in",
                hint="Give it an `image`, or the master a FLEETEST_DEFAULT_IMAGE.",
            )
        if spec.setup:
            raise InvalidRequest("`setup` does not work in containers yet", hint="Use an image that has it all.")
        image = await self._images.ensure(spec.image, spec.pull, output=output)
        self._check_free_space(spec)
        name = f"{self._name_prefix}-{slot}-{random.token_hex(6)}"
        self._live.add(name)
        try:
            return await self._make(name, image, spec, secrets)
        except BaseException:
            self._live.discard(name)
            raise

    async def close(self) -> None:
        await self._watch.close()

    async def remove_orphans(self) -> None:
        """Remove every container, volume and directory of this worker that nobody here uses."""
        for name in await self._engine.containers(self._label):
            if name not in self._live:
                await self._engine.remove(name)
        for name in await self._engine.volumes(self._label):
            if name not in self._live:
                await self._engine.remove_volume(name)
        await in_thread(self._remove_directories)

    async def _make(self, name: str, image: str, spec: TaskSpec, secrets: Mapping[str, str]) -> DockerEnvironment:
        directory = self._containers / name
        if self._overlays:
            await self._make_channel(name)
            try:
                workspace = await self._overlay(name, spec.workspace_digest, directory)
                return await self._open(self._container(name, image, spec, secrets, workspace.mount), workspace, spec)
            except MountFailed as error:
                self._overlays = False
                self._live.add(name)
                _log.warning("overlays_not_possible", reason=error.message)
        await self._make_channel(name)
        copy = await self._copy(spec.workspace_digest, directory)
        container = self._container(name, image, spec, secrets, copy.mount)
        return await self._open(container, copy, spec, notes=(COPY_NOTE,))

    async def _open(
        self, container: Container, workspace: ContainerWorkspace, spec: TaskSpec, *, notes: tuple[str, ...] = ()
    ) -> DockerEnvironment:
        environment = DockerEnvironment(
            container,
            workspace,
            channel=self._channel(container.name),
            python=spec.python or self._python,
            notes=notes,
            on_close=lambda: self._live.discard(container.name),
        )
        try:
            await container.open()
            await workspace.check()
        except BaseException:
            with contextlib.suppress(FleetestError):
                await environment.close()
            raise
        return environment

    def _container(
        self, name: str, image: str, spec: TaskSpec, secrets: Mapping[str, str], workspace: Mount
    ) -> Container:
        user = self._rules.owner.text
        return Container(
            self._engine,
            self._watch,
            name=name,
            spec=ContainerSpec(
                image=image,
                argv=KEEPER,
                user=keeper_user(user),
                network=spec.network,
                cpu_millis=spec.limits.cpu_millis,
                memory_bytes=spec.limits.memory_bytes,
                pids=self._rules.pids,
                tmp_bytes=self._rules.tmp_bytes,
                mounts=(
                    workspace,
                    Mount(
                        kind=MountKind.BIND,
                        source=str(self._as_engine_sees(self._channel(name))),
                        target=str(CHANNEL),
                    ),
                ),
                labels={**self._labels, "fleetest.project": spec.project},
            ),
            user=user,
            env={**_BASE_ENVIRONMENT, **spec.env, **secrets},
        )

    async def _make_channel(self, name: str) -> None:
        with disk_errors(f"the worker's directory {self._containers}"):
            await in_thread(self._channel(name).mkdir, parents=True)

    def _channel(self, name: str) -> Path:
        # What lies above it keeps other users of this machine out.
        return self._containers / name / "channel" / "c"

    async def _overlay(self, name: str, workspace_digest: str, directory: Path) -> OverlayWorkspace:
        return await OverlayWorkspace.create(
            self._engine,
            self._layers,
            self._workspaces,
            name=name,
            workspace_digest=workspace_digest,
            directory=directory / "overlay",
            owner=self._rules.owner,
            labels=self._labels,
        )

    async def _copy(self, workspace_digest: str, directory: Path) -> CopiedWorkspace:
        return await CopiedWorkspace.create(
            self._workspaces,
            workspace_digest=workspace_digest,
            directory=directory / "copy",
            owner=self._rules.owner,
            engine_path=self._as_engine_sees(directory / "copy"),
        )

    def _check_free_space(self, spec: TaskSpec) -> None:
        free = shutil.disk_usage(self._containers).free
        needed = max(spec.limits.disk_bytes, _LEAST_FREE_BYTES)
        if free < needed:
            raise CapacityExceeded(
                f"the disk of {self._containers} has {free >> 20} MiB free, the task needs {needed >> 20} MiB"
            )

    def _remove_directories(self) -> None:
        for path in self._containers.iterdir():
            if path.name not in self._live:
                shutil.rmtree(path, ignore_errors=True)

    @property
    def _label(self) -> str:
        return f"{DIRECTORY_LABEL}={self._labels[DIRECTORY_LABEL]}"
