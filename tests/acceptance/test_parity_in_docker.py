"""
The same real suites in containers: what plain pytest says there, the tasks of a cluster say too, in containers that are
new and in those that another run has used before.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.conftest import Cluster, start_cluster
from tests.acceptance.test_parity import ARGUMENTS, NAMES, SHAPES, SUITES, recorded
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


@pytest.fixture(scope="module")
def images(docker_engine: DockerEngine, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """For each suite an image with what it needs."""
    if not (SUITES / NAMES[-1] / "packages").exists():
        assert "FLEETEST_TEST_ALL" not in os.environ, "run tests/tools/make_suites.sh"
        pytest.skip("run tests/tools/make_suites.sh first")
    made = {}
    for name in NAMES:
        context, made[name] = tmp_path_factory.mktemp(name), f"fleetest-test-{name}"
        shutil.copytree(SUITES / name / "packages", context / "packages", symlinks=True)
        (context / "Dockerfile").write_text(
            f"FROM {base_image}\nCOPY packages /usr/local/lib/python3.13/dist-packages\n"
            "RUN python3 -m compileall -q /usr/local/lib/python3.13/dist-packages\n"
        )
        docker_engine.docker("build", "--quiet", "--tag", made[name], str(context))
    return made


@pytest.fixture(scope="module")
def sources(images: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All suites side by side, a task each."""
    directory = tmp_path_factory.mktemp("suites")
    for name in NAMES:
        shutil.copytree(SUITES / name / "src", directory / name, symlinks=True)
    tasks = {
        name: {
            "args": [*ARGUMENTS],
            "working_directory": name,
            "image": image,
            "pull": "never",
        }
        for name, image in images.items()
    }
    (directory / "fleetest.yaml").write_text(json.dumps({"version": 1, "name": "real", "tasks": tasks}))
    return directory


@pytest.fixture(scope="module")
def expected(
    docker_engine: DockerEngine, images: Mapping[str, str], sources: Path
) -> Mapping[str, Mapping[str, Recorded]]:
    docker = ["docker", f"--host={docker_engine.url}"]
    with ThreadPoolExecutor(2) as pool:
        plain = pool.map(
            lambda name: plain_in_container(docker, images[name], sources, working_directory=name, arguments=ARGUMENTS),
            NAMES,
        )
        return dict(zip(NAMES, plain, strict=True))


def test_real_suites_give_in_containers_what_plain_pytest_gives_there(docker_cluster, sources, expected):
    for temperature in ("cold", "warm"):
        ran = docker_cluster.fleetest("run", cwd=sources, timeout=280)

        assert ran.returncode in {0, 1}, temperature + ran.stdout + ran.stderr
        found = outcomes(docker_cluster)
        wrong = [line for name in NAMES for line in differences(expected[name], found[name])]
        assert wrong == [], temperature


def outcomes(cluster: Cluster) -> Mapping[str, Mapping[str, Recorded]]:
    """By task and case."""
    found: defaultdict[str, dict[str, Recorded]] = defaultdict(dict)
    with cluster.client() as client:
        for case in client.cases("latest"):
            found[case.task_id][case.result.case_id] = recorded(case.result)
    return found
