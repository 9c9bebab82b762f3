"""Where a user's embedded cluster is found."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from fleetest.common.cluster_file import ClusterFile, data_directory, hold_lock, is_locked
from fleetest.common.errors import AlreadyExists

CLUSTER = ClusterFile(address="127.0.0.1:1", token="t", pid=7, version="1", started_at="2026-11-03T00:00:00+00:00")


def test_what_is_written_is_read_and_nobody_else_may_look(tmp_path: Path) -> None:
    CLUSTER.write(tmp_path)

    assert ClusterFile.read(tmp_path) == CLUSTER
    assert stat.S_IMODE(ClusterFile.path(tmp_path).stat().st_mode) == 0o600


def test_a_file_that_is_absent_or_not_whole_is_none(tmp_path: Path) -> None:
    assert ClusterFile.read(tmp_path) is None
    for content in ("", "{", "[]", "null", '{"address": "x"}'):
        ClusterFile.path(tmp_path).write_text(content)
        assert ClusterFile.read(tmp_path) is None


def test_what_a_newer_version_adds_is_passed_over(tmp_path: Path) -> None:
    CLUSTER.write(tmp_path)
    path = ClusterFile.path(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "red"}))

    assert ClusterFile.read(tmp_path) == CLUSTER


def test_removing_is_idempotent(tmp_path: Path) -> None:
    CLUSTER.write(tmp_path)

    ClusterFile.remove(tmp_path)
    ClusterFile.remove(tmp_path)

    assert ClusterFile.read(tmp_path) is None


def test_the_directory_is_the_users_own_unless_one_is_named(tmp_path: Path) -> None:
    assert data_directory({"FLEETEST_DATA_DIR": f" {tmp_path} "}) == tmp_path
    assert data_directory({"FLEETEST_DATA_DIR": " "}).name == "fleetest"


def test_only_one_supervisor_holds_a_directory(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "data"):
        assert is_locked(tmp_path / "data")
        with pytest.raises(AlreadyExists, match=r"runs in .* already"):  # noqa: SIM117 - the lock is held here
            with hold_lock(tmp_path / "data"):
                pass

    assert not is_locked(tmp_path / "data")
    with hold_lock(tmp_path / "data"):
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
