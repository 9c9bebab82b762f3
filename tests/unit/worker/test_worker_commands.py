from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from fleetest.common.errors import AlreadyExists, InvalidRequest
from fleetest.common.settings import read_settings
from fleetest.worker.__main__ import main
from fleetest.worker.identity import own_directory, persistent_worker_id
from fleetest.worker.settings import WorkerSettings


def test_settings_come_from_the_environment():
    settings = read_settings(
        WorkerSettings, {"FLEETEST_MASTER": "a:1,b:2", "FLEETEST_TOKEN": "hush", "FLEETEST_WORKER_LABELS": "zone=eu"}
    )

    assert (list(settings.masters), dict(settings.labels)) == (["a:1", "b:2"], {"zone": "eu"})
    assert "hush" not in repr(settings)


def test_every_wrong_setting_is_named_and_the_exit_code_says_infrastructure(tmp_path):
    result = CliRunner().invoke(
        main,
        ["worker", "--directory", str(tmp_path)],
        env={"FLEETEST_WORKER_SLOTS": "many", "FLEETEST_WORKER_CACHE_BYTES": "1", "FLEETEST_MASTER": ","},
    )

    assert result.exit_code == 3
    assert "FLEETEST_WORKER_SLOTS" in result.output
    assert "FLEETEST_MASTER: names no master" in result.output
    assert "FLEETEST_WORKER_CACHE_BYTES" in result.output


def test_label_without_a_value_is_a_usage_error():
    result = CliRunner().invoke(main, ["worker", "--label", "zone"])

    assert result.exit_code == 2
    assert "key=value" in result.output


def test_worker_keeps_its_id(tmp_path):
    first = persistent_worker_id(tmp_path)

    assert re.fullmatch(r".+-[0-9a-f]{6}", first)
    assert persistent_worker_id(tmp_path) == first


def test_directory_belongs_to_one_worker(tmp_path):
    with own_directory(tmp_path / "new"), pytest.raises(AlreadyExists), own_directory(tmp_path / "new"):
        pass
    with own_directory(tmp_path / "new"):
        pass


def test_directory_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(InvalidRequest, match="cannot use"), own_directory(tmp_path / "file"):
        pass
