"""
The docker executor: each environment is a hardened container of its own.

Its root is read-only, it has no capabilities and can gain none, its processes are those of an ordinary user, and cpu,
memory and processes are bounded. It may write to its workspace and to its /tmp, and to what its project keeps of
compiled modules.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from fleetest.common.backoff import Backoff
from fleetest.common.errors import CapacityExceeded, InvalidRequest
from fleetest.common.threads import in_thread
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.executors.compiled_modules import CompiledModules
from fleetest.worker.executors.docker.cells import DIRECTORY_LABEL, WORKER_LABEL, Cell, CellPlan, Cells, ContainerRules
from fleetest.worker.executors.docker.engine import Engine, Mount, MountKind
from fleetest.worker.executors.docker.engine_errors import EngineGone
from fleetest.worker.executors.docker.environment import BASE_VARIABLES, COMPILED, DockerEnvironment
from fleetest.worker.executors.docker.exec_watch import ExecWatch
from fleetest.worker.executors.docker.images import Images
from fleetest.worker.executors.docker.serving import serving_of
from fleetest.worker.executors.docker.setup_images import (
    VENV,
    SetupBounds,
    SetupImages,
    activated,
    has_products,
    has_venv,
)
from fleetest.worker.executors.docker.warm_cells import WarmBounds, WarmCells
from fleetest.worker.ports import Environment, Workspaces
from fleetest.worker.service_address import LOOPBACK

__all__ = ["DockerExecutor"]

_ENGINE_PATIENCE: Final = timedelta(seconds=60)
_BACKOFF: Final = Backoff(first=timedelta(milliseconds=250), longest=timedelta(seconds=5))
_LEAST_FREE_BYTES: Final = 64 << 20


class DockerExecutor:
    """
    Fulfils `Executor`.

    Args:
        root: a directory of this worker alone.
        directory_id: of the worker's data directory, unlike any other's; absent means that its own id is.
        compiled: what sessions keep, below `root`; absent means nothing.
        locks: a directory, best shared by the workers of one machine; absent means below `root`.
        engine_url: where the Engine answers.
        as_engine_sees: a path below `root` as the Engine's machine knows it, which it must be for a bind mount.
        engine_patience: how long an Engine that does not answer is waited for when a task starts.
        python: the interpreter for tasks that name none.
        published_host: answers under which address others reach the Engine's machine; may block, and raise
            DependencyUnavailable.
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
        setups: SetupBounds | None = None,
        compiled: CompiledModules | None = None,
        locks: Path | None = None,
        warm: WarmBounds | None = None,
        engine_patience: timedelta = _ENGINE_PATIENCE,
        python: str = "python3",
        published_host: Callable[[], str] = lambda: LOOPBACK,
    ) -> None:
        self._published_host = published_host
        self._engine_patience = engine_patience
        self._python = python
        self._compiled = compiled
        self._as_engine_sees = as_engine_sees
        self._images = Images(engine)
        self._warm = WarmCells(warm or WarmBounds())
        labels = {WORKER_LABEL: worker_id, DIRECTORY_LABEL: directory_id or worker_id}
        self._watch = ExecWatch(engine, f"{DIRECTORY_LABEL}={labels[DIRECTORY_LABEL]}", on_return=self.remove_orphans)
        self._cells = Cells(
            engine,
            self._watch,
            workspaces,
            root=root,
            labels=labels,
            engine_url=engine_url,
            as_engine_sees=as_engine_sees,
            rules=rules,
        )
        self._setups = SetupImages(
            engine, self._cells, locks=locks or root / "locks", owner=rules.owner, bounds=setups or SetupBounds()
        )

    async def open(self) -> None:
        """
        Remove what an earlier life of this worker left behind, and listen to the Engine.

        Raises:
            DependencyUnavailable: the Engine does not answer.
        """
        await self.remove_orphans()
        await self._watch.open()

    async def prepare(
        self,
        spec: TaskSpec,
        *,
        slot: int,  # noqa: ARG002 - containers have no places that belong to slots
        secrets: Mapping[str, str],
        output: Callable[[bytes], None],
    ) -> Environment:
        """
        See `Executor.prepare`. An Engine that does not answer may be starting again: it is waited for, since failing at
        once would use up the task's tries on every worker of the machine.
        """
        loop = asyncio.get_running_loop()
        patience_ends = loop.time() + self._engine_patience.total_seconds()
        failures = 0
        while True:
            try:
                return await self._prepare(spec, secrets=secrets, output=output)
            except EngineGone:
                failures += 1
                delay_seconds = _BACKOFF.delay(failures).total_seconds()
                if loop.time() + delay_seconds >= patience_ends:
                    raise
                if failures == 1:
                    output(b"waiting for the Docker Engine, which does not answer\n")
                await asyncio.sleep(delay_seconds)

    async def _prepare(
        self, spec: TaskSpec, *, secrets: Mapping[str, str], output: Callable[[bytes], None]
    ) -> Environment:
        if not spec.image:
            raise InvalidRequest(
                f"the task {spec.task_id} has no image to run in",
                hint="Give it an `image`, or the master a FLEETEST_DEFAULT_IMAGE.",
            )
        image = named = await self._images.ensure(spec.image, spec.pull, output=output)
        self._check_free_space(spec)
        python = spec.python or self._python
        publishes = spec.run_network and spec.service is not None and spec.service.publish
        published_host = await in_thread(self._published_host) if publishes else ""
        compiled = await in_thread(self._compiled.open, spec.project) if self._compiled is not None else None
        plan = CellPlan(
            project=spec.project,
            image=self._setups.name(spec, image, python=python) if spec.setup else image.id,
            network=spec.network,
            cpu_millis=spec.limits.cpu_millis,
            memory_bytes=spec.limits.memory_bytes,
            mounts=(self._mount(compiled),) if compiled is not None else (),
            run_network=spec.run_network,
            serving=serving_of(spec, published_host),
        )
        cell = await self._warm.take(plan, spec.workspace_digest)
        notes: tuple[str, ...] = ()
        setup_reused = bool(spec.setup)
        if cell is not None:
            notes = ("container reused",)
        else:
            if spec.setup:
                image, setup_reused = await self._setups.ensure(
                    spec, image, python=python, secrets=secrets, output=output
                )
            cell = await self._cells.open(plan, image, spec.workspace_digest)
        if setup_reused:
            notes += ("setup reused",)
        return await self._environment(
            cell, spec, image=named.id, python=python, secrets=secrets, notes=notes, published_host=published_host
        )

    def _mount(self, compiled: Path) -> Mount:
        return Mount(kind=MountKind.BIND, source=str(self._as_engine_sees(compiled)), target=str(COMPILED))

    def release_idle(self) -> None:
        self._warm.release()

    async def close(self) -> None:
        await self._warm.close()
        await self._watch.close()

    async def remove_orphans(self) -> None:
        """Remove what is of this worker on the Engine, and on its disk, and that nobody here uses."""
        await self._warm.empty()  # the Engine may have been away: then none of them runs any more
        await self._cells.remove_orphans()

    async def _environment(
        self,
        cell: Cell,
        spec: TaskSpec,
        *,
        image: str,
        python: str,
        secrets: Mapping[str, str],
        notes: tuple[str, ...],
        published_host: str,
    ) -> DockerEnvironment:
        made_of = cell.image
        environment = DockerEnvironment(
            cell,
            variables={**BASE_VARIABLES, **(activated(made_of) if has_venv(made_of) else {}), **spec.env, **secrets},
            python=str(VENV / "bin" / "python") if has_venv(made_of) else python,
            image=image,
            notes=notes,
            where=f"in a container of {spec.image} with network {spec.network.value}",
            has_products=has_products(made_of),
            compiled_directory=COMPILED if cell.plan.mounts else None,
            published_host=published_host,
            give_back=self._give_back,
        )
        try:
            await environment.put_products_back()
        except BaseException:
            await environment.close()
            raise
        return environment

    async def _give_back(self, cell: Cell) -> None:
        """What is in a run's network is of use as long as the run has services here, and a service to nobody else."""
        run_id = cell.plan.run_network
        if not run_id:
            await self._warm.park(cell)
            return
        if cell.plan.serving is not None or not self._cells.networks.has_services(run_id):
            await cell.close()
        else:
            await self._warm.park(cell)
        if not self._cells.networks.has_services(run_id):
            await self._warm.empty(run_id)

    def _check_free_space(self, spec: TaskSpec) -> None:
        free = shutil.disk_usage(self._cells.directory).free
        needed = max(spec.limits.disk_bytes, _LEAST_FREE_BYTES)
        if free < needed:
            raise CapacityExceeded(
                f"the disk of {self._cells.directory} has {free >> 20} MiB free, the task needs {needed >> 20} MiB"
            )
