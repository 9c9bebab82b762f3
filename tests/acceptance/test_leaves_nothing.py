"""`fleetest down`: nothing is left running, and nothing lies about."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psutil
import pytest

from tests.acceptance.conftest import start_cluster

SUITE = """
    version: 1
    name: leaving
    tasks:
      daemon: {run: "(sleep 600 & echo $! > $MARKS/daemon) ; test -e $MARKS/daemon", env: {MARKS: %(marks)s}}
      pytest: {args: test_child.py, env: {MARKS: %(marks)s}}
    """

CHILD = """
    import os, pathlib, subprocess, tempfile

    def test_leaves_a_child_and_files():
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        pathlib.Path(os.environ["MARKS"], "child").write_text(str(child.pid))
        pathlib.Path(tempfile.gettempdir(), "left-behind").write_text("x")
        pathlib.Path(os.environ["MARKS"], "temporary").write_text(tempfile.gettempdir())
    """


@pytest.fixture
def temporary(tmp_path):
    """A temporary directory that only this cluster uses. Its path is short: sockets lie in there."""
    with tempfile.TemporaryDirectory(prefix="ft-") as directory:
        yield Path(directory)


def _descendants(pid):
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def test_down_leaves_neither_process_nor_file(tmp_path, project, temporary):
    root = project({"fleetest.yaml": SUITE % {"marks": tmp_path}, "test_child.py": CHILD})
    cluster = start_cluster(tmp_path / "data", "--workers", "2", "--slots", "1", TMPDIR=str(temporary))
    try:
        assert cluster.fleetest("run", cwd=root).returncode == 0
        supervisor = cluster.supervisor
        alive = _descendants(supervisor)
        left = [int((tmp_path / name).read_text()) for name in ("daemon", "child")]
        assert len(alive) >= 5
    finally:
        done = cluster.fleetest("down")

    assert done.returncode == 0
    assert psutil.wait_procs(alive, timeout=5)[1] == []
    assert [pid for pid in left if psutil.pid_exists(pid)] == []
    assert list(temporary.iterdir()) == []
    assert not Path((tmp_path / "temporary").read_text()).exists()
    assert not (cluster.directory / "cluster.json").exists()


def test_down_in_the_middle_of_a_run_ends_what_runs(tmp_path, project, temporary, until):
    suite = """
        version: 1
        name: middle
        tasks: {long: {run: "echo $$ > %s/pid; sleep 600"}}
        """
    root = project({"fleetest.yaml": suite % tmp_path})
    cluster = start_cluster(tmp_path / "data", "--workers", "1", "--slots", "1", TMPDIR=str(temporary))
    try:
        cluster.submit(cwd=root)
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), what="the task runs")
    finally:
        done = cluster.fleetest("down")

    assert done.returncode == 0
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    assert list(temporary.iterdir()) == []


def test_down_without_a_cluster_is_no_error(cluster, tmp_path):
    done = cluster.fleetest("down", FLEETEST_DATA_DIR=str(tmp_path / "none"))

    assert done.returncode == 0
    assert "No cluster runs here" in done.stderr
