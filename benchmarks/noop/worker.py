"""A worker as any other, but for its runner, whose tasks do nothing. Its settings are those of `fleetest worker`."""

from __future__ import annotations

import asyncio
import os
import signal

from benchmarks.noop.runner import NoopRunner
from fleetest.common.logging import configure_logging
from fleetest.common.settings import read_settings
from fleetest.common.tether import tether_to_parent
from fleetest.common.tuning import loop_factory, settle
from fleetest.worker.assembly import open_worker
from fleetest.worker.settings import WorkerSettings


async def _work() -> None:
    settings = read_settings(WorkerSettings, os.environ, {})
    configure_logging("worker", level=settings.log_level)
    async with open_worker(settings, make_runners=lambda _: [NoopRunner()]) as agent:
        settle()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.stop, "worker was interrupted")
        await agent.run()


if __name__ == "__main__":
    tether_to_parent(os.environ)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_work())
