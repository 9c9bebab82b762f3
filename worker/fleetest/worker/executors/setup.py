"""Runs a task's `setup` in a virtual environment of its own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fleetest.common.errors import CapacityExceeded
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.errors import SetupFailed
from fleetest.worker.executors.places import Place
from fleetest.worker.executors.setup_products import SetupProducts, snapshot
from fleetest.worker.tail import Tail

if TYPE_CHECKING:
    from fleetest.worker.ports import Environment

__all__ = ["run_setup"]

_FULL_BYTES: Final = 1 << 20
_GRACE: Final = timedelta(seconds=2)


async def run_setup(
    environment: Environment, spec: TaskSpec, place: Place, *, interpreter: str, output: Callable[[bytes], None]
) -> None:
    """
    Make the virtual environment of `place` and run every line of `setup` there, in order, from the beginning.

    Only when all of it has succeeded does the place count as set up.

    Raises:
        SetupFailed: a line failed; those after it have not run.
        CapacityExceeded: a line failed, and the disk is full.
    """
    place.forget_setup()
    before = await asyncio.to_thread(snapshot, place.source)
    make_venv = [interpreter, "-m", "venv", str(place.venv)]
    await _run(environment, place.source, make_venv, " ".join(make_venv), {}, output)
    version = spec.version_control.described_version
    # setuptools-scm and hatch-vcs both read it; the workspace has no .git to derive it from.
    env = {"SETUPTOOLS_SCM_PRETEND_VERSION": version} if version else {}
    for line in spec.setup:
        output(f"$ {line}\n".encode())
        await _run(environment, place.source / spec.working_directory, ["/bin/sh", "-c", line], line, env, output)
    await asyncio.to_thread(SetupProducts(place.setup_products).keep, place.source, before)
    place.mark_set_up()


async def _run(
    environment: Environment,
    cwd: Path,
    argv: list[str],
    line: str,
    env: Mapping[str, str],
    output: Callable[[bytes], None],
) -> None:
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
