"""A worker as its own process, as an operator starts one."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager

__all__ = ["worker_process"]


@asynccontextmanager
async def worker_process(directory, address, *options, **environment):
    """A worker `w1` with two slots; killed at the end if it still runs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLEETEST_", "DOCKER_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fleetest.worker",
        "worker",
        "--master",
        address,
        "--id",
        "w1",
        "--slots",
        "2",
        "--directory",
        str(directory),
        *options,
        env={**inherited, "FLEETEST_TOKEN": "hush", "FLEETEST_EXECUTORS": "process", **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
