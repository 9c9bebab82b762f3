"""The client at one master, the worker at another: whatever the one is told, the other hears of."""

from __future__ import annotations

import time

import pytest

from fleetest.common.states import Outcome, RunState, WorkerState

LONG = """
version: 1
name: long
tasks:
  t: {run: "echo first; until test -e %s; do sleep 0.02; done; echo last"}
"""
TAKING = """
    version: 1
    name: taking
    tasks:
      build: {run: echo built > out.txt, artifacts: out.txt}
      test: {run: grep built out.txt, inputs: build}
    """


@pytest.fixture
def client(apart):
    with apart.client() as client:
        yield client


@pytest.fixture
def worker(start_worker, client, until):
    start_worker("only")
    until(client.workers, what="the worker is there")


def test_run_is_watched_to_its_end_and_shown_as_it_ended(apart, worker, project):
    root = project(
        {"test_a.py": "import pytest\n\n@pytest.mark.parametrize('n', range(20))\ndef test_a(n): assert n % 7\n"}
    )

    done = apart.fleetest("run", "--", "pytest", "test_a.py", cwd=root)

    assert done.returncode == 1, done.stderr
    assert "20 cases: 17 passed, 3 failed" in done.stdout + done.stderr
    run = apart.json("show", "latest")
    assert (run["state"], run["counts"]["passed"], run["counts"]["failed"]) == ("failed", 17, 3)
    assert len(apart.results(run["run_id"])) == 20


def test_a_task_takes_what_another_left_at_whichever_master(apart, worker, project):
    root = project({"fleetest.yaml": TAKING})

    done = apart.fleetest("run", cwd=root)

    assert done.returncode == 0, done.stdout + done.stderr


def test_output_is_followed_while_it_is_written(client, worker, tmp_path):
    gate = tmp_path / "gate"
    run_id = client.submit(LONG % gate).run_id
    said = []

    for chunk in client.logs(run_id, "t", follow=True):
        said += chunk.content.decode().split()
        gate.touch()

    assert said == ["first", "last"]


def test_a_worker_is_seen_as_busy_as_it_is(client, worker, tmp_path, until):
    gate = tmp_path / "gate"
    run_id = client.submit(LONG % gate).run_id
    next(iter(client.logs(run_id, "t", follow=True)))

    busy = client.workers()[0]
    gate.touch()
    [*client.watch(run_id)]

    assert (busy.slots_used, busy.state) == (1, WorkerState.BUSY)
    until(lambda: client.workers()[0].slots_used == 0, what="the slot is seen to be free", seconds=10)


def test_run_cancelled_at_one_master_stops_at_the_other(client, worker, tmp_path):
    run_id = client.submit(LONG % (tmp_path / "never")).run_id
    next(iter(client.logs(run_id, "t", follow=True)))

    began = time.monotonic()
    client.cancel(run_id, reason="enough")
    [*client.watch(run_id)]

    assert time.monotonic() - began < 15  # the grace is ten seconds, and `sh` needs none of it
    run = client.get_run(run_id)
    assert (run.state, run.reason) == (RunState.CANCELLED, "enough")


def test_drained_worker_takes_no_more(client, worker, until):
    client.drain("only", reason="upgrade")

    until(lambda: client.workers()[0].state is WorkerState.DRAINING, what="it drains")
    run_id = client.submit("version: 1\nname: s\ntasks: {t: {run: 'true'}}").run_id
    assert not client.get_run(run_id).state.ended


def test_artifacts_and_files_pass_through_both(apart, client, worker, project, tmp_path):
    root = project(
        {
            "in.txt": "hello",
            "fleetest.yaml": "version: 1\nname: s\ntasks: {t: {run: 'cp in.txt out.txt', artifacts: [out.txt]}}",
        }
    )
    run_id = apart.submit(cwd=root)
    apart.ended(run_id)

    [artifact] = client.artifacts(run_id)
    saved = client.download(artifact, tmp_path / "saved")

    assert saved.read_text() == "hello"
    assert [case.result.outcome for case in client.cases(run_id)] == [Outcome.PASSED]
