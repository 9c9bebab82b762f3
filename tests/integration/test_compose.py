"""`docker/compose.yaml`, as Compose itself reads it, fits the images and the settings of what they run."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from fleetest.common.settings import read_settings
from fleetest.master.settings import MasterSettings
from fleetest.worker.settings import WorkerSettings
from tests.integration.conftest import FLEETEST
from tests.support.forwarding import forwarding

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
            timeout=200,
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


@pytest.mark.timeout(600)  # images are built first
def test_composed_cluster_runs_a_task_at_each_master_and_leaves_nothing(
    compose, docker_engine, python_image, master_image, worker_image, mongodb_engine, redis_url, tmp_path
):
    """Redis and MongoDB are those of the tests; all else is as in the file."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "fleetest.yaml").write_text(
        "version: 1\nname: composed\ntasks: {unit: {args: [test_it.py], network: none}}\n"
    )
    (project / "test_it.py").write_text("def test_it(): pass\n")
    before = docker_engine.volumes()
    with forwarding(docker_engine.gateway, mongodb_engine.socket) as port:
        variables = {
            **GIVEN,
            **docker_engine.environment,
            "COMPOSE_PROJECT_NAME": "fleetest-test",
            "DOCKER_GID": str(docker_engine.socket.stat().st_gid),
            "DOCKER_SOCKET": str(docker_engine.socket),
            "FLEETEST_DEFAULT_IMAGE": python_image,
            "FLEETEST_MASTER_IMAGE": master_image,
            "FLEETEST_MONGODB_URL": f"mongodb://{docker_engine.gateway}:{port}/composed?directConnection=true",
            "FLEETEST_PUBLISH_ADDRESS": docker_engine.gateway,
            "FLEETEST_REDIS_URL": f"{redis_url}/5",
            "FLEETEST_WORKER_IMAGE": worker_image,
        }
        try:
            up = compose("up", "--detach", "--no-build", "--no-deps", "master-1", "master-2", "worker", **variables)
            assert up.returncode == 0, up.stderr
            for published in (50051, 50061):
                ran = run_suite(project, f"{docker_engine.gateway}:{published}")
                assert ran.returncode == 0, ran.stdout + ran.stderr + compose("logs", "--no-color", **variables).stdout
        finally:
            down = compose("down", "--volumes", "--timeout", "60", **variables)
        assert down.returncode == 0, down.stderr
    assert docker_engine.containers("label=fleetest.worker") == []
    assert docker_engine.volumes() == before


def run_suite(directory, master):
    """Its masters may have to come up first."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(directory.parent), "FLEETEST_MASTER": master}
    environment["FLEETEST_TOKEN"] = GIVEN["FLEETEST_TOKEN"]
    limit = time.monotonic() + 90
    while subprocess.run([FLEETEST, "health"], env=environment, capture_output=True, check=False).returncode != 0:
        assert time.monotonic() < limit, f"no master serves at {master}"
    return subprocess.run(
        [FLEETEST, "run"], cwd=directory, env=environment, capture_output=True, text=True, timeout=150, check=False
    )


def variables_of(settings):
    return {
        field.metadata["variable"] for field in settings.__dataclass_fields__.values() if "variable" in field.metadata
    }
