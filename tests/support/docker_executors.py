"""A docker executor on a real Engine, and what is needed to run tasks in it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

from fleetest.worker.executors.docker.cells import ContainerRules
from fleetest.worker.executors.docker.executor import DockerExecutor
from fleetest.worker.executors.docker.sdk_engine import EngineAddress, SdkEngine
from fleetest.worker.ownership import Owner
from fleetest.worker.runners.command import CommandRunner
from fleetest.worker.runners.pytest import PytestRunner
from tests.tools.local_worker import CopiedWorkspaces, DirectoryBlobs, RecordingReporter, run_cases

__all__ = ["OWNER", "executor_on", "prepared", "run_command", "session_in"]

OWNER = Owner(uid=1000, gid=1000)


@asynccontextmanager
async def executor_on(engine, directory, *, worker_id="w1", pids=200, **options):
    """The executor of one worker."""
    address = EngineAddress(url=engine.url)
    connected = await SdkEngine.connect(address)
    executor = DockerExecutor(
        connected,
        directory,
        options.pop("workspaces", None) or CopiedWorkspaces(),
        worker_id=worker_id,
        engine_url=address.url,
        rules=ContainerRules(owner=OWNER, pids=pids),
        **options,
    )
    await executor.open()
    try:
        yield executor
    finally:
        await executor.close()
        connected.close()


@asynccontextmanager
async def prepared(executor, spec, *, slot=0, secrets=None, reporter=None):
    """An environment; what `setup` writes goes to the reporter."""
    output = (reporter or RecordingReporter()).output
    environment = await executor.prepare(spec, slot=slot, secrets=secrets or {}, output=output)
    try:
        yield environment
    finally:
        await environment.close()


@asynccontextmanager
async def session_in(environment, spec, blobs=Path("unused")):
    runner = (CommandRunner if spec.type == "command" else PytestRunner)(DirectoryBlobs(blobs))
    session = await runner.open(spec, environment)
    try:
        yield session
    finally:
        await session.close()


async def run_command(executor, spec, **options):
    """One attempt in an environment of its own."""
    async with prepared(executor, spec, **options) as environment, session_in(environment, spec) as session:
        return await run_cases(session, spec, [])
