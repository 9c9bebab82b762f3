from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fleetest.client import embedded
from fleetest.client.embedded import running_cluster, start_cluster
from fleetest.common.cluster_file import ClusterFile, hold_lock
from fleetest.common.errors import DependencyUnavailable


def note(directory):
    known = ClusterFile(address="127.0.0.1:1", token="t0ken", pid=os.getpid(), version="1", started_at="now")
    known.write(directory)


def test_a_cluster_whose_supervisor_lives_is_found(tmp_path):
    with hold_lock(tmp_path):
        note(tmp_path)

        cluster = running_cluster(tmp_path)

    assert cluster is not None
    assert (cluster.address, cluster.token.reveal()) == ("127.0.0.1:1", "t0ken")
    assert "t0ken" not in repr(cluster)


def test_the_note_of_a_dead_supervisor_is_no_cluster(tmp_path):
    note(tmp_path)

    assert running_cluster(tmp_path) is None


def test_no_note_is_no_cluster(tmp_path):
    with hold_lock(tmp_path):
        assert running_cluster(tmp_path) is None


def test_what_is_not_installed_is_named_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "_NEEDED", ("fleetest.common", "no_such_module"))

    with pytest.raises(DependencyUnavailable, match="no_such_module is missing") as caught:
        start_cluster(tmp_path)

    assert "pip install 'fleetest[embedded]'" in caught.value.hint


def test_a_cluster_that_does_not_start_tells_why(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(DependencyUnavailable, match="does not start") as caught:
        start_cluster(tmp_path / "file")

    assert "fleetest up" in caught.value.hint


def test_an_interpreter_that_cannot_be_run_is_an_error_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))

    with pytest.raises(DependencyUnavailable, match="does not start"):
        start_cluster(tmp_path)


def test_run_starts_a_cluster_says_so_and_reuses_it(tmp_path):
    environment = {
        "FLEETEST_DATA_DIR": str(tmp_path / "data"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
    }
    project = tmp_path / "project"
    project.mkdir()

    def fleetest(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "fleetest.client", *arguments],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    try:
        first = fleetest("run", "--detach", "--", "true")
        second = fleetest("run", "--detach", "--", "true")
    finally:
        stopped = fleetest("down")

    assert (first.returncode, second.returncode, stopped.returncode) == (0, 0, 0), first.stderr + second.stderr
    assert "starting a cluster on this machine" in first.stderr
    assert "using your cluster on this machine" in second.stderr
    assert len(first.stdout.strip()) == len(second.stdout.strip()) == 36
