"""Runs a task's `setup`."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from fleetest.common.errors import CapacityExceeded
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.errors import SetupFailed
from fleetest.worker.executors.setup_products import SetupProducts, snapshot
from fleetest.worker.tail import Tail

if TYPE_CHECKING:
    from fleetest.worker.ports import Environment

__all__ = ["run_line", "run_setup"]

_FULL_BYTES: Final = 1 << 20
_GRACE: Final = timedelta(seconds=2)


async def run_setup(
    environment: Environment, spec: TaskSpec, *, products: SetupProducts, output: Callable[[bytes], None]
) -> None:
    """
    Run every line of `setup`, in order, and keep what they leave in the source tree.

    Raises:
        SetupFailed: a line failed; those after it have not run.
        CapacityExceeded: a line failed, and the disk is full.
    """
    before = await asyncio.to_thread(snapshot, environment.host_source)
    version = spec.version_control.described_version
    # setuptools-scm and hatch-vcs both read it; the workspace has no .git to derive it from.
    env = {"SETUPTOOLS_SCM_PRETEND_VERSION": version} if version else {}
    for line in spec.setup:
        output(f"$ {line}\n".encode())
        await run_line(
            environment,
            ["/bin/sh", "-c", line],
            line,
            env=env,
            cwd=environment.source / spec.working_directory,
            output=output,
        )
    await asyncio.to_thread(products.keep, environment.host_source, before)


async def run_line(
    environment: Environment,
    argv: Sequence[str],
    line: str,
    *,
    cwd: Path,
    output: Callable[[bytes], None],
    env: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """
    Run one line of a setup.

    Args:
        line: what it is called.

    Raises:
        SetupFailed, CapacityExceeded: as `run_setup` does.
    """
    tail = Tail()

    def write(content: bytes) -> None:
        tail.write(content)
        output(content)

    process = await environment.start(argv, env=env, cwd=cwd, output=write)
    try:
        exit_code = await process.wait()
    except asyncio.CancelledError:
        await process.stop(_GRACE)
        raise
    if exit_code != 0:
        if shutil.disk_usage(environment.host_source).free < _FULL_BYTES:
            raise CapacityExceeded(f"the disk of {environment.host_source} was full when setup failed: {line}")
        reason = process.end_reason
        raise SetupFailed(line, exit_code, "\n".join(part for part in (tail.text(), reason) if part))
