"""
The same real suites in containers: what plain pytest says there, the tasks of a cluster say too, in containers that are
new and in those that another run has used before.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.acceptance.conftest import Cluster, start_cluster
from tests.acceptance.test_parity import NAMES, SHAPES, SUITES, outcomes
from tests.support.docker_engine import DockerEngine
from tests.tools.parity import Recorded, differences, plain_in_container

# Plain pytest takes its time, too.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", params=SHAPES, ids=lambda slots: f"{slots}-slots")
def docker_cluster(request: pytest.FixtureRequest, docker_engine: DockerEngine) -> Iterator[Cluster]:
    workers, slots = SHAPES[request.param]
    with tempfile.TemporaryDirectory(prefix="ft") as directory:
        running = start_cluster(
            Path(directory),
            "--workers",
            workers,
            "--slots",
            slots,
            FLEETEST_EXECUTORS="docker",
            **docker_engine.environment,
        )
        yield running
        assert running.fleetest("down").returncode == 0
    assert docker_engine.containers("label=fleetest.worker") == []


@pytest.fixture
def suite_image(docker_engine: DockerEngine, base_image: str, name: str, tmp_path: Path) -> str:
    """An image with what the suite `name` needs."""
    image = f"fleetest-test-{name}"
    if docker_engine.docker("images", "--quiet", image):
        return image
    if not (SUITES / name / "packages").exists():
        assert "FLEETEST_TEST_ALL" not in os.environ, "run tests/tools/make_suites.sh"
        pytest.skip("run tests/tools/make_suites.sh first")
    context = tmp_path / "image"
    shutil.copytree(SUITES / name / "packages", context / "packages", symlinks=True)
    (context / "Dockerfile").write_text(f"FROM {base_image}\nCOPY packages /usr/local/lib/python3.13/dist-packages\n")
    docker_engine.docker("build", "--quiet", "--tag", image, str(context))
    return image


@cache
def expected(engine: DockerEngine, image: str, name: str) -> Mapping[str, Recorded]:
    return plain_in_container(["docker", f"--host={engine.url}"], image, SUITES / name / "src")


@pytest.mark.parametrize("name", NAMES)
def test_real_suite_gives_in_containers_what_plain_pytest_gives_there(
    docker_cluster, docker_engine, suite_image, tmp_path, name
):
    source = tmp_path / name
    shutil.copytree(SUITES / name / "src", source, symlinks=True)
    (source / "fleetest.yaml").write_text(
        f"{{version: 1, name: {name}, tasks: {{suite: {{args: [], image: {suite_image}, pull: never}}}}}}"
    )
    plainly = expected(docker_engine, suite_image, name)

    for temperature in ("cold", "warm"):
        ran = docker_cluster.fleetest("run", cwd=source, timeout=280)

        assert ran.returncode in {0, 1}, temperature + ran.stdout + ran.stderr
        assert differences(plainly, outcomes(docker_cluster)) == [], temperature
