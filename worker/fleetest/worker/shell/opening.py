"""Makes the environment of a task on this machine, with the executors of a worker, and takes it away again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from fleetest.common.errors import AlreadyExists, CapacityExceeded, NotFound
from fleetest.common.threads import in_thread
from fleetest.worker.blob_cache import BlobCache
from fleetest.worker.blob_stubs import BlobStubs
from fleetest.worker.client_blobs import BlobClient
from fleetest.worker.directories import remove
from fleetest.worker.executors.offered import open_executors
from fleetest.worker.identity import own_directory, persistent_worker_id
from fleetest.worker.masters import Masters
from fleetest.worker.ports import Environment, Executor
from fleetest.worker.session_stream import open_channel
from fleetest.worker.settings import WorkerSettings
from fleetest.worker.shell.origin import Door, TaskOrigin
from fleetest.worker.workspaces import WorkspaceCache

__all__ = ["hold_directory", "open_environment"]

_MOST_AT_ONCE: Final = 16


@contextmanager
def hold_directory(root: Path) -> Iterator[Path]:
    """
    A directory below `root` that no other shell uses now: the first that is free, since an earlier shell may have left
    a set-up environment there.

    Raises:
        CapacityExceeded: too many shells are open.
        InvalidRequest: it cannot be used.
    """
    for number in range(_MOST_AT_ONCE):
        with ExitStack() as stack:
            try:
                stack.enter_context(own_directory(root / str(number)))
            except AlreadyExists:
                continue
            yield root / str(number)
            return
    raise CapacityExceeded(f"{_MOST_AT_ONCE} shells are open already", hint="Leave one of them.")


@asynccontextmanager
async def open_environment(
    origin: TaskOrigin,
    door: Door,
    settings: WorkerSettings,
    *,
    secrets: Mapping[str, str],
    output: Callable[[bytes], None],
) -> AsyncIterator[Environment]:
    """
    The task's environment, prepared as a worker prepares it; gone on the way out, but for what its setup made.

    Args:
        settings: whose directory is this shell's alone, and which allow the task's executor only.
        output: takes what setup writes.

    Raises:
        SetupFailed: a line of `setup` failed.
        NotFound: the files of the run are not stored any more.
        InvalidRequest, CapacityExceeded, DependencyUnavailable: see `Executor.prepare`.
    """
    cache = BlobCache(settings.cache_directory or settings.directory.parent / "cache", max_bytes=settings.cache_bytes)
    masters = Masters((origin.address,))
    async with BlobStubs(masters, door.token, partial(open_channel, tls=door.tls)) as stubs:
        blobs = BlobClient(stubs, cache)
        workspaces = WorkspaceCache(blobs, cache, state_directory=settings.directory / "workspaces")
        try:
            async with open_executors(settings, workspaces, persistent_worker_id(settings.directory)) as offered:
                (executor,) = offered.executors
                environment = await _prepare(executor, origin, secrets, output)
                try:
                    yield environment
                finally:
                    await environment.close()
        finally:
            await in_thread(_remove_sources, settings.directory / "slots")


async def _prepare(
    executor: Executor, origin: TaskOrigin, secrets: Mapping[str, str], output: Callable[[bytes], None]
) -> Environment:
    try:
        return await executor.prepare(origin.spec, slot=0, secrets=secrets, output=output)
    except NotFound as error:
        raise NotFound(
            f"the files of run {origin.run_id} are not stored any more: {error.message}",
            hint="Open a shell in a later run, or run the suite again: fleetest run",
        ) from error


def _remove_sources(root: Path) -> None:
    """The workspaces of the process executor, which a worker would keep to be synchronised again."""
    for source in root.glob("*/*/src"):
        place = os.open(source.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove(place, source.name)
        finally:
            os.close(place)
