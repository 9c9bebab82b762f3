"""Generators of load on a worker: what is said when one cannot be used. That they work is tried with real Locust."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from fleetest.common.states import Outcome, Verdict
from fleetest.worker.runners.load import LoadRunner
from fleetest.worker.runners.load_generator import load_sample
from tests.support.load_speaker import READY, SAMPLE, SPEAKER
from tests.tools.local_worker import DirectoryBlobs, RecordingReporter, assignment, environment, make_spec, suite


@asynccontextmanager
async def generating(tmp_path, scenario, **spec):
    root = suite(tmp_path / "w", gevent=SPEAKER) if scenario else suite(tmp_path / "w")
    spec = make_spec(root, type="load", task_id="load", command=(scenario,), env={"PYTHONPATH": str(root)}, **spec)
    async with environment(spec) as place:
        session = await LoadRunner(DirectoryBlobs(tmp_path)).open(spec, place)
        asked, reporter = assignment(spec, shard_index=1, shard_count=4), RecordingReporter()
        ended = session.submit(asked, reporter)
        try:
            yield session, asked.ref, ended, reporter
        finally:
            await session.close()


async def until_begun(ended, reporter):
    async with asyncio.timeout(60):
        while not reporter.samples and not ended.done():
            reporter.changed.clear()
            changed = asyncio.create_task(reporter.changed.wait())
            await asyncio.wait([changed, ended], return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        ("", "pip install 'fleetest[performance]' there"),
        (
            "say(event='unfit', reason='there is no file load.py'); sys.exit(2)",
            "the generator: there is no file load.py",
        ),
        ("print('oh no'); sys.exit(3)", "it ended with exit code 3 before it was ready: oh no"),
        ("line.sendall(b'?\\n'); sys.exit(3)", "its line to the worker broke: "),
    ],
    ids=["no locust", "unfit", "ends", "garbage"],
)
async def test_a_generator_that_never_gets_ready_fails_the_task_and_says_why(tmp_path, scenario, reason):
    async with generating(tmp_path, scenario) as (_, _, ended, reporter), asyncio.timeout(60):
        await asyncio.wait([ended])

    assert ended.result().verdict is Verdict.FAILED
    assert reason in ended.result().reason
    assert (reporter.notes, reporter.results) == (None, [])


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("say(event='unfit', reason='a task raised KeyError'); sys.exit(1)", "a task raised KeyError"),
        ("os.kill(os.getpid(), 11)", "it was ended by SIGSEGV (Segmentation fault) before the end of the schedule"),
        ("sys.exit(0)", "it ended with exit code 0 before the end of the schedule"),
        ("say(event='sample', second=-1); sys.exit(0)", "its line to the worker broke: "),
    ],
)
async def test_a_generator_that_breaks_is_a_failed_case(tmp_path, ending, message):
    async with generating(tmp_path, READY + ending) as (_, _, ended, reporter), asyncio.timeout(60):
        await asyncio.wait([ended])

    assert ended.result().verdict is Verdict.COMPLETED
    (result,) = reporter.results
    assert (result.case_id, result.outcome) == ("generators::2 of 4", Outcome.FAILED)
    assert message in result.message
    assert len(reporter.samples) == 1


async def test_a_generator_that_told_all_has_no_case_of_its_own(tmp_path):
    async with generating(tmp_path, READY + "say(**" + SAMPLE % (1, True) + "); sys.exit(0)") as (
        _,
        _,
        ended,
        reporter,
    ):
        async with asyncio.timeout(60):
            await asyncio.wait([ended])

    assert (ended.result().verdict, reporter.results) == (Verdict.COMPLETED, [])
    assert [each.last for each in reporter.samples] == [False, True]


async def test_a_generator_that_is_stopped_still_tells_what_it_measured(tmp_path):
    stop = "say(**" + SAMPLE % (1, True) + "); sys.exit(0)"
    scenario = f"import signal; signal.signal(15, lambda *_: exec({stop!r}, globals())); {READY}signal.pause()"
    async with generating(tmp_path, scenario) as (session, ref, ended, reporter):
        await until_begun(ended, reporter)
        await session.stop(ref, reason="enough", grace=timedelta(seconds=30), finish_running_case=False)

    assert (ended.result().verdict, ended.result().reason) == (Verdict.CANCELLED, "enough")
    assert reporter.samples[-1].last


async def test_a_schedule_longer_than_the_total_limit_times_out_and_says_so(tmp_path):
    limit = timedelta(milliseconds=300)
    async with generating(tmp_path, READY + "import time; time.sleep(60)", total_timeout=limit) as (_, _, ended, _):
        async with asyncio.timeout(60):
            await asyncio.wait([ended])

    assert ended.result().verdict is Verdict.TIMED_OUT
    assert "a longer schedule needs a longer one" in ended.result().reason


@pytest.mark.parametrize(
    "changes",
    [{"second": -1}, {"second": "1"}, {"length_us": 2_000_000}, {"requests": [["GET /", 1]]}, {"requests": 3}],
    ids=str,
)
def test_what_is_no_sample_is_refused(changes):
    message = {"second": 0, "length_us": 0, "users": 0, "arrivals": 0, "lag_us": 0, "last": False, "requests": []}

    with pytest.raises(ValueError, match="not"):
        load_sample({**message, **changes})
