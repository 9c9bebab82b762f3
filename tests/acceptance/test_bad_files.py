"""Workspaces that cannot be used: every file that is in the way is named, and how to leave it out."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from fleetest.common.states import RunState
from tests.acceptance.conftest import FLEETEST


@pytest.fixture
def unusable(project):
    """A project with files of every kind that cannot come along."""
    root = project({"test_fine.py": "def test_fine(): pass", "secret.key": "mine"})
    with (root / "dump.bin").open("wb") as sparse:
        sparse.truncate(2 << 30)
    (root / "passwords").symlink_to("/etc/passwd")
    (root / "neighbour").symlink_to("../elsewhere")
    os.mkfifo(root / "pipe")
    (root / "secret.key").chmod(0)
    return root


def _without_root_rights():
    """A prefix under which root may read no more than anybody else."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may read every file, and there is no setpriv to give that up")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def test_every_unusable_file_is_named_with_its_reason(cluster, unusable):
    done = subprocess.run(
        [*_without_root_rights(), FLEETEST, "run"],
        cwd=unusable,
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert [line.strip() for line in done.stderr.splitlines() if line.startswith("  '")] == [
        f"'dump.bin': has {2 << 30} bytes; the limit for one file is {1 << 30}",
        "'neighbour': is a symbolic link that leaves the tree, to '../elsewhere'",
        "'passwords': is a symbolic link that leaves the tree, to '/etc/passwd'",
        "'pipe': is a FIFO",
        "'secret.key': cannot be read: Permission denied",
    ]
    assert f"Add what the tests do not need to {unusable}/.fleetestignore" in done.stderr


def test_run_passes_once_they_are_left_out(cluster, unusable):
    (unusable / ".fleetestignore").write_text("dump.bin\npasswords\nneighbour\npipe\nsecret.key\n")

    done = cluster.fleetest("run", cwd=unusable)

    assert done.returncode == 0, done.stderr


def test_project_without_tests_fails_and_says_so(cluster, tmp_path):
    (tmp_path / "empty").mkdir()

    done = cluster.fleetest("run", cwd=tmp_path / "empty")

    assert done.returncode == 1
    assert "no tests ran: pytest collected nothing" in done.stderr


def test_unchanged_tree_is_not_sent_again(cluster, project):
    root = project({"test_sent.py": f"# {os.urandom(8).hex()}\ndef test_sent(): pass", "data.txt": os.urandom(8).hex()})
    first = cluster.fleetest("run", cwd=root)

    second = cluster.fleetest("run", cwd=root)

    assert "2 files, 2 of them new" in first.stderr
    assert "2 files, none of them new" in second.stderr
    assert second.returncode == 0


def test_only_what_changed_is_sent(cluster, project):
    root = project({"test_sent.py": "def test_sent(): pass", "data.txt": os.urandom(8).hex()})
    cluster.submit(cwd=root)
    (root / "data.txt").write_text("changed " + os.urandom(8).hex())

    again = cluster.fleetest("run", cwd=root)

    assert "2 files, 1 of them new (24 B sent)" in again.stderr
    assert cluster.json("show", "latest")["state"] == RunState.PASSED
