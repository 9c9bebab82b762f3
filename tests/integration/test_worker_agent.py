"""The worker as a process, with its real executor and command runner, against a master that speaks the protocol."""

from __future__ import annotations

import json
import signal

import grpc
import pytest

from fleetest.v1 import types_pb2
from tests.support.worker_process import worker_process
from tests.unit.worker.scripted_master import ScriptedMaster, serving

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def master():
    return ScriptedMaster()


@pytest.fixture
async def address(master):
    async with serving(master) as at:
        yield at


async def test_worker_runs_a_command_and_drains_on_sigterm(master, address, tmp_path):
    master.enqueue(type="command", shell="sleep 0.1; echo the password is $PASSWORD", secrets={"PASSWORD": "sesame"})

    async with worker_process(tmp_path, address, "--label", "zone=eu") as process:
        ended = await master.ended()
        process.send_signal(signal.SIGTERM)
        _, said = await process.communicate()

    assert ended.verdict == types_pb2.VERDICT_COMPLETED
    lines = [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]
    (line,) = [line for line in lines if line["message"] == "attempt_ended"]
    assert (line["worker_id"], line["run_id"], line["verdict"]) == ("w1", "r1", "completed")
    output = b"".join(report.output.content for report in master.reports())
    assert b"the password is ***" in output
    assert master.registrations[0][0].capabilities["zone"] == "eu"
    assert master.of("goodbye")
    assert process.returncode == 0


async def test_second_sigterm_ends_what_runs(master, address, tmp_path):
    started = tmp_path / "started"
    master.enqueue(type="command", shell=f"touch {started}; sleep 1000")

    async with worker_process(tmp_path / "worker", address) as process:
        await master.until(started.exists)
        process.send_signal(signal.SIGTERM)
        await master.until(lambda: any(beat.draining for beat in master.of("heartbeat")))
        process.send_signal(signal.SIGTERM)
        exit_code = await process.wait()

    ended = master.ends()["unit#0"]
    assert master.of("goodbye")
    assert (ended.verdict, ended.reason) == (types_pb2.VERDICT_ERRORED, "worker shut down")
    assert exit_code == 0


async def test_reports_of_a_killed_worker_are_sent_by_the_next(master, address, tmp_path):
    master.acknowledges = False
    master.enqueue(type="command", shell="exit 3")
    async with worker_process(tmp_path, address) as process:
        await master.ended()
        process.kill()
        await process.wait()
    master.heard.clear()

    async with worker_process(tmp_path, address):
        await master.ended()

    assert [outcome for _, outcome in master.results()] == [types_pb2.OUTCOME_FAILED]


async def test_wrong_token_is_explained(master, address, tmp_path):
    master.refusals = [grpc.StatusCode.UNAUTHENTICATED]

    async with worker_process(tmp_path, address) as process:
        _, said = await process.communicate()

    assert process.returncode == 3
    assert b"as the test says" in said
    assert b"Traceback" not in said


async def test_two_workers_do_not_share_a_directory(master, address, tmp_path):
    async with worker_process(tmp_path, address):
        await master.wanted(2)
        async with worker_process(tmp_path, address) as second:
            _, said = await second.communicate()

    assert second.returncode == 3
    assert b"another worker uses the directory" in said
