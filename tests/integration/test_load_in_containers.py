"""Generators of load in containers: what they need there gets there, and their line gets out."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from fleetest.common.states import Verdict
from fleetest.worker.runners.load import LoadRunner
from tests.support.docker_executors import executor_on, prepared
from tests.support.load_speaker import READY, SAMPLE, SPEAKER
from tests.tools.local_worker import DirectoryBlobs, RecordingReporter, assignment, make_spec, suite


async def test_a_generator_in_a_container_is_begun_heard_and_stopped(docker_engine, base_image, tmp_path):
    stop = "say(**" + SAMPLE % (1, True) + "); sys.exit(0)"
    scenario = f"import signal; signal.signal(15, lambda *_: exec({stop!r}, globals())); {READY}signal.pause()"
    root = suite(tmp_path / "suite", gevent=SPEAKER)
    spec = make_spec(
        root, type="load", image=base_image, command=(scenario,), env={"PYTHONPATH": "/workspace"}, task_id="load"
    )
    async with executor_on(docker_engine, tmp_path / "worker") as executor, prepared(executor, spec) as place:
        session = await LoadRunner(DirectoryBlobs(tmp_path)).open(spec, place)
        asked, reporter = assignment(spec), RecordingReporter()
        ended = session.submit(asked, reporter)
        async with asyncio.timeout(60):
            while not reporter.samples and not ended.done():
                reporter.changed.clear()
                await reporter.changed.wait()
        await session.stop(asked.ref, reason="enough", grace=timedelta(seconds=30), finish_running_case=False)
        await session.close()

    assert (ended.result().verdict, ended.result().reason) == (Verdict.CANCELLED, "enough"), reporter.text
    assert [each.last for each in reporter.samples] == [False, True]
