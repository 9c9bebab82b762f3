"""`fleetest shell`: where a task ran as a process, made again here, with a real terminal, cluster and files."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import psutil
import pytest

from tests.acceptance.conftest import FLEETEST, write_files
from tests.support.terminal import open_terminal

SUITE = """
version: 1
name: s
project: shells
defaults:
  env: {COLOUR: blue}
tasks:
  unit: {args: tests, working_directory: sub}
  made: {run: "test -e product", setup: "echo made by setup > product; echo so said setup"}
  secret: {run: "test -n $TOKEN", secrets: [TOKEN, OTHER]}
"""

FILES = {
    "fleetest.yaml": SUITE,
    "file.txt": "hello from the workspace\n",
    "sub/tests/test_a.py": "def test_good(): pass\ndef test_bad(): assert open('../file.txt').read() == 'x'\n",
}


@pytest.fixture(scope="module")
def ran(shared_cluster, tmp_path_factory):
    """The directory of a project whose run has ended: one for all tests, since none may change anything."""
    root = write_files(tmp_path_factory.mktemp("shells"), FILES)
    secrets = {"TOKEN": "t0ken", "OTHER": "0ther"}
    run_id = shared_cluster.submit("--secret", "TOKEN", "--secret", "OTHER", cwd=root, **secrets)
    shared_cluster.ended(run_id)
    return root


@pytest.fixture
def shell(cluster, ran):
    """Runs a command in the environment of a task of that run."""

    def in_task(*arguments, **options):
        return cluster.fleetest("shell", "--project", "shells", *arguments, cwd=ran, **options)

    return in_task


@pytest.fixture
def terminal(cluster, ran):
    """Opens an interactive shell on a terminal."""

    def open_shell(*arguments, **environment):
        env = {**cluster.environment, "SHELL": "/bin/sh", "PS1": "ready> ", **environment}
        return open_terminal([FLEETEST, "shell", "--project", "shells", *arguments], env=env, cwd=ran)

    return open_shell


@pytest.fixture(autouse=True)
def leaves_nothing(request):
    """No file of the workspace, no temporary directory, no process is left, however a shell ended."""
    cluster = request.getfixturevalue("cluster")
    yield
    kept = cluster.directory / "shell"
    assert not list(kept.glob("*/slots/*/*/src"))
    here = [process for process in psutil.process_iter(["environ"]) if _inside(process, kept)]
    assert not here


def _inside(process, directory):
    return str(directory) in (process.info["environ"] or {}).get("PWD", "")


def test_shell_on_a_terminal_is_where_the_task_ran_and_its_exit_code_is_ours(terminal):
    with terminal("unit") as shell:
        assert re.search(
            r"unit of run \S+ \(failed\), as processes of this machine in \S+/src; ", shell.until("ready> ")
        )

        shell.type("cat ../file.txt; echo $COLOUR $FLEETEST_TASK; pwd\n")
        assert re.search(r"hello from the workspace\s+blue unit\s+/\S+/src/sub\s", shell.until("ready> "))

        shell.type("exit 7\n")
        assert shell.ended() == 7


def test_keys_and_window_of_the_terminal_belong_to_the_shell(terminal):
    with terminal("unit") as shell:
        shell.until("ready> ")

        shell.resize(33, 101)
        shell.type("stty size\n")
        shell.until("33 101")
        shell.type("sh -c 'echo asleep; exec sleep 300'\n")  # it has the terminal when it says so
        shell.until("asleep\r\n")
        shell.type("\x03")
        shell.until("ready> ")
        shell.type("echo $?\n")
        shell.until("130")
        shell.type("\x04")

        assert shell.ended() in {0, 130}


def test_what_the_shell_leaves_running_ends_with_it(terminal, tmp_path, until):
    pid_file = tmp_path / "pid"
    with terminal("unit") as shell:
        shell.until("ready> ")
        shell.type(f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 300' &\n")
        until(lambda: pid_file.exists() and pid_file.read_text().strip())
        shell.type("exit\n")
        shell.ended()

    assert not psutil.pid_exists(int(pid_file.read_text()))


def test_told_to_end_it_takes_all_away(terminal, until):
    with terminal("unit") as shell:
        shell.until("ready> ")
        shell.type("sleep 300\n")
        shell.until("sleep 300")

        shell.program.terminate()

        assert shell.ended() == 128 + signal.SIGTERM


def test_command_runs_there_with_our_exit_code(shell):
    failed = shell("unit", "--", sys.executable, "-m", "pytest", "-x", "-q", "tests")

    assert failed.returncode == 1
    assert "1 failed, 1 passed" in failed.stdout


def test_command_has_our_streams(cluster, ran):
    argv = [
        FLEETEST,
        "shell",
        "--project",
        "shells",
        "unit",
        "--",
        "sh",
        "-c",
        "tr a-z A-Z; echo error >&2; kill -9 $$",
    ]

    done = subprocess.run(
        argv, input="piped", cwd=ran, env=cluster.environment, capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stdout) == (128 + signal.SIGKILL, "PIPED")
    assert done.stderr.endswith("error\n")


def test_setup_is_run_once_and_used_again(shell):
    first = shell("made", "--", "cat", "product")
    again = shell("made", "--", "cat", "product")

    assert (first.stdout, again.stdout) == ("made by setup\n", "made by setup\n")
    assert "so said setup" in first.stderr
    assert "so said setup" not in again.stderr
    assert "; setup reused; " in again.stderr


def test_two_shells_are_apart(terminal, shell):
    with terminal("unit") as first:
        first.until("ready> ")
        first.type("echo mine > ../file.txt; echo done\n")
        first.until("done\r\n")

        second = shell("unit", "--", "cat", "../file.txt")

        first.type("exit\n")
        first.ended()
    assert second.stdout == "hello from the workspace\n"


def test_secrets_are_given_again_by_name(shell):
    given = shell(
        "secret", "--secret", "TOKEN", "--secret", "OTHER", "--", "sh", "-c", "echo $TOKEN", TOKEN="t", OTHER="o"
    )
    missing = shell("secret", "--secret", "TOKEN", "--", "true", TOKEN="t")

    assert given.stdout == "t\n"
    assert missing.returncode == 2
    assert missing.stderr == (
        "fleetest: the task secret needs secrets that were not given: OTHER\nAdd --secret OTHER.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none", "--", "true"), 2, r"run \S+ has no task 'none'\nIts tasks: unit, made, secret"),
        (("unit", "--run", "0000", "--", "true"), 2, r"there is no run '0000'\nList runs: fleetest ls"),
        (("unit",), 2, r"a shell needs a terminal\nGive a command instead: fleetest shell unit -- COMMAND"),
        (("unit", "--", "no-such-tool"), 127, r"no-such-tool: No such file or directory"),
        (("unit", "--", "./tests"), 126, r"./tests: Permission denied"),
        (("unit", "--master", "127.0.0.1:1", "--", "true"), 3, r"no master answers at 127\.0\.0\.1:1: "),
    ],
)
def test_what_cannot_be_is_said(shell, arguments, code, message):
    done = shell(*arguments)

    assert done.returncode == code
    assert re.search(message, done.stderr)


def test_without_any_cluster_it_says_how_to_name_one(cluster, tmp_path):
    done = cluster.fleetest("shell", "unit", "--", "true", FLEETEST_DATA_DIR=str(tmp_path))

    assert done.returncode == 3
    assert "no master is named, and no cluster runs on this machine" in done.stderr


def test_files_that_are_stored_no_more_are_missed(cluster, project):
    root = project({"fleetest.yaml": "version: 1\nname: s\nproject: gone\ntasks: {t: {run: 'true'}}"})
    cluster.ended(cluster.submit(cwd=root))
    for blob in cluster.directory.glob("blobs/**/*"):
        if blob.is_file() and b"project: gone" in blob.read_bytes():
            blob.unlink()

    done = cluster.fleetest("shell", "t", "--project", "gone", "--", "true", cwd=root)

    assert done.returncode == 2
    assert re.search(r"the files of run \S+ are not stored any more", done.stderr)
