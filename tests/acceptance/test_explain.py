"""Why is this task not running? Each reason is made true, seen, and removed; then the task runs."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from fleetest.client import ReasonKind
from fleetest.common.states import RunState

PLAIN = "version: 1\nname: s\ntasks: {t: {run: 'true'}}"
BLUE = "version: 1\nname: s\ntasks: {t: {run: 'true', requires: {capabilities: {colour: blue}}}}"


@pytest.fixture
def client(apart):
    with apart.client(project="explained") as client:
        yield client


@pytest.fixture
def reason(client, until):
    """Waits until a task is explained by a reason of this kind, and answers that."""

    def find(run_id, kind, task_id="t"):
        found = []

        def look():
            explanation = client.explain(run_id, task_id=task_id)[0]
            found[:] = [each for each in explanation.reasons if each.kind is kind]
            return found

        until(look, seconds=30, what=f"{task_id} is explained by {kind}")
        return found[0]

    return find


@pytest.fixture
def passes(apart):
    def check(run_id):
        assert apart.ended(run_id).state is RunState.PASSED

    return check


@pytest.fixture
def holder(client, tmp_path, until):
    """Occupies a slot until its file is there; answers run and file."""

    def hold(name="holder"):
        gate, held = tmp_path / f"{name}.gate", tmp_path / f"{name}.held"
        command = f"touch {held}; until test -e {gate}; do sleep 0.02; done"
        run_id = client.submit(f"version: 1\nname: s\ntasks: {{t: {{run: '{command}'}}}}").run_id
        until(held.exists, what="the slot is held")
        return run_id, gate

    return hold


def test_no_workers(client, reason, passes, start_worker):
    run_id = client.submit(PLAIN).run_id
    assert reason(run_id, ReasonKind.NO_WORKERS).message == "no worker is connected; start one with: fleetest worker"

    start_worker("first")

    passes(run_id)


def test_missing_capability(client, reason, passes, start_worker, until):
    start_worker("plain")
    until(client.workers, what="the worker is there")
    run_id = client.submit(BLUE).run_id
    missing = reason(run_id, ReasonKind.MISSING_CAPABILITY)
    assert (missing.constraint, missing.workers, missing.workers_total) == ("colour=blue", 1, 1)
    assert missing.message == "1 of 1 worker lacks colour=blue"

    start_worker("blue", "--label", "colour=blue")

    passes(run_id)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2 or not shutil.which("taskset"), reason="needs two cores, taskset")
def test_too_large(client, reason, passes, start_worker, until):
    core = min(os.sched_getaffinity(0))
    start_worker("small", before=["taskset", "-c", str(core)])
    until(client.workers, what="the worker is there")
    run_id = client.submit("version: 1\nname: s\ntasks: {t: {run: 'true', requires: {cpu: 2}}}").run_id
    large = reason(run_id, ReasonKind.TOO_LARGE)
    assert (large.constraint, large.workers, large.workers_total) == ("cpu 2", 1, 1)

    start_worker("large")

    passes(run_id)


def test_workers_busy_and_behind_others(client, reason, passes, start_worker, holder):
    start_worker("only")
    held, gate = holder()
    first, second = client.submit(PLAIN).run_id, client.submit(PLAIN).run_id
    assert reason(first, ReasonKind.WORKERS_BUSY).workers == 1
    assert reason(first, ReasonKind.BEHIND_OTHERS).queue_position == 1
    assert reason(second, ReasonKind.BEHIND_OTHERS).queue_position == 2
    assert reason(held, ReasonKind.RUNS).message == "1 of its shards runs on only"

    gate.touch()

    passes(first)
    passes(second)


def test_workers_draining(client, reason, passes, start_worker, shared_masters, holder):
    start_worker("going")
    held, gate = holder()
    run_id = client.submit(PLAIN).run_id
    client.drain("going")
    assert reason(run_id, ReasonKind.WORKERS_DRAINING).workers == 1
    assert client.get_run(held).state is RunState.RUNNING

    gate.touch()
    start_worker("coming")

    passes(held)
    passes(run_id)
    assert [case.worker_id for case in client.cases(run_id)] == ["coming"]
    assert shared_masters.process("going").is_running()


def test_waits_for_task_and_ended(client, reason, apart, start_worker, tmp_path):
    start_worker("only")
    gate = tmp_path / "gate"
    suite = f"""
version: 1
name: s
tasks:
  first: {{run: "until test -e {gate}; do sleep 0.02; done"}}
  t: {{run: "true", needs: [first]}}
"""
    run_id = client.submit(suite).run_id
    assert reason(run_id, ReasonKind.WAITS_FOR_TASK).constraint == "first"

    gate.touch()

    assert apart.ended(run_id).state is RunState.PASSED
    assert reason(run_id, ReasonKind.ENDED).message == "it has ended: passed"


def test_stopping(client, reason, apart, start_worker, tmp_path, until):
    start_worker("only")
    began, gate = tmp_path / "began", tmp_path / "gate"
    command = f"trap : TERM; touch {began}; until test -e {gate}; do sleep 0.02; done"
    run_id = client.submit(f"version: 1\nname: s\ntasks: {{t: {{run: '{command}'}}}}").run_id
    until(began.exists, what="the task runs")
    client.cancel(run_id, reason="enough")
    assert reason(run_id, ReasonKind.STOPPING).message == "it is being stopped: enough"

    gate.touch()

    assert apart.ended(run_id).state is RunState.CANCELLED


def test_impossible_requirement_is_explained_to_whoever_waits(cluster, project):
    suite = """
        version: 1
        name: impossible
        tasks: {t: {run: "true", requires: {capabilities: {colour: blue}}}}
        """
    follower = cluster.start("run", cwd=project({"fleetest.yaml": suite}))
    said = next(line for line in follower.stderr if line.startswith("waiting: "))
    explained = cluster.fleetest("explain", "latest", "t")
    follower.send_signal(signal.SIGINT)
    follower.communicate(timeout=30)

    assert said == "waiting: 2 of 2 workers lack colour=blue (t)\n"
    assert "t  queued\n  - 2 of 2 workers lack colour=blue\n" in explained.stdout
    assert follower.returncode == 1


def test_retry_wait_and_workers_not_ready(client, apart, passes, start_worker, project, until):
    run_id = apart.submit("--", "true", cwd=project({"file": "content"}))
    blobs, away = apart.directory / "blobs", apart.directory / "away"
    blobs.rename(away)
    blobs.mkdir()
    start_worker("sick")
    seen = {}

    def look():
        seen.update({each.kind: each.message for each in client.explain(run_id)[0].reasons})
        return {ReasonKind.RETRY_WAIT, ReasonKind.WORKERS_NOT_READY} <= seen.keys()

    until(look, seconds=30, what="the worker's infrastructure has failed three times")
    assert "before its next attempt" in seen[ReasonKind.RETRY_WAIT]
    assert "3 infrastructure failures in a row" in seen[ReasonKind.WORKERS_NOT_READY]

    blobs.rmdir()
    away.rename(blobs)
    start_worker("healthy")

    passes(run_id)
