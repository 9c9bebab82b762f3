"""Real parts that tests of several kinds share: a Docker Engine of their own with images for it, and MongoDB's engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from pymongo import MongoClient
from xdist.scheduler import LoadScopeScheduling

from fleetest.common.settings import Secret
from tests.support.docker_engine import DockerEngine, docker_engine_absent, open_docker_engine
from tests.support.images import IMAGE_PYTHON, build_image, make_context
from tests.support.mongodb_engine import MongodbEngine, engine_or_skip

ROOT_TAR = Path(__file__).parents[1] / ".cache" / "roots" / "trixie.tar"

# A machine that is busy is no reason to fail. All of the tests together try enough examples each time.
hypothesis.settings.register_profile(
    "busy", deadline=None, max_examples=50, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


class FilesTogether(LoadScopeScheduling):
    """For several processes: each file is run by one of them, and all of a directory that share a Docker Engine, too."""

    def _split_scope(self, nodeid: str) -> str:
        return _group_of(self.config.rootpath / nodeid.partition("::")[0])


@cache
def _group_of(file: Path) -> str:
    return f"{file.parent}, in containers" if "docker_engine" in file.read_text() else str(file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesTogether:
    return FilesTogether(config, log)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """One for all tests, which remove what they make. A test that stops it or fills it takes `own_docker_engine`."""
    _need_docker_parts()
    with open_docker_engine() as engine:
        yield engine


@pytest.fixture
def own_docker_engine() -> Iterator[DockerEngine]:
    """An Engine without any image, for one test alone, which may kill and start it."""
    _need_docker_parts()
    with open_docker_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def root_tar() -> Path:
    """A Debian with Python, Node and git, for `docker import`."""
    _need_docker_parts()
    return ROOT_TAR


@pytest.fixture(scope="session")
def base_image(docker_engine: DockerEngine, root_tar: Path) -> str:
    """The name of an image of that Debian."""
    docker_engine.docker("import", "--change", 'CMD ["/bin/sh"]', str(root_tar), "fleetest-test-base")
    return "fleetest-test-base"


@pytest.fixture(scope="session")
def python_image(docker_engine: DockerEngine, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same with pytest."""
    context = tmp_path_factory.mktemp("python-image")
    (context / "Dockerfile").write_text(
        f"FROM {base_image}\nCOPY packages /usr/local/lib/python3.13/dist-packages\n"
        "RUN python3 -m compileall -q /usr/local/lib/python3.13/dist-packages\nENV PYTHONDONTWRITEBYTECODE=1\n"
    )
    install_for_image(context / "packages", "pytest", "pytest-timeout")
    docker_engine.docker("build", "--quiet", "--tag", "fleetest-test-python", str(context))
    return "fleetest-test-python"


@pytest.fixture(scope="session")
def mongodb_engine() -> Iterator[MongodbEngine]:
    """One for all tests. A test that kills it takes one of its own."""
    with engine_or_skip() as engine:
        yield engine


@pytest.fixture
def mongodb_url(mongodb_engine: MongodbEngine) -> Iterator[Secret]:
    """For `FLEETEST_MONGODB_URL`: a database of the test's own."""
    url = mongodb_engine.url()
    yield url
    with MongoClient[dict[str, object]](url.reveal()) as client:
        client.drop_database(client.get_default_database().name)


@pytest.fixture(scope="session")
def build_context(root_tar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What our images are built from."""
    return make_context(tmp_path_factory.mktemp("context"), python=IMAGE_PYTHON)


@pytest.fixture(scope="session")
def master_image(docker_engine: DockerEngine, base_image: str, build_context: Path) -> str:
    return build_image(docker_engine, build_context, "master", base=base_image)


@pytest.fixture(scope="session")
def worker_image(docker_engine: DockerEngine, base_image: str, build_context: Path) -> str:
    return build_image(docker_engine, build_context, "worker", base=base_image)


@pytest.fixture(scope="session")
def runner_image(docker_engine: DockerEngine, base_image: str, build_context: Path) -> str:
    return build_image(docker_engine, build_context, "runner", base=base_image, RUNNERS="pytest checks performance")


def install_for_image(directory: Path, *packages: str) -> None:
    """Packages of pure Python for the image's interpreter, taken from the index by this machine."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    chosen = ["--target", str(directory), "--python-version", IMAGE_PYTHON, "--no-compile-bytecode"]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", sys.executable, *chosen, *packages], check=True)


def _need_docker_parts() -> None:
    absent = docker_engine_absent() or ("" if ROOT_TAR.exists() else "run tests/tools/make_root.sh")
    if absent:
        assert "FLEETEST_TEST_ALL" not in os.environ, absent
        pytest.skip(absent)
