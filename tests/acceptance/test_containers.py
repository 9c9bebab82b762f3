"""The command line with tasks in containers: which executor runs them, and shells where they ran."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest

from fleetest.common.states import RunState, TaskState
from tests.acceptance.conftest import FLEETEST, start_cluster, write_files
from tests.support.terminal import open_terminal

SUITE = """
version: 1
name: s
project: boxes
tasks:
  boxed:
    run: "pwd | tee left.txt; exit 1"
    image: {image}
    network: none
    env: {{COLOUR: blue}}
    secrets: [TOKEN]
    artifacts: [left.txt]
  taker: {{run: grep -x /workspace left.txt, image: {image}, inputs: boxed, needs: {{boxed: always}}}}
  free: {{run: "pwd"}}
"""


@pytest.fixture(scope="module")
def docker_cluster(docker_engine, base_image, tmp_path_factory):
    """One worker, which has both executors; without an image, tasks run as processes."""
    directory = tmp_path_factory.mktemp("docker-cluster")
    environment = {"FLEETEST_EXECUTORS": "process,docker", **docker_engine.environment}
    running = start_cluster(directory, "--workers", "1", "--slots", "1", **environment)
    yield running
    assert running.fleetest("down").returncode == 0


@pytest.fixture(scope="module")
def ran(docker_cluster, base_image, tmp_path_factory):
    """The directory of a project whose run has ended."""
    files = {"fleetest.yaml": SUITE.format(image=base_image), "file.txt": "hello from the workspace\n"}
    root = write_files(tmp_path_factory.mktemp("boxes"), files)
    run_id = docker_cluster.submit("--secret", "TOKEN", cwd=root, TOKEN="t0ken")
    run = docker_cluster.ended(run_id)
    assert run.state is RunState.FAILED
    assert {task.task_id: task.state for task in run.tasks}["taker"] is TaskState.PASSED  # its input was there
    return root


@pytest.fixture
def shell_argv():
    return [FLEETEST, "shell", "--project", "boxes", "boxed", "--secret", "TOKEN"]


@pytest.fixture
def environment(docker_cluster):
    return {**docker_cluster.environment, "TOKEN": "t0ken"}


@pytest.fixture
def leaves_nothing(docker_cluster, docker_engine):
    """No container, volume or file of a shell is left."""
    yield
    [worker_id] = docker_cluster.directory.glob("shell/*/worker-id")
    label = f"label=fleetest.worker={worker_id.read_text().strip()}"
    assert not docker_engine.containers(label)
    assert not docker_engine.docker("volume", "ls", "--quiet", "--filter", label)
    assert not list(docker_cluster.directory.glob("shell/*/docker/containers/*"))


@pytest.mark.usefixtures("leaves_nothing")
def test_shell_on_a_terminal_is_in_a_container_like_the_tasks(ran, shell_argv, environment, base_image):
    with open_terminal(shell_argv, env=environment, cwd=ran, rows=31, columns=99) as shell:
        shell.until(f"(failed), in a container of {base_image} with network none; ")
        shell.until("/workspace$ ")
        shell.type("PS1='rea''dy> '\n")  # what is typed, and may be echoed twice, does not look like the prompt
        shell.until("ready> ")

        # The prompt may come twice, too: another word says that all has been shown.
        shell.type("cat file.txt; echo $COLOUR $TOKEN; pwd; id -u; ls /sys/class/net; echo sho''wn\n")
        assert re.search(r"hello from the workspace\s+blue t0ken\s+/workspace\s+1000\s+lo\s", shell.until("shown"))
        shell.type("stty size\n")
        shell.until("31 99")
        shell.resize(33, 101)
        shell.type("until stty size | grep -q '^33 101$'; do sleep 0.1; done; echo resi''zed\n")
        shell.until("resized")
        shell.type("sh -c 'echo asleep; exec sleep 300'\n")  # it has the terminal when it says so
        shell.until("asleep\r\n")
        shell.type("\x03")
        shell.until("ready> ")
        shell.type("echo code $?\n")
        shell.until("code 130")
        shell.type("exit 7\n")

        assert shell.ended() == 7


@pytest.mark.usefixtures("leaves_nothing")
def test_command_in_a_container_has_our_streams_and_exit_code(ran, shell_argv, environment):
    script = "tr a-z A-Z; echo error >&2; sleep 300 & kill -9 $$"

    done = subprocess.run(
        [*shell_argv, "--", "sh", "-c", script],
        input="piped" * 100_000,
        cwd=ran,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (128 + signal.SIGKILL, "PIPED" * 100_000)
    assert done.stderr.endswith("gone when this ends\nerror\n")


@pytest.mark.usefixtures("leaves_nothing")
def test_container_goes_when_the_shell_is_told_to_end(ran, shell_argv, environment):
    with open_terminal(shell_argv, env=environment, cwd=ran) as shell:
        shell.type("echo here; sleep 300\n")
        shell.until("here\r\n")

        shell.program.terminate()

        assert shell.ended() == 128 + signal.SIGTERM


@pytest.mark.usefixtures("leaves_nothing")
def test_command_that_the_image_lacks_and_an_engine_that_is_not_there_are_named(ran, docker_cluster):
    arguments = ("shell", "--project", "boxes", "boxed", "--secret", "TOKEN", "--", "no-such-tool")
    lacking = docker_cluster.fleetest(*arguments, cwd=ran, TOKEN="t")
    absent = docker_cluster.fleetest(*arguments, cwd=ran, TOKEN="t", DOCKER_HOST="unix:///nowhere.sock")

    assert (lacking.returncode, absent.returncode) == (127, 3)
    assert "command not found: no-such-tool" in lacking.stderr
    assert "the Docker Engine at unix:///nowhere.sock does not answer" in absent.stderr


def where_they_ran(cluster, run_id, *tasks):
    """What each task's `pwd` said."""
    return [cluster.fleetest("logs", run_id, task).stdout.strip() for task in tasks]


def test_tasks_run_where_their_image_says(docker_cluster, ran):
    boxed, free = where_they_ran(docker_cluster, "latest", "boxed", "free")

    assert boxed == "/workspace"
    assert free.startswith(str(docker_cluster.directory))


def test_process_is_chosen_for_every_task_of_a_run(docker_cluster, ran):
    run_id = docker_cluster.submit("--executor", "process", "--secret", "TOKEN", cwd=ran, TOKEN="t")
    docker_cluster.ended(run_id)

    boxed, free = where_they_ran(docker_cluster, run_id, "boxed", "free")

    assert boxed.startswith(str(docker_cluster.directory))
    assert free.startswith(str(docker_cluster.directory))


def test_docker_is_chosen_for_tasks_that_have_an_image_and_refused_for_others(docker_cluster, ran):
    options = ("--executor", "docker", "--secret", "TOKEN")
    refused = docker_cluster.fleetest("run", *options, cwd=ran, TOKEN="t")
    run_id = docker_cluster.submit(*options, "--task", "boxed", cwd=ran, TOKEN="t")
    docker_cluster.ended(run_id)

    assert refused.returncode == 2
    assert "no image for what is to run in Docker: free" in refused.stderr
    assert where_they_ran(docker_cluster, run_id, "boxed") == ["/workspace"]
