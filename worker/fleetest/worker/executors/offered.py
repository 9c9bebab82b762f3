"""Which executors a worker has: those that it may have, as far as this machine can."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from fleetest.common.errors import DependencyUnavailable
from fleetest.common.tasks import Resources
from fleetest.worker.executors.docker.cells import WORKER_LABEL, ContainerRules
from fleetest.worker.executors.docker.executor import DockerExecutor
from fleetest.worker.executors.docker.sdk_engine import EngineAddress, SdkEngine
from fleetest.worker.executors.docker.setup_images import SetupBounds
from fleetest.worker.executors.docker.surroundings import find_surroundings
from fleetest.worker.executors.docker.warm_cells import WarmBounds
from fleetest.worker.executors.process import ProcessExecutor
from fleetest.worker.identity import persistent_worker_id
from fleetest.worker.ownership import Owner
from fleetest.worker.ports import Executor, Workspaces
from fleetest.worker.settings import WorkerSettings

__all__ = ["Offered", "open_executors"]

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """
    Args:
        engine_version: of the Docker Engine; empty without the docker executor.
        room: cpu and memory for containers, where the worker itself sees less than the Engine's machine.
    """

    executors: tuple[Executor, ...]
    engine_version: str = ""
    room: Resources | None = None


@asynccontextmanager
async def open_executors(settings: WorkerSettings, workspaces: Workspaces, worker_id: str) -> AsyncIterator[Offered]:
    """
    The executors, ready; closed on the way out. Docker is one of them where an Engine answers.

    Raises:
        DependencyUnavailable: they ask for Docker by name, and no Engine answers.
    """
    names = settings.executors
    offered: list[Executor] = []
    version, room = "", None
    async with AsyncExitStack() as stack:
        if not names or ProcessExecutor.name in names:
            process = ProcessExecutor(
                settings.directory / "slots",
                workspaces,
                python=sys.executable,
                setups=(settings.cache_directory or settings.directory) / "setups",
            )
            stack.push_async_callback(process.close)
            offered.append(process)
        if not names or DockerExecutor.name in names:
            try:
                docker, version, room = await _docker(stack, settings, workspaces, worker_id)
                offered.append(docker)
            except DependencyUnavailable as error:
                if names:
                    raise
                _log.info("docker_not_offered", reason=error.message)
        yield Offered(executors=tuple(offered), engine_version=version, room=room)


async def _docker(
    stack: AsyncExitStack, settings: WorkerSettings, workspaces: Workspaces, worker_id: str
) -> tuple[DockerExecutor, str, Resources | None]:
    address = EngineAddress(
        url=settings.engine_url,
        certificates=settings.engine_certificates,
        verify=settings.engine_verified,
    )
    engine = await SdkEngine.connect(address)
    stack.callback(engine.close)
    directory_id = persistent_worker_id(settings.directory)
    surroundings = await find_surroundings(engine, settings.directory, engine_url=address.url, tasks_label=WORKER_LABEL)
    executor = DockerExecutor(
        engine,
        settings.directory / "docker",
        workspaces,
        worker_id=worker_id,
        directory_id=directory_id,
        engine_url=address.url,
        as_engine_sees=surroundings.engine_path,
        rules=ContainerRules(
            owner=_owner(settings.container_user), pids=settings.container_pids, tmp_bytes=settings.container_tmp_bytes
        ),
        setups=SetupBounds(
            images=settings.setup_images,
            image_bytes=settings.setup_image_bytes,
            cache_bytes=settings.package_cache_bytes,
        ),
        warm=WarmBounds(cells=settings.warm_containers, idle_timeout=settings.warm_timeout),
        locks=(settings.cache_directory or settings.directory) / "locks",
    )
    stack.push_async_callback(executor.close)
    version = await engine.version()
    await executor.open()
    return executor, version, surroundings.room


def _owner(user: tuple[int, int]) -> Owner:
    """Root hands its files to another user; anybody else can only have them as their own."""
    if os.geteuid() == 0:
        return Owner(uid=user[0], gid=user[1])
    return Owner(uid=os.geteuid(), gid=os.getegid())
