"""Which executors a worker finds on its machine, and what it loads for that."""

import asyncio
import sys
from pathlib import Path

import pytest

OFFERED = """
import asyncio, sys
from pathlib import Path
from fleetest.worker import assembly
from fleetest.worker.executors.offered import open_executors
from fleetest.worker.settings import WorkerSettings

async def main():
    settings = WorkerSettings(directory=Path(sys.argv[1]), engine_url=sys.argv[2])
    async with open_executors(settings, None, "w") as offered:
        print([executor.name for executor in offered.executors], "docker" in sys.modules)

asyncio.run(main())
"""


@pytest.mark.parametrize("url", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"])
async def test_machine_without_an_engine_offers_processes_and_does_not_load_what_speaks_with_one(
    tmp_path: Path, url: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OFFERED, str(tmp_path), url, stdout=asyncio.subprocess.PIPE
    )

    answer, _ = await process.communicate()

    assert answer.splitlines()[-1] == b"['process'] False"
