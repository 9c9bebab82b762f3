"""Which executors a worker has: those that it may have, as far as this machine can."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import structlog

from fleetest.common.errors import DependencyUnavailable
from fleetest.common.tasks import Resources
from fleetest.worker.executors.compiled_modules import CompiledModules
from fleetest.worker.executors.process import ProcessExecutor
from fleetest.worker.ports import Executor, Workspaces
from fleetest.worker.published_host import find_published_host
from fleetest.worker.settings import WorkerSettings

__all__ = ["Offered", "open_executors"]

_DOCKER: Final = "docker"
_CONNECT_SECONDS: Final = 30

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
                compiled=CompiledModules(
                    (settings.cache_directory or settings.directory) / "compiled", max_bytes=settings.compiled_bytes
                ),
                published_host=partial(find_published_host, settings.published_host, settings.masters),
            )
            stack.push_async_callback(process.close)
            offered.append(process)
        if _DOCKER in names or (not names and await _listens(settings.engine_url)):
            from fleetest.worker.executors.docker.opening import open_docker  # twenty megabytes

            try:
                docker, version, room = await open_docker(stack, settings, workspaces, worker_id)
                offered.append(docker)
            except DependencyUnavailable as error:
                if names:
                    raise
                _log.info("docker_not_offered", reason=error.message)
        yield Offered(executors=tuple(offered), engine_version=version, room=room)


async def _listens(url: str) -> bool:
    """Whether something takes connections at an Engine's address; of an address that only the SDK can read, perhaps."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            if parts.scheme == "unix":
                _, writer = await asyncio.open_unix_connection(parts.path)
            elif parts.scheme in {"tcp", "http", "https"} and parts.hostname and parts.port:
                _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            else:
                return True
    except (OSError, TimeoutError, ValueError) as error:
        _log.info("docker_not_offered", reason=f"no Docker Engine answers at {url}: {error}")
        return False
    writer.close()
    return True
