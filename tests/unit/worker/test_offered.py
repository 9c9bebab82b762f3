"""Which executors a worker finds on its machine, and what it loads for that."""

import asyncio
import sys
from pathlib import Path

OFFERED = """
import asyncio, sys
from pathlib import Path
from fleetest.worker import assembly
from fleetest.worker.executors.offered import open_executors
from fleetest.worker.settings import WorkerSettings

async def main():
    for url in sys.argv[2:]:
        settings = WorkerSettings(directory=Path(sys.argv[1]), engine_url=url)
        async with open_executors(settings, None, "w") as offered:
            print([executor.name for executor in offered.executors], "docker" in sys.modules)

asyncio.run(main())
"""


async def test_machine_without_an_engine_offers_processes_and_does_not_load_what_speaks_with_one(
    tmp_path: Path,
) -> None:
    urls = ("unix:///nowhere/docker.sock", "tcp://127.0.0.1:1")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OFFERED, str(tmp_path), *urls, stdout=asyncio.subprocess.PIPE
    )

    answer, _ = await process.communicate()

    assert [line for line in answer.splitlines() if line.startswith(b"[")] == [b"['process'] False"] * 2
