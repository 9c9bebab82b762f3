"""`docker/compose.yaml`, as Compose itself reads it, fits the images and the settings of what they run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from fleetest.common.settings import read_settings
from fleetest.master.settings import MasterSettings
from fleetest.worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker" / "compose.yaml"
GIVEN = {"FLEETEST_TOKEN": "of-clients", "FLEETEST_JOIN_TOKEN": "of-workers", "DOCKER_GID": "999"}


@pytest.fixture
def compose():
    """Calls `docker-compose` with these variables and no others that matter."""
    if shutil.which("docker-compose") is None:
        assert "FLEETEST_TEST_ALL" not in os.environ, "run tests/tools/install_debian.sh"
        pytest.skip("needs docker-compose: run tests/tools/install_debian.sh")

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker-compose", "--file", FILE, *arguments],
            env={"PATH": os.environ["PATH"], **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call


@pytest.fixture
def configuration(compose):
    done = compose("config", **GIVEN)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


@pytest.fixture
def services(configuration):
    return configuration["services"]


def sources(service):
    """Where its directories come from, by where it has them. Compose writes them in a short or a long form."""
    pairs = [
        each.split(":")[:2] if isinstance(each, str) else (each["source"], each["target"])
        for each in service["volumes"]
    ]
    return {target: source for source, target in pairs}


def test_masters_get_settings_that_they_accept_and_share_what_they_must(services):
    first, second = services["master-1"], services["master-2"]

    settings = read_settings(MasterSettings, {"FLEETEST_LISTEN_ADDRESS": "0.0.0.0:50051", **first["environment"]})
    settings.check()

    assert first["environment"] == second["environment"]
    assert set(first["environment"]) <= variables_of(MasterSettings)
    assert sources(first)[str(settings.blobs_directory)] == sources(second)[str(settings.blobs_directory)] == "blobs"
    assert settings.redis_url.startswith("redis://redis:")
    assert settings.mongodb_url.reveal().startswith("mongodb://mongodb:")
    assert first["ports"] != second["ports"]


def test_worker_gets_settings_that_it_accepts_and_knows_both_masters(services):
    worker = services["worker"]

    settings = read_settings(WorkerSettings, worker["environment"])

    assert set(worker["environment"]) <= variables_of(WorkerSettings)
    assert settings.masters == ("master-1:50051", "master-2:50051")
    assert settings.token.reveal() == GIVEN["FLEETEST_JOIN_TOKEN"]
    assert sources(worker)["/var/run/docker.sock"] == "/var/run/docker.sock"
    assert sources(worker)["/var/lib/fleetest"] == "worker"
    assert worker["group_add"] == ["999"]


def test_images_are_built_of_files_that_exist_and_volumes_are_declared(configuration, services):
    for service in services.values():
        if "build" in service:
            assert (Path(service["build"]["context"]) / service["build"]["dockerfile"]).is_file()
            assert Path(service["build"]["context"]) == ROOT
        named = {source for source in sources(service).values() if not source.startswith("/")}
        assert named <= set(configuration["volumes"])


@pytest.mark.parametrize("missing", GIVEN)
def test_a_variable_that_is_missing_is_named(compose, missing):
    done = compose("config", **{name: value for name, value in GIVEN.items() if name != missing})

    assert done.returncode != 0
    assert missing in done.stderr


def variables_of(settings):
    return {
        field.metadata["variable"] for field in settings.__dataclass_fields__.values() if "variable" in field.metadata
    }
