"""A worker that is itself in a container, and runs its tasks in containers beside its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trustme

from tests.integration.conftest import FLEETEST, TOKENS

pytestmark = pytest.mark.timeout(600)  # images are built first

SHOP = Path(__file__).parents[2] / "examples" / "shop"
SUITE = """
version: 1
name: beside
tasks:
  unit:
    image: {image}
    network: none
    args: [test_beside.py]
    requires: {{memory: 128MiB}}
    artifacts: [left.txt]
"""
TESTS = """
import os, pathlib

def test_it_is_hardened_and_alone():
    assert os.getuid() != 0
    assert len(pathlib.Path("/proc/net/route").read_text().splitlines()) == 1

def test_it_has_the_workspace():
    pathlib.Path("left.txt").write_text("here")
"""


@pytest.fixture
def master(containers, master_image, redis_url):
    """The address of one in a container."""
    started = containers.start(master_image, FLEETEST_REDIS_URL=redis_url, FLEETEST_INSECURE="1", **TOKENS)
    containers.wait_until_healthy(started)
    return containers.address_of(started)


@pytest.fixture
def data_volume(docker_engine):
    """The name of a volume for a worker's data; first of a test's fixtures, so that it goes after its containers."""
    yield docker_engine.docker("volume", "create", "fleetest-worker")
    if left := docker_engine.containers("label=fleetest.worker"):  # the test failed: its worker has no next life
        docker_engine.docker("rm", "--force", *left)
    docker_engine.docker("volume", "rm", "fleetest-worker")


@pytest.fixture
def fleetest(master, tmp_path):
    """The command, in a project directory; it must succeed."""
    project = tmp_path / "project"
    project.mkdir()
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "FLEETEST_MASTER": master, "CI": ""}
    environment["FLEETEST_TOKEN"] = TOKENS["FLEETEST_TOKEN"]

    def run(*arguments: str, cwd: Path = project, **files: str) -> str:
        for name, text in files.items():
            (cwd / name.replace("__", ".")).write_text(text)
        done = subprocess.run(
            [FLEETEST, *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def shop(tmp_path, runner_image):
    """The example that starts what it tests; nothing of it reaches any network but that of its run."""
    directory = shutil.copytree(SHOP, tmp_path / "shop", ignore=shutil.ignore_patterns("__pycache__"))
    suite = (directory / "fleetest.yaml").read_text()
    (directory / "fleetest.yaml").write_text(
        suite.replace("image: fleetest-runner", f"network: none\n  image: {runner_image}")
    )
    return directory


def test_worker_in_a_container_runs_tests_and_what_they_test_in_containers_beside_it(
    data_volume, docker_engine, containers, master, fleetest, worker_image, runner_image, shop, tmp_path
):
    neighbour = containers.start(runner_image, "--memory=512m", "--cpus=0.5", "--entrypoint=/bin/cat", "--tty")
    worker = containers.start(
        worker_image,
        *(f"--volume={docker_engine.socket}:/var/run/docker.sock", f"--volume={data_volume}:/var/lib/fleetest"),
        *("--volume=/sys/fs/cgroup:/sys/fs/cgroup:ro", f"--group-add={docker_engine.socket.stat().st_gid}"),
        FLEETEST_MASTER=master,
        FLEETEST_TOKEN=TOKENS["FLEETEST_JOIN_TOKEN"],
    )
    containers.wait_until_healthy(worker)

    fleetest("run", fleetest__yaml=SUITE.format(image=runner_image), test_beside__py=TESTS)
    fleetest("artifacts", "latest", "--save", str(tmp_path / "saved"))
    logs = fleetest("logs", "latest")
    (shown,) = json.loads(fleetest("workers", "--output", "json"))
    run = json.loads(fleetest("show", "latest", "--output", "json"))
    fleetest("run", "--executor=docker", "--task=api", "--task=graph", cwd=shop)
    served = json.loads(fleetest("show", "latest", "--output", "json"))

    assert {task["task_id"]: task["state"] for task in served["tasks"]} == dict.fromkeys(
        ["shop", "api", "graph"], "passed"
    )
    assert "test_beside.py .." in logs
    assert [path.read_text() for path in (tmp_path / "saved").rglob("left.txt")] == ["here"]
    assert run["tasks"][0]["usage"]["peak_memory_bytes"] > 1 << 20
    machine = json.loads(docker_engine.docker("info", "--format", "{{json .}}"))
    assert shown["capacity"]["cpu_millis"] == machine["NCPU"] * 1000 - 500
    assert shown["capacity"]["memory_bytes"] == machine["MemTotal"] - (512 << 20)
    docker_engine.docker("stop", "--time", "60", worker)
    assert docker_engine.inspect(worker)["State"]["ExitCode"] == 0, containers.logs(worker)
    assert docker_engine.containers("label=fleetest.worker") == []
    assert docker_engine.networks() == []
    containers.remove()
    assert docker_engine.volumes() == [data_volume]
    assert neighbour


def test_worker_uses_the_engine_of_a_sidecar_over_tls(
    containers, master, fleetest, worker_image, own_docker_engine, root_tar, tmp_path
):
    """The two share a directory, at the same path."""
    certificates, shared = make_certificates(tmp_path / "certificates", own_docker_engine.gateway), tmp_path / "shared"
    shared.mkdir()
    os.chown(shared, 10001, 10001)
    own_docker_engine.docker("import", str(root_tar), "base")
    own_docker_engine.stop()
    own_docker_engine.start(
        *(f"--host=tcp://{own_docker_engine.gateway}:2376", "--tlsverify", f"--tlscacert={certificates}/ca.pem"),
        *(f"--tlscert={certificates}/cert.pem", f"--tlskey={certificates}/key.pem"),
    )
    worker = containers.start(
        worker_image,
        *(f"--volume={shared}:{shared}", f"--volume={certificates}:/certificates:ro"),
        FLEETEST_MASTER=master,
        FLEETEST_TOKEN=TOKENS["FLEETEST_JOIN_TOKEN"],
        FLEETEST_DATA_DIR=str(shared),
        DOCKER_HOST=f"tcp://{own_docker_engine.gateway}:2376",
        DOCKER_TLS_VERIFY="1",
        DOCKER_CERT_PATH="/certificates",
    )
    containers.wait_until_healthy(worker)

    fleetest(
        "run", fleetest__yaml="version: 1\nname: tls\ntasks: {hello: {image: base, run: cat given}}\n", given="seen"
    )

    assert "seen" in fleetest("logs", "latest")
    containers.remove()


def make_certificates(directory: Path, host: str) -> Path:
    """ca.pem, cert.pem and key.pem, good for the server of that address and for its clients."""
    directory.mkdir()
    authority = trustme.CA()
    issued = authority.issue_cert(host)
    authority.cert_pem.write_to_path(directory / "ca.pem")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    for part in issued.cert_chain_pems:
        part.write_to_path(directory / "cert.pem", append=True)
    for path in directory.iterdir():
        path.chmod(0o644)  # the worker in the container is somebody else
    return directory
