"""Our images, built on a local base: they start, say whether they are well, run a task, and stop in order."""

from __future__ import annotations

import subprocess

import pytest

from tests.integration.conftest import FLEETEST, TOKENS


@pytest.mark.parametrize(("name", "mib"), [("master", 100), ("worker", 100), ("runner", 200)])
def test_image_is_small_labelled_and_not_roots(docker_engine, base_image, request, name, mib):
    image = docker_engine.inspect(request.getfixturevalue(f"{name}_image"))

    assert image["Size"] - docker_engine.inspect(base_image)["Size"] < mib << 20
    assert image["Config"]["Labels"]["org.opencontainers.image.title"] == f"Fleetest {name}"
    assert image["Config"]["User"].partition(":")[0] not in {"", "0", "root"}
    assert not any("TOKEN" in variable for variable in image["Config"]["Env"])


def test_runner_image_has_what_it_runs_and_so_has_an_environment_made_in_it(docker_engine, runner_image):
    script = (
        "pytest --version; git --version; locust --version; python3 -m venv --system-site-packages /tmp/a;"
        "/tmp/a/bin/python -m pytest --version; /tmp/a/bin/python -c 'import fleetest.worker.checks.plugin, hdrh, locust'"
    )

    said = docker_engine.docker("run", "--rm", runner_image, "sh", "-ec", script).splitlines()

    assert [line.split()[0] for line in said] == ["pytest", "git", "locust", "pytest"]


def test_health_of_a_worker_is_whether_it_reaches_a_master(docker_engine, worker_image):
    checked = docker_engine.run("run", "--rm", "--env=FLEETEST_MASTER=127.0.0.1:1", worker_image, "health")

    assert checked.returncode == 3
    assert "no master answers at 127.0.0.1:1" in checked.stderr


def test_master_and_worker_in_containers_run_a_task_and_stop_in_order(
    docker_engine, containers, master_image, worker_image, redis_url, tmp_path
):
    (tmp_path / "fleetest.yaml").write_text("version: 1\nname: images\ntasks: {hello: {executor: process, run: id}}\n")
    master = containers.start(master_image, FLEETEST_REDIS_URL=redis_url, FLEETEST_INSECURE="1", **TOKENS)
    containers.wait_until_healthy(master)
    address = containers.address_of(master)
    worker = containers.start(
        worker_image,
        FLEETEST_MASTER=address,
        FLEETEST_TOKEN=TOKENS["FLEETEST_JOIN_TOKEN"],
        FLEETEST_EXECUTORS="process",
    )
    containers.wait_until_healthy(worker)

    ran = subprocess.run(
        [FLEETEST, "run", "--master", address],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "FLEETEST_TOKEN": TOKENS["FLEETEST_TOKEN"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    docker_engine.docker("stop", "--time", "30", worker, master)
    assert [docker_engine.inspect(each)["State"]["ExitCode"] for each in (worker, master)] == [0, 0]
