"""Puts the docker executor together. Loads the Docker SDK: imported only where an Engine may answer."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from functools import partial
from urllib.parse import urlsplit

from fleetest.common.errors import DependencyUnavailable
from fleetest.common.tasks import Resources
from fleetest.worker.executors.compiled_modules import CompiledModules
from fleetest.worker.executors.docker.cells import WORKER_LABEL, ContainerRules
from fleetest.worker.executors.docker.executor import DockerExecutor
from fleetest.worker.executors.docker.sdk_engine import EngineAddress, SdkEngine
from fleetest.worker.executors.docker.setup_images import SetupBounds
from fleetest.worker.executors.docker.surroundings import find_surroundings
from fleetest.worker.executors.docker.warm_cells import WarmBounds
from fleetest.worker.identity import persistent_worker_id
from fleetest.worker.ownership import Owner
from fleetest.worker.ports import Workspaces
from fleetest.worker.published_host import find_published_host
from fleetest.worker.settings import WorkerSettings

__all__ = ["open_docker"]


async def open_docker(
    stack: AsyncExitStack, settings: WorkerSettings, workspaces: Workspaces, worker_id: str
) -> tuple[DockerExecutor, str, Resources | None]:
    """
    The executor, which `stack` closes; the Engine's version; and what room it has, where that is another machine's.

    Raises:
        DependencyUnavailable: no Engine answers.
        InvalidRequest: its address, or what belongs to it, is wrong.
    """
    address = EngineAddress(
        url=settings.engine_url,
        certificates=settings.engine_certificates,
        verify=settings.engine_verified,
    )
    engine = await SdkEngine.connect(address)
    stack.callback(engine.close)
    directory_id = persistent_worker_id(settings.directory)
    surroundings = await find_surroundings(engine, settings.directory, engine_url=address.url, tasks_label=WORKER_LABEL)
    root, owner = settings.directory / "docker", _owner(settings.container_user)
    executor = DockerExecutor(
        engine,
        root,
        workspaces,
        worker_id=worker_id,
        directory_id=directory_id,
        engine_url=address.url,
        as_engine_sees=surroundings.engine_path,
        rules=ContainerRules(owner=owner, pids=settings.container_pids, tmp_bytes=settings.container_tmp_bytes),
        setups=SetupBounds(
            images=settings.setup_images,
            image_bytes=settings.setup_image_bytes,
            cache_bytes=settings.package_cache_bytes,
        ),
        warm=WarmBounds(cells=settings.warm_containers, idle_timeout=settings.warm_timeout),
        compiled=CompiledModules(root / "compiled", max_bytes=settings.compiled_bytes, owner=owner),
        locks=(settings.cache_directory or settings.directory) / "locks",
        published_host=partial(_published_host, settings, beside=surroundings.mounts is not None),
    )
    stack.push_async_callback(executor.close)
    version = await engine.version()
    await executor.open()
    return executor, version, surroundings.room


def _published_host(settings: WorkerSettings, *, beside: bool) -> str:
    """
    Under which address others reach the Engine's machine.

    Args:
        beside: whether this worker runs in a container of the Engine: then it knows its own address only.

    Raises:
        DependencyUnavailable: nobody has said it.
    """
    named = settings.published_host or urlsplit(settings.engine_url).hostname or ""
    if not named and beside:
        raise DependencyUnavailable(
            "a service publishes a port, and this worker does not know the address of its Engine's machine",
            hint="Give it FLEETEST_PUBLISHED_HOST.",
        )
    return find_published_host(named, settings.masters)


def _owner(user: tuple[int, int]) -> Owner:
    """Root hands its files to another user; anybody else can only have them as their own."""
    if os.geteuid() == 0:
        return Owner(uid=user[0], gid=user[1])
    return Owner(uid=os.geteuid(), gid=os.getegid())
