"""Stopping: what is cancelled ends within its grace, leaves no process, and does not disturb the rest."""

from __future__ import annotations

import signal

import psutil
import pytest

from fleetest.common.states import RunState, TaskState
from tests.acceptance.conftest import leave_nothing_running

SUITE = """
    version: 1
    name: stopping
    defaults: {env: {MARKS: %s}}
    tasks:
      polite: {run: 'trap "echo stopped > $MARKS/polite; exit" TERM; sleep 600 & echo $! > $MARKS/child; wait'}
      stubborn: {run: 'trap "" TERM; echo $$ > $MARKS/stubborn; while true; do sleep 1; done'}
    """


@pytest.fixture(params=["one master", "two masters"])
def cluster(request, until):
    """Two workers with a slot each; of two masters they use the one that the client does not."""
    if request.param == "one master":
        cluster = request.getfixturevalue("shared_cluster")
    else:
        cluster = request.getfixturevalue("apart")
        for name in ("one", "two"):
            request.getfixturevalue("start_worker")(name)
        with cluster.client() as client:
            until(lambda: len(client.workers()) == 2, what="both workers are there")
    yield cluster
    leave_nothing_running(cluster)


@pytest.fixture
def root(project, tmp_path):
    return project({"fleetest.yaml": SUITE % tmp_path})


@pytest.fixture
def run_id(cluster, root, tmp_path, until):
    """A run of a task that stops when asked and one that doesn't, both at it."""
    run_id = cluster.submit("--idempotency-key", tmp_path.name, cwd=root)
    until(lambda: _pid(tmp_path / "child") and _pid(tmp_path / "stubborn"), what="both tasks run")
    return run_id


def _pid(file):
    return int(file.read_text() or 0) if file.exists() else 0


def test_cancelled_run_ends_within_the_grace_and_leaves_no_process(cluster, run_id, tmp_path):
    pids = [_pid(tmp_path / "child"), _pid(tmp_path / "stubborn")]

    cluster.fleetest("cancel", run_id, "--grace", "0.5", "--reason", "enough")
    run = cluster.ended(run_id)

    assert (run.state, run.reason) == (RunState.CANCELLED, "enough")
    assert {task.state for task in run.tasks} == {TaskState.CANCELLED}
    assert (tmp_path / "polite").read_text() == "stopped\n"
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


def test_cancelled_task_leaves_the_others_alone(cluster, run_id, tmp_path):
    cluster.fleetest("cancel", run_id, "polite", "--grace", "5")

    with cluster.client() as client:
        for _ in client.watch(run_id):
            tasks = {task.task_id: task.state for task in client.get_run(run_id).tasks}
            if tasks["polite"].ended:
                break
    assert tasks == {"polite": TaskState.CANCELLED, "stubborn": TaskState.RUNNING}
    assert psutil.pid_exists(_pid(tmp_path / "stubborn"))
    assert not psutil.pid_exists(_pid(tmp_path / "child"))


def test_interrupted_follower_cancels_the_run(cluster, root, tmp_path, until):
    follower = cluster.start("run", "--task", "polite", cwd=root)
    next(line for line in follower.stderr if line.startswith("running "))  # it follows: before, a signal only stops it
    until(lambda: _pid(tmp_path / "child"), what="the task runs")

    follower.send_signal(signal.SIGINT)
    _, said = follower.communicate(timeout=60)

    assert follower.returncode == 1
    assert "cancelling the run" in said
    assert cluster.json("show", "latest")["state"] == RunState.CANCELLED
    assert not psutil.pid_exists(_pid(tmp_path / "child"))


def test_ended_run_cannot_be_cancelled_again(cluster, tmp_path):
    run_id = cluster.submit("--", "true", cwd=tmp_path)
    cluster.ended(run_id)

    done = cluster.fleetest("cancel", run_id)

    assert done.returncode == 0
    assert "had ended already" in done.stderr


def test_submitting_twice_with_one_key_finds_the_first_run(cluster, run_id, root, tmp_path):
    again = cluster.fleetest("run", "--detach", "--idempotency-key", tmp_path.name, cwd=root)

    assert again.stdout.strip() == run_id
    assert "submitted before" in again.stderr


def test_newer_run_of_a_branch_supersedes_the_older(cluster, root, run_id, until):
    branch = {"GITLAB_CI": "true", "CI_COMMIT_BRANCH": "topic"}
    blocked = """
        version: 1
        name: branchy
        tasks: {waits: {run: "true", requires: {capabilities: {colour: blue}}}}
        """
    (root / "fleetest.yaml").write_text(blocked)
    other = cluster.submit(cwd=root, **{**branch, "CI_COMMIT_BRANCH": "other"})
    older = cluster.submit(cwd=root, **branch)

    newer = cluster.fleetest("run", "--detach", "--supersede", cwd=root, **branch)

    assert f"run {older} is being cancelled in favour of this one" in newer.stderr
    assert cluster.ended(older).reason == f"superseded by run {newer.stdout.strip()}"
    with cluster.client() as client:
        assert client.get_run(other).state is RunState.RUNNING
        assert client.get_run(run_id).state is RunState.RUNNING
